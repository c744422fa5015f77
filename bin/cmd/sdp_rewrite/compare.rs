//! `--pair` and `--diff`: two descriptions, and what they make together or how they differ.
//!
//! In: the first SDP of each of two files. Out: text for people, or one JSON object for the pair and one for each difference; code 1
//! where something breaks or differs. Not here: what is compared (`sipbox_core::pair`, `sipbox_core::diff`).

use super::{Form, description_in, source};
use crate::exit::{Code, Failure};
use crate::output::{Output, plain};
use serde_json::{Value, json};
use sipbox_core::diff::{Difference, diff};
use sipbox_core::pair::{Codec, Ice, Keys, Negotiated, Pair, Who, pair};
use sipbox_core::sdp::Sdp;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Text where a person reads it, or where it is asked for.
fn is_text(form: Option<Form>) -> bool {
    match form {
        Some(Form::Text) => true,
        Some(Form::Json | Form::Sdp) => false,
        None => std::io::stdout().is_terminal(),
    }
}

fn two(files: &[PathBuf]) -> Result<[(String, Vec<u8>, u64); 2], Failure> {
    let [a, b] = files else {
        return Err(Failure::new(Code::Usage, "two files are needed"));
    };
    let read = |path: &Path| {
        let (sdp, line) = description_in(path)?;
        Ok::<_, Failure>((source::name(path), sdp, line))
    };
    Ok([read(a)?, read(b)?])
}

fn parse<'a>((name, sdp, line): &'a (String, Vec<u8>, u64)) -> Result<Sdp<'a>, Failure> {
    Sdp::parse(sdp).map_err(|error| {
        let at = line + u64::from(error.line.saturating_sub(1));
        Failure::new(Code::Data, format!("{name}:{at}: not an SDP: {}", error.kind))
    })
}

fn verdict(fine: bool) -> Result<(), Failure> {
    if fine { Ok(()) } else { Err(Failure::new(Code::Failed, "")) }
}

/// `--pair OFFER ANSWER`
pub fn pairs(files: &[PathBuf], form: Option<Form>) -> Result<(), Failure> {
    let both = two(files)?;
    let [offer, answer] = &both;
    let found = pair(&parse(offer)?, &parse(answer)?);
    let mut out = Output::new();
    let first = answer.2;
    if is_text(form) {
        out.text(&pair_text(&found, &answer.0, first))?;
    } else {
        out.record(&pair_record(&found, &answer.0, first))?;
    }
    out.flush()?;
    verdict(found.breaks.is_empty())
}

fn pair_text(pair: &Pair, file: &str, first: u64) -> String {
    let mut lines = Vec::new();
    for (index, media) in pair.media.iter().enumerate() {
        let mid = media.mid.as_ref().map_or_else(String::new, |mid| format!("  mid {mid}"));
        lines.push(format!("{} {} {}{mid}", index + 1, media.media, media.protocol));
        if let Some(who) = media.refused_by {
            lines.push(format!("  refused by the {}", who.as_str()));
            continue;
        }
        let codecs: Vec<String> = media.codecs.iter().map(codec_text).collect();
        let codecs = if codecs.is_empty() { "none".to_owned() } else { codecs.join(", ") };
        lines.push(format!("  codecs     {codecs}"));
        lines.push(format!("  direction  {}", direction_text(media)));
        lines.push(format!("  keys       {}", keys_text(&media.keys)));
        lines.push(format!(
            "  rtcp       {}",
            if media.mux { "on the port of RTP" } else { "on a port of its own" }
        ));
        lines.push(format!("  ice        {}", ice_text(media.ice)));
        if let (offered, answered) = media.ptime
            && (offered.is_some() || answered.is_some())
        {
            let asks = |who: &str, ptime: Option<u32>| ptime.map(|ms| format!("the {who} asks for {ms} ms"));
            let both: Vec<String> =
                [asks("offerer", offered), asks("answerer", answered)].into_iter().flatten().collect();
            lines.push(format!("  ptime      {}", both.join(", ")));
        }
        if media.bundled {
            lines.push("  bundle     shares its transport".to_owned());
        }
    }
    for found in &pair.breaks {
        let place = found.media.map_or_else(String::new, |index| format!("m-line {}: ", index + 1));
        lines.push(format!(
            "{file}:{}: {}: {place}{} ({}); {} [{}]",
            first + u64::from(found.line.saturating_sub(1)),
            found.severity.as_str(),
            found.what,
            found.rfc,
            found.mend,
            found.code
        ));
    }
    lines.into_iter().map(|line| plain(&line) + "\n").collect()
}

fn codec_text(codec: &Codec) -> String {
    let Codec { name, to_offerer, to_answerer } = codec;
    if to_offerer == to_answerer {
        format!("{name} ({to_offerer})")
    } else {
        format!("{name} ({to_offerer} to the offerer, {to_answerer} to the answerer)")
    }
}

const fn direction_text(media: &Negotiated) -> &'static str {
    match (media.to_offerer, media.to_answerer) {
        (true, true) => "both ways",
        (true, false) => "to the offerer only",
        (false, true) => "to the answerer only",
        (false, false) => "none (inactive)",
    }
}

fn keys_text(keys: &Keys) -> String {
    match keys {
        Keys::None => "none: in the clear".to_owned(),
        Keys::Sdes { suite } => format!("SDES, {suite}"),
        Keys::Dtls { client, hash } => {
            let client = client.map_or("nobody", Who::as_str);
            format!("DTLS, the client is the {client}, the answerer's fingerprint by {hash}")
        }
        Keys::Missing => "none, though the protocol is secure".to_owned(),
    }
}

fn ice_text(ice: Ice) -> String {
    match ice {
        Ice::No => "no".to_owned(),
        Ice::OfferedOnly => "offered, not answered: no".to_owned(),
        Ice::Yes { controlling } => format!("yes, the {} controls", controlling.as_str()),
    }
}

fn pair_record(pair: &Pair, file: &str, first: u64) -> Value {
    let media: Vec<Value> = pair.media.iter().enumerate().map(|(index, m)| media_record(index, m)).collect();
    let breaks: Vec<Value> = pair
        .breaks
        .iter()
        .map(|found| {
            json!({
                "media": found.media.map(|index| index + 1),
                "file": file,
                "line": first + u64::from(found.line.saturating_sub(1)),
                "severity": found.severity.as_str(),
                "code": found.code,
                "what": found.what,
                "rfc": found.rfc,
                "mend": found.mend,
            })
        })
        .collect();
    json!({ "media": media, "breaks": breaks })
}

fn media_record(index: usize, media: &Negotiated) -> Value {
    let codecs: Vec<Value> = media
        .codecs
        .iter()
        .map(|codec| json!({ "name": codec.name, "to_offerer": codec.to_offerer, "to_answerer": codec.to_answerer }))
        .collect();
    let keys = match &media.keys {
        Keys::None => json!({ "kind": "none" }),
        Keys::Sdes { suite } => json!({ "kind": "sdes", "suite": suite }),
        Keys::Dtls { client, hash } => {
            json!({ "kind": "dtls", "client": client.map(Who::as_str), "hash": hash })
        }
        Keys::Missing => json!({ "kind": "missing" }),
    };
    let ice = match media.ice {
        Ice::No => json!({ "used": false }),
        Ice::OfferedOnly => json!({ "used": false, "offered": true }),
        Ice::Yes { controlling } => json!({ "used": true, "controlling": controlling.as_str() }),
    };
    json!({
        "number": index + 1,
        "media": media.media,
        "mid": media.mid,
        "refused_by": media.refused_by.map(Who::as_str),
        "protocol": media.protocol,
        "codecs": codecs,
        "to_offerer": media.to_offerer,
        "to_answerer": media.to_answerer,
        "keys": keys,
        "rtcp_mux": media.mux,
        "ice": ice,
        "ptime": { "offerer": media.ptime.0, "answerer": media.ptime.1 },
        "bundled": media.bundled,
    })
}

/// `--diff A B`
pub fn diffs(files: &[PathBuf], form: Option<Form>) -> Result<(), Failure> {
    let both = two(files)?;
    let [a, b] = &both;
    let found = diff(&parse(a)?, &parse(b)?);
    let mut out = Output::new();
    let text = is_text(form);
    if text && !found.is_empty() {
        out.text(&format!("- {}\n+ {}\n", plain(&a.0), plain(&b.0)))?;
    }
    for difference in &found {
        if text {
            out.text(&difference_text(difference))?;
        } else {
            out.record(&json!({
                "media": difference.media.map(|index| index + 1),
                "what": difference.what,
                "a": difference.a,
                "b": difference.b,
            }))?;
        }
    }
    out.flush()?;
    verdict(found.is_empty())
}

fn difference_text(difference: &Difference) -> String {
    let place = difference.media.map_or("session".to_owned(), |index| format!("m-line {}", index + 1));
    let mut text = plain(&format!("{place}: {}", difference.what)) + "\n";
    for (sign, values) in [('-', &difference.a), ('+', &difference.b)] {
        for value in values {
            text += &(plain(&format!("  {sign} {value}")) + "\n");
        }
    }
    text
}
