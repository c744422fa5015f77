//! What a trace looks like: a line a call, ladders, JSON, raw messages, SDPs.
//!
//! In: [`Call`]s and [`Traced`] messages. Out: text and JSON. Not here: writing it, HTML.

use super::{Call, Traced, printable};
use crate::sip::{Message, Name};
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::SocketAddr;

/// Names of the columns of [`list`].
pub const LIST_HEAD: &str = "start\tmethod\tstatus\tstate\tmessages\tfrom\tto\tcall-id\n";

/// One line a call, with tabs between its columns.
pub fn list(call: &Call) -> String {
    let status = if call.status == 0 { "-".to_owned() } else { call.status.to_string() };
    format!(
        "{}\t{}\t{status}\t{}\t{}\t{}\t{}\t{}\n",
        call.first.rfc3339(),
        call.method,
        call.state,
        call.messages,
        call.from,
        call.to,
        call.call_id
    )
}

/// The record of a call.
pub fn call_record(call: &Call) -> Value {
    let mut record = json!({
        "call_id": call.call_id,
        "from": call.from,
        "to": call.to,
        "method": call.method,
        "state": call.state.name(),
        "status": (call.status != 0).then_some(call.status),
        "reason": (call.status != 0).then_some(&call.reason),
        "start": call.first.rfc3339(),
        "end": call.last.rfc3339(),
        "messages": call.messages,
    });
    if let Some(answered) = call.answered {
        record["answered"] = answered.rfc3339().into();
    }
    record
}

/// The record of a message.
pub fn message_record(traced: &Traced) -> Value {
    let summary = &traced.summary;
    let mut record = json!({
        "time": traced.time.rfc3339(),
        "packet": traced.packet,
        "transport": traced.transport.to_string(),
        "source": traced.source.to_string(),
        "destination": traced.destination.to_string(),
        "method": summary.method,
    });
    if summary.is_request() {
        record["uri"] = summary.request_uri.as_str().into();
    } else {
        record["status"] = summary.status.into();
        record["reason"] = summary.reason.as_str().into();
    }
    record["cseq"] = summary.cseq.into();
    record["call_id"] = summary.call_id.as_str().into();
    record["from"] = summary.from.as_str().into();
    record["to"] = summary.to.as_str().into();
    if let Some(fault) = &traced.fault {
        record["fault"] = fault.to_string().into();
    }
    record["message"] = String::from_utf8_lossy(&traced.data).into();
    record
}

/// A message as `-o sip` writes it: as it was, where its length can be told; else with a Content-Length that is right, and
/// what was mended. `None` where it is not even so far a message.
pub fn sip(traced: &Traced) -> Option<(Vec<u8>, Option<&'static str>)> {
    let data = &traced.data[..];
    if let Ok(message) = Message::parse(data) {
        if message.content_length().is_some() {
            return Some((message.as_bytes().to_vec(), None));
        }
        let body = message.body();
        let head = &message.as_bytes()[..message.as_bytes().len() - body.len()];
        return Some((with_length(&message, head, body), Some("Content-Length was missing")));
    }
    let shown = Message::parse_to_show(data)?;
    let head = shown.as_bytes();
    let body = &data[head.len()..];
    let whole = with_length(&shown, head, body);
    // What is still no message after that would spoil the stream for whoever reads it.
    Message::parse(&whole).ok()?;
    Some((whole, Some("Content-Length was wrong")))
}

/// The head without any Content-Length, one that is right, the body.
fn with_length(message: &Message<'_>, head: &[u8], body: &[u8]) -> Vec<u8> {
    let line_end = memchr::memchr(b'\n', head).map_or(head.len(), |at| at + 1);
    let mut out = head[..line_end].to_vec();
    for header in message.all_headers().filter(|header| header.id != Name::ContentLength) {
        out.extend_from_slice(header.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(header.value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out
}

/// The session descriptions in a message: its body, or those parts of a multipart body (RFC 5621 §3.1).
pub fn sdp(traced: &Traced) -> Vec<Vec<u8>> {
    let Ok(message) = Message::parse(&traced.data) else { return Vec::new() };
    message.descriptions().into_iter().map(|place| ended(&message.body()[place])).collect()
}

fn ended(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    if !body.ends_with(b"\n") {
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// Characters from one line of a ladder to the next.
const COLUMN: usize = 28;
/// Characters of the column with times.
const TIME: usize = 12;
/// Ends that have a column of their own; what goes to and from further ones is drawn at the last.
const ENDS: usize = 24;

/// A ladder: who sent what to whom, a line a message, times from the beginning of the call.
pub fn ladder(call: &Call) -> String {
    let mut ends: Vec<SocketAddr> = Vec::new();
    for traced in &call.kept {
        for end in [traced.source, traced.destination] {
            if ends.len() < ENDS && !ends.contains(&end) {
                ends.push(end);
            }
        }
    }
    let mut out = String::new();
    let status = if call.status == 0 { String::new() } else { format!(" {} {}", call.status, call.reason) };
    let _ = writeln!(out, "{} {}{status} ({})", call.first.rfc3339(), call.method, call.state);
    let _ = writeln!(out, "From: {}\nTo: {}\nCall-ID: {}", call.from, call.to, call.call_id);
    let mut names = " ".repeat(TIME);
    for (index, end) in ends.iter().enumerate() {
        // Centred over its line, as far as the one before leaves room.
        let name = end.to_string();
        let centre = TIME + COLUMN / 2 + index * COLUMN;
        let start = centre.saturating_sub(name.len() / 2).max(names.len() + usize::from(index > 0));
        names.push_str(&" ".repeat(start - names.len()));
        names.push_str(&name);
    }
    let _ = writeln!(out, "{}", names.trim_end());
    for traced in &call.kept {
        let _ = writeln!(out, "{}", rung(call, &ends, traced));
    }
    if (call.kept.len() as u64) < call.messages {
        let _ = writeln!(out, "… {} more messages are not shown", call.messages - call.kept.len() as u64);
    }
    out.push('\n');
    out
}

fn rung(call: &Call, ends: &[SocketAddr], traced: &Traced) -> String {
    let place = |end: SocketAddr| {
        TIME + COLUMN / 2 + ends.iter().position(|other| *other == end).unwrap_or(ENDS - 1) * COLUMN
    };
    let width = TIME + COLUMN / 2 + ends.len().saturating_sub(1) * COLUMN + 1;
    let mut line = vec![' '; width];
    for (at, c) in
        format!("{:>10.6}", traced.time.saturating_since(call.first).as_secs_f64()).chars().enumerate()
    {
        if let Some(cell) = line.get_mut(at) {
            *cell = c;
        }
    }
    for end in ends {
        line[place(*end)] = '|';
    }
    let (from, to) = (place(traced.source), place(traced.destination));
    let label = label(traced);
    if from == to {
        let mut text: String = line.into_iter().collect();
        let _ = write!(text, " {label} (to itself)");
        return text;
    }
    let (left, right) = (from.min(to), from.max(to));
    for cell in &mut line[left + 1..right] {
        *cell = '-';
    }
    if to > from {
        line[right - 1] = '>';
    } else {
        line[left + 1] = '<';
    }
    let room = right - left - 5;
    let label: Vec<char> = label.chars().take(room).collect();
    let start = left + 1 + (right - left - 1 - label.len() - 2) / 2;
    for (at, c) in std::iter::once(' ').chain(label).chain(std::iter::once(' ')).enumerate() {
        line[start + at] = c;
    }
    line.into_iter().collect()
}

fn label(traced: &Traced) -> String {
    let summary = &traced.summary;
    let mut label = if summary.is_request() {
        summary.method.clone()
    } else {
        printable(format!("{} {}", summary.status, summary.reason).as_bytes())
    };
    if summary.sdp {
        label.push_str(" (SDP)");
    }
    label
}
