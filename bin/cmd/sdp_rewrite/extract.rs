//! The session description in an item.
//!
//! In: an item of any kind. Out: its SDP, and where in the file its first line stands. Not here: rewriting it.

use sipbox_core::inputs::sip::Mended;
use sipbox_core::inputs::{Item, Kind, json, sip};
use sipbox_core::ng::{self, Dict};
use sipbox_core::sdp::json as form;
use sipbox_core::sip::Message;
use std::borrow::Cow;

/// One SDP out of an item.
pub struct Description<'a> {
    pub sdp: Cow<'a, [u8]>,
    /// The file's line of its first line; in JSON and bencode of the item that it is in.
    pub line: u64,
    /// Its lines are lines of the file.
    pub is_text: bool,
    /// The item says that it is an answer.
    pub is_answer: bool,
}

/// The SDP, `None` where the item rightly has none; `Err` says why it cannot be read.
pub fn description<'a>(item: &Item<'a>) -> Result<Option<Description<'a>>, String> {
    let line = item.place.line;
    match item.kind {
        Kind::Sdp => {
            let sdp = Cow::Borrowed(item.data);
            Ok(Some(Description { sdp, line, is_text: true, is_answer: false }))
        }
        Kind::Sip => {
            let Mended { data, .. } =
                sip::mend(item.data).map_err(|error| format!("not a SIP message: {error}"))?;
            let message = Message::parse(&data).map_err(|error| format!("not a SIP message: {error}"))?;
            let Some(place) = sip::description(&message) else { return Ok(None) };
            let head = data.len() - message.body().len() + place.start;
            let before = data.iter().take(head).filter(|byte| **byte == b'\n').count() as u64;
            let sdp = Cow::Owned(message.body().get(place).unwrap_or_default().to_vec());
            Ok(Some(Description { sdp, line: line + before, is_text: true, is_answer: false }))
        }
        Kind::Bencode | Kind::Json => {
            let record = record(item)?;
            let (sdp, is_answer) = match record {
                Record::Ng(dict) => (
                    dict.get_bytes("sdp").ok_or("a dictionary without sdp")?.to_vec(),
                    dict.get_str("command") == Some("answer"),
                ),
                Record::Form(sdp) => (sdp, false),
                Record::Json { sdp } => {
                    let mut text = Vec::new();
                    json::text_of(item.data.get(sdp).unwrap_or_default(), &mut text);
                    (text, false)
                }
            };
            Ok(Some(Description { sdp: Cow::Owned(sdp), line, is_text: false, is_answer }))
        }
    }
}

/// A record that carries an SDP in a field.
pub enum Record {
    /// A request of ng, or one of its replies.
    Ng(Dict),
    /// Any other object: where the string in its field `sdp` is.
    Json { sdp: std::ops::Range<usize> },
    /// An SDP in the form of `-o json`; its text.
    Form(Vec<u8>),
}

/// Reads an item of JSON or bencode.
pub fn record(item: &Item<'_>) -> Result<Record, String> {
    if item.kind == Kind::Bencode {
        return ng::decode(item.data).map(|(_, dict)| Record::Ng(dict)).map_err(|error| error.to_string());
    }
    let (mut sdp, mut command, mut media) = (None, false, false);
    let read = json::members(item.data, |key, place| match key {
        b"sdp" => sdp = Some(place),
        b"command" => command = true,
        b"media" => media = true,
        _ => {}
    });
    let is_text = |place: &std::ops::Range<usize>| item.data.get(place.start) == Some(&b'"');
    match (read, sdp) {
        (Ok(()), _) if command => {
            ng::decode(item.data).map(|(_, dict)| Record::Ng(dict)).map_err(|error| error.to_string())
        }
        (Ok(()), Some(place)) if is_text(&place) => Ok(Record::Json { sdp: place }),
        (Ok(()), Some(_)) => Err("the field sdp is no text".to_owned()),
        (Ok(()), None) if media => form_of(item.data),
        (Ok(()), None) => Err("an object without a field sdp".to_owned()),
        // A dump out of a log, or no JSON at all.
        (Err(_), _) => match ng::decode(json::mend(item.data).as_bytes()) {
            Ok((_, dict)) => Ok(Record::Ng(dict)),
            Err(_) => match serde_json::from_slice::<serde_json::Value>(item.data) {
                Err(error) => Err(format!("no JSON: {error}")),
                Ok(_) => Err("nested too deeply".to_owned()),
            },
        },
    }
}

fn form_of(data: &[u8]) -> Result<Record, String> {
    let value: serde_json::Value =
        serde_json::from_slice(data).map_err(|error| format!("no JSON: {error}"))?;
    match value.as_object().filter(|object| form::is_form(object)) {
        Some(object) => form::from_json(object).map(Record::Form).map_err(|error| error.to_string()),
        None => Err("an object without a field sdp".to_owned()),
    }
}
