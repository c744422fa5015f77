//! A session description, line by line (RFC 8866).
//!
//! In: bytes. Out: as many lines, of the same letters and attributes, with the same line ends. Not here: texts (`names`).

use super::names::cut;
use super::{Anonymiser, Class};
use crate::sdp::{ParseError, Sdp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

impl Anonymiser {
    /// Appends the description with other names.
    pub fn sdp(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), ParseError> {
        let sdp = Sdp::parse(data)?;
        for line in sdp.lines() {
            if line.kind == 0 {
                out.extend_from_slice(line.raw);
                continue;
            }
            let text = String::from_utf8_lossy(line.value);
            let text = match line.kind {
                b'o' => self.origin(&text),
                b's' | b'i' => self.words(&text),
                b'u' => self.uri(&text),
                b'e' => "user@example.com".to_owned(),
                b'p' => "+1 555 0100".to_owned(),
                b'c' => self.connection(&text),
                b'k' => {
                    let (method, key) = cut(&text, ":");
                    format!("{method}{}", self.token(Class::Secret, key))
                }
                b'a' => self.attribute(&text),
                _ => text.into_owned(),
            };
            out.extend_from_slice(&[line.kind, b'=']);
            out.extend_from_slice(text.as_bytes());
            let end = line.raw.len() - line.value.len() - 2;
            out.extend_from_slice(&line.raw[line.raw.len() - end..]);
        }
        Ok(())
    }

    fn words(&self, text: &str) -> String {
        match text.trim() {
            "" | "-" => text.to_owned(),
            _ => self.token(Class::Words, text),
        }
    }

    /// A version follows its number, so that one which was raised still is.
    fn origin(&mut self, text: &str) -> String {
        let parts: Vec<&str> = text.split(' ').collect();
        let [user, id, version, network, kind, address] = parts[..] else { return self.scrub(text) };
        let new_id = self.number(id);
        let new_version = match (id.parse::<u64>(), version.parse::<u64>(), new_id.parse::<u64>()) {
            (Ok(old), Ok(version), Ok(new)) if version >= old && version - old < 1 << 20 => {
                new.saturating_add(version - old).to_string()
            }
            (_, Ok(version), _) if version < 1 << 20 => version.to_string(),
            (_, Ok(version), _) => (version % (1 << 20)).to_string(),
            (_, Err(_), _) => self.token(Class::Session, version),
        };
        let (user, address) = (self.user(user), self.host(address));
        format!("{user} {new_id} {new_version} {network} {kind} {address}")
    }

    /// As many digits, the first of them not 0, and below 2^63 where it was.
    fn number(&self, text: &str) -> String {
        if text.len() < 4 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return if text.len() < 4 { text.to_owned() } else { self.token(Class::Session, text) };
        }
        let (first, rest) = text.split_at(1);
        let first = if first == "0" { "0" } else { "1" };
        format!("{first}{}", self.token(Class::Session, rest))
    }

    fn connection(&mut self, text: &str) -> String {
        let parts: Vec<&str> = text.split(' ').collect();
        let [network, kind, address] = parts[..] else { return self.scrub(text) };
        let (address, ttl) = cut(address, "/");
        format!("{network} {kind} {}{ttl}", self.host(address))
    }

    fn attribute(&mut self, text: &str) -> String {
        let Some((name, value)) = text.split_once(':') else { return text.to_owned() };
        let value = match name {
            // What the media is, not whose.
            "rtpmap"
            | "fmtp"
            | "ptime"
            | "maxptime"
            | "mid"
            | "group"
            | "setup"
            | "rtcp-fb"
            | "extmap"
            | "ice-options"
            | "rid"
            | "simulcast"
            | "imageattr"
            | "framerate"
            | "orient"
            | "type"
            | "quality"
            | "lang"
            | "sdplang"
            | "charset"
            | "content"
            | "connection"
            | "sctpmap"
            | "sctp-port"
            | "max-message-size"
            | "silenceSupp"
            | "rtcp-xr"
            | "maxprate"
            | "tool"
            | "cat"
            | "keywds"
            | "mediaclk"
            | "cliprect"
            | "framesize"
            | "label"
            | "floorctrl"
            | "confid"
            | "userid"
            | "floorid"
            | "accept-types"
            | "accept-wrapped-types"
            | "max-size"
            | "ecn-capable-rtp"
            | "bundle-only"
            | "dtls-id" => value.to_owned(),
            "ice-ufrag" | "ice-pwd" => self.token(Class::Ice, value),
            "candidate" | "remote-candidates" => self.candidate(name, value),
            "fingerprint" => self.fingerprint(value),
            "crypto" => self.crypto(value),
            "key-mgmt" => {
                let (protocol, data) = cut(value, " ");
                format!("{protocol} {}", self.base64(data.trim()))
            }
            "ssrc" => {
                let (ssrc, rest) = cut(value, " ");
                let (attribute, value) = cut(rest, ":");
                format!("{}{attribute}{}", self.ssrc(ssrc), self.ids(value))
            }
            "ssrc-group" => {
                let words: Vec<String> = value
                    .split(' ')
                    .enumerate()
                    .map(|(n, w)| if n == 0 { w.to_owned() } else { self.ssrc(w) })
                    .collect();
                words.join(" ")
            }
            "msid" => self.ids(value),
            "msid-semantic" => {
                let blank = if value.starts_with(' ') { " " } else { "" };
                let (semantic, ids) = cut(value.trim_start(), " ");
                format!("{blank}{semantic}{}", self.ids(ids))
            }
            "tls-id" | "identity" => self.token(Class::Secret, value),
            "rtcp" | "source-filter" => self.hosts(value, 1),
            "path" | "setup-uri" => self.scrub(value),
            "file-selector" | "etag" => self.token(Class::Words, value),
            _ => self.scrub(value),
        };
        format!("{name}:{value}")
    }

    /// Words from this one on that are hosts.
    fn hosts(&mut self, text: &str, from: usize) -> String {
        let mut words = Vec::new();
        for (index, word) in text.split(' ').enumerate() {
            let fixed = index < from || matches!(word, "IN" | "IP4" | "IP6" | "incl" | "excl" | "*" | "");
            words.push(if fixed { word.to_owned() } else { self.host(word) });
        }
        words.join(" ")
    }

    /// Foundation, addresses and fragment; numbers and types say how good it is, and stay.
    fn candidate(&mut self, name: &str, text: &str) -> String {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        if name == "remote-candidates" {
            for word in words.iter_mut().skip(1).step_by(3) {
                *word = self.host(word);
            }
            return words.join(" ");
        }
        for index in 0..words.len() {
            let before = index.checked_sub(1).and_then(|before| words.get(before)).map_or("", String::as_str);
            let class = match (index, before) {
                (4, _) | (_, "raddr") => Some(Class::Host),
                (0, _) | (_, "ufrag") => Some(Class::Ice),
                _ => None,
            };
            let word = words[index].clone();
            words[index] = match class {
                Some(Class::Host) => self.host(&word),
                Some(class) => self.token(class, &word),
                None => word,
            };
        }
        words.join(" ")
    }

    fn fingerprint(&self, text: &str) -> String {
        let (hash, digest) = cut(text, " ");
        let bytes: Vec<String> = self
            .draw_bytes(
                Class::Secret,
                digest.trim().to_ascii_uppercase().as_bytes(),
                digest.split(':').count(),
            )
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        format!("{hash} {}", bytes.join(":"))
    }

    /// `TAG SUITE inline:KEY|…;inline:KEY|… …`
    fn crypto(&self, text: &str) -> String {
        let words: Vec<String> = text
            .split(' ')
            .map(|word| {
                if !word.contains("inline:") {
                    return word.to_owned();
                }
                let keys: Vec<String> = word
                    .split(';')
                    .map(|key| {
                        let Some(rest) = key.strip_prefix("inline:") else { return key.to_owned() };
                        let (key, rest) = cut(rest, "|");
                        format!("inline:{}{rest}", self.base64(key))
                    })
                    .collect();
                keys.join(";")
            })
            .collect();
        words.join(" ")
    }

    /// As many bytes, with the padding that was there.
    fn base64(&self, text: &str) -> String {
        let plain = text.trim_end_matches('=');
        let encoded = STANDARD.encode(self.draw_bytes(Class::Secret, plain.as_bytes(), plain.len() * 3 / 4));
        let padding = text.len() - plain.len();
        format!("{}{}", encoded.trim_end_matches('='), "=".repeat(padding))
    }

    fn ssrc(&self, text: &str) -> String {
        match text.parse::<u32>() {
            Ok(_) => (self.draw_u64(Class::Stream, &[text.as_bytes()]) as u32).max(1).to_string(),
            Err(_) => text.to_owned(),
        }
    }

    fn ids(&self, text: &str) -> String {
        let id = |word: &str| match word {
            "-" | "*" | "" => word.to_owned(),
            _ => self.token(Class::Stream, word),
        };
        // The colon of `cname:` belongs to what was cut off before.
        let (colon, text) = match text.strip_prefix(':') {
            Some(rest) => (":", rest),
            None => ("", text),
        };
        format!("{colon}{}", text.split(' ').map(id).collect::<Vec<_>>().join(" "))
    }
}
