//! `sdp-rewrite`: the relay's rewriter as a filter. CONTRACT 7.
//!
//! In: SDPs, ng dictionaries (bencode, JSON, or the loose JSON of a log's dump), or JSON objects with a field `sdp`.
//! Out: the same kind. What a relay would put in comes from flags, the rest of what is random from a seed.
//! Not here: what is rewritten and how (`sipbox_core::rewrite`).

use super::Entry;
use crate::exit::{Code, Failure};
use clap::{ArgMatches, Args as _, Command, FromArgMatches, ValueEnum};
use sipbox_core::media::plan::Side;
use sipbox_core::ng::{self, Dict, Encoding, Flags, Value};
use sipbox_core::rewrite::{self, Address, Input, Kind, Memory, Refusal, Supply, Want};
use sipbox_core::rng::Rng;
use sipbox_core::sdp::{Family, Fingerprint};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub const ENTRY: Entry = Entry {
    name: "sdp-rewrite",
    command: || {
        Args::augment_args(Command::new("sdp-rewrite"))
            .about("Rewrite SDPs between SIP and WebRTC as the relay does")
    },
    run,
    prose: include_str!("../../man/prose/sdp-rewrite.roff"),
};

/// The flags of ng that `--to` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    Webrtc,
    Sip,
}

#[derive(clap::Args)]
struct Args {
    /// What to read; '-' or nothing is standard input
    file: Vec<PathBuf>,
    /// Whom the result is for: sets the flags that the relay is given for him
    #[arg(long, value_name = "PEER", value_enum)]
    to: Option<To>,
    /// force, remove or default
    #[arg(long = "ICE", value_name = "VALUE")]
    ice: Option<String>,
    /// off or passive
    #[arg(long = "DTLS", value_name = "VALUE")]
    dtls: Option<String>,
    /// off
    #[arg(long = "SDES", value_name = "LIST")]
    sdes: Option<String>,
    /// RTP/AVP, RTP/AVPF, RTP/SAVP, RTP/SAVPF, UDP/TLS/RTP/SAVP or UDP/TLS/RTP/SAVPF
    #[arg(long, value_name = "PROFILE")]
    transport_protocol: Option<String>,
    /// offer, require, demux, accept, reject
    #[arg(long, value_name = "LIST")]
    rtcp_mux: Option<String>,
    /// generate-mid, trust-address, SIP-source-address, strip-browser, no-rtcp-attribute, full-rtcp-attribute
    #[arg(long, value_name = "LIST")]
    flags: Option<String>,
    /// origin, session-connection
    #[arg(long, value_name = "LIST")]
    replace: Option<String>,
    /// The input is an answer to the SDP in this file
    #[arg(long, value_name = "OFFER")]
    answers: Option<PathBuf>,
    /// The address of the relay that is put in; once for each address family
    #[arg(long, value_name = "ADDRESS")]
    media_address: Vec<IpAddr>,
    /// The first RTP port of the relay; RTCP is on the next one, and so on for further m-lines
    #[arg(long, value_name = "PORT", default_value_t = 10_000)]
    port: u16,
    /// The certificate's: 'sha-256 AB:CD:…' [default: random]
    #[arg(long, value_name = "HASH DIGEST", value_parser = fingerprint)]
    fingerprint: Option<Fingerprint>,
    /// The ICE user fragment that is put in [default: random]
    #[arg(long, value_name = "TEXT")]
    ufrag: Option<String>,
    /// The ICE password that is put in [default: random]
    #[arg(long, value_name = "TEXT")]
    pwd: Option<String>,
    /// The foundation of the ICE candidates that are put in [default: random]
    #[arg(long, value_name = "TEXT")]
    foundation: Option<String>,
    /// Makes all that is random the same in each run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    let text = if text.contains(' ') { text.to_owned() } else { format!("sha-256 {text}") };
    Fingerprint::parse(&text).filter(|f| !f.digest.is_empty()).ok_or("want 'sha-256 AB:CD:…'".to_owned())
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let args = Args::from_arg_matches(matches).map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
    let flags = args.to_flags().map_err(|reason| Failure::new(Code::Usage, format!("--{reason}")))?;
    let answers = match &args.answers {
        Some(path) => Some(offer_in(&read(path)?, path)?),
        None => None,
    };
    let supply = args.supply()?;
    let mut filter = Filter {
        flags,
        answers,
        supply,
        calls: HashMap::new(),
        out: std::io::stdout().lock(),
        bad: Vec::new(),
    };
    let files = if args.file.is_empty() { vec![PathBuf::from("-")] } else { args.file };
    for path in &files {
        let data = read(path)?;
        filter.all(&data, &name(path))?;
    }
    filter.out.flush()?;
    // Each bad one was skipped; all are named, the last with the exit code.
    let Some(last) = filter.bad.pop() else { return Ok(()) };
    for message in filter.bad {
        let _ = writeln!(std::io::stderr(), "sipbox sdp-rewrite: {message}");
    }
    Err(Failure::new(Code::Data, last))
}

fn name(path: &Path) -> String {
    if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    let result = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut data)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut data))
    };
    match result {
        Ok(_) => Ok(data),
        Err(error) => {
            let missing =
                matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory);
            let code = if missing { Code::NoInput } else { Code::Io };
            Err(Failure::new(
                code,
                format!("{}: {error}; give a file, or nothing for standard input", name(path)),
            ))
        }
    }
}

impl Args {
    /// The flags of `--to`, each overridden by what is given by its name.
    fn to_flags(&self) -> Result<Flags, String> {
        let mut dict = match self.to {
            Some(To::Webrtc) => Dict::new()
                .with("DTLS", "passive")
                .with("ICE", "force")
                .with("SDES", "off")
                .with("transport-protocol", "RTP/SAVPF")
                .with("rtcp-mux", "offer")
                .with("flags", "generate-mid")
                .with("replace", "origin,session-connection"),
            Some(To::Sip) => Dict::new()
                .with("DTLS", "off")
                .with("ICE", "remove")
                .with("SDES", "off")
                .with("transport-protocol", "RTP/AVP")
                .with("rtcp-mux", "demux")
                .with("flags", "trust-address,strip-browser")
                .with("replace", "origin,session-connection"),
            None => Dict::new(),
        };
        // An answer has the transport of its offer, unless one is asked for by name.
        if self.answers.is_some() {
            dict = dict
                .iter()
                .filter(|(key, _)| *key != "transport-protocol")
                .map(|(k, v)| (k.to_owned(), v.clone()))
                .collect();
        }
        for (key, value) in [
            ("ICE", &self.ice),
            ("DTLS", &self.dtls),
            ("SDES", &self.sdes),
            ("transport-protocol", &self.transport_protocol),
            ("rtcp-mux", &self.rtcp_mux),
            ("flags", &self.flags),
            ("replace", &self.replace),
        ] {
            if let Some(value) = value {
                dict.set(key, value);
            }
        }
        let flags = Flags::parse(&dict)?;
        match flags.ignored.first() {
            Some(word) if word.contains('=') => Err(format!("{word}: not a value that is known here")),
            Some(word) => Err(format!("flags={word}: not a flag that is known here")),
            None => Ok(flags),
        }
    }

    fn supply(&self) -> Result<Pinned, Failure> {
        let mut rng = match self.seed {
            Some(seed) => Rng::from_seed(seed),
            None => Rng::from_entropy(sipbox_io::entropy::seed()?),
        };
        let fingerprint = self.fingerprint.clone().unwrap_or_else(|| {
            let mut digest = vec![0; 32];
            rng.fill(&mut digest);
            Fingerprint { hash: "sha-256".to_owned(), digest }
        });
        let foundation = self.foundation.clone().unwrap_or_else(|| rng.token(16));
        let addresses = self.media_address.clone();
        Ok(Pinned {
            addresses,
            port: self.port,
            fingerprint,
            foundation,
            ufrag: self.ufrag.clone(),
            pwd: self.pwd.clone(),
            rng,
        })
    }
}

/// What a relay would have.
struct Pinned {
    addresses: Vec<IpAddr>,
    port: u16,
    fingerprint: Fingerprint,
    foundation: String,
    ufrag: Option<String>,
    pwd: Option<String>,
    rng: Rng,
}

impl Supply for Pinned {
    fn ports(&mut self, _: usize, _: Side, want: &Want) -> Result<Address, String> {
        let fits = |ip: &&IpAddr| want.family.is_none_or(|family| family == Family::of(ip));
        let advertised = match self.addresses.iter().find(fits) {
            Some(address) => *address,
            None if self.addresses.is_empty() && want.family != Some(Family::V6) => {
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            }
            None => return Err("none of that address family; give --media-address".to_owned()),
        };
        let rtcp = self.port.checked_add(1).ok_or("--port has none left")?;
        let address = Address {
            advertised,
            rtp: SocketAddr::new(advertised, self.port),
            rtcp: SocketAddr::new(advertised, rtcp),
        };
        self.port = rtcp.saturating_add(1);
        Ok(address)
    }

    fn ice(&mut self) -> (String, String) {
        let ufrag = self.ufrag.clone().unwrap_or_else(|| self.rng.token(8));
        let pwd = self.pwd.clone().unwrap_or_else(|| self.rng.token(26));
        (ufrag, pwd)
    }

    fn foundation(&mut self) -> String {
        self.foundation.clone()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint.clone()
    }

    fn sdes_key(&mut self) -> Vec<u8> {
        let mut key = vec![0; 30];
        self.rng.fill(&mut key);
        key
    }
}

/// What is told apart by its first bytes.
enum Content {
    Sdp,
    Bencode,
    Json,
}

fn content(data: &[u8]) -> Option<Content> {
    match data.trim_ascii_start() {
        [b'v', b'=', ..] => Some(Content::Sdp),
        [b'd', b'0'..=b'9' | b'e', ..] => Some(Content::Bencode),
        [b'{', ..] => Some(Content::Json),
        _ => None,
    }
}

/// What a log writes before a dictionary.
fn without_heading(data: &[u8]) -> &[u8] {
    let text = data.trim_ascii_start();
    let heading = [&b"Dump for"[..], b"Response dump"].iter().any(|heading| text.starts_with(heading));
    let brace = text.iter().position(|byte| *byte == b'{').filter(|_| heading);
    brace.and_then(|at| text.get(at..)).unwrap_or(data)
}

/// The SDP of the offer that `--answers` names, alone or in a dictionary.
fn offer_in(data: &[u8], path: &Path) -> Result<Vec<u8>, Failure> {
    let data = without_heading(data);
    let bad = |reason: String| Failure::new(Code::Data, format!("{}: {reason}", name(path)));
    match content(data) {
        Some(Content::Sdp) => Ok(data.trim_ascii_start().to_vec()),
        Some(Content::Bencode | Content::Json) => {
            let text = data.trim_ascii();
            let decoded =
                ng::decode(text).or_else(|error| ng::decode(loose(text).as_bytes()).map_err(|_| error));
            let (_, dict) = decoded.map_err(|error| bad(error.to_string()))?;
            dict.get_bytes("sdp").map(<[u8]>::to_vec).ok_or_else(|| bad("no sdp in it".to_owned()))
        }
        None => Err(bad("neither an SDP nor an ng dictionary".to_owned())),
    }
}

/// JSON out of what logs print: within a string, a line's end is the SDP's and the indentation after it is the log's.
fn loose(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::with_capacity(text.len() + 256);
    let (mut within, mut escaped, mut indented) = (false, false, false);
    for c in text.chars() {
        let blank = matches!(c, ' ' | '\t' | '\r');
        if !within {
            within = c == '"';
            out.push(c);
        } else if c == '\n' {
            out.push_str("\\r\\n");
            indented = true;
        } else if c == '\r' || (indented && blank) {
            // Indentation, or the first half of a line's end.
        } else {
            indented = false;
            if c == '"' && !escaped {
                within = false;
            }
            escaped = c == '\\' && !escaped;
            match c {
                '\t' => out.push_str("\\t"),
                c => out.push(c),
            }
        }
    }
    out
}

struct Filter<W> {
    flags: Flags,
    answers: Option<Vec<u8>>,
    supply: Pinned,
    /// What was said before in the stream, by Call-ID and branch.
    calls: HashMap<(String, String), Memory>,
    out: W,
    bad: Vec<String>,
}

impl<W: Write> Filter<W> {
    fn all(&mut self, data: &[u8], name: &str) -> Result<(), Failure> {
        let data = without_heading(data);
        match content(data) {
            Some(Content::Sdp) => self.sdps(data, name),
            Some(Content::Bencode) => self.one_dict(data.trim_ascii(), name, Encoding::Bencode),
            Some(Content::Json) => self.json(data, name),
            None => {
                self.bad.push(format!("{name}: neither an SDP nor an ng dictionary; an SDP begins with v=0"));
                Ok(())
            }
        }
    }

    /// One after the other, each from its `v=0`.
    fn sdps(&mut self, data: &[u8], name: &str) -> Result<(), Failure> {
        let (mut line, mut start) = (1, 0);
        let mut pieces: Vec<(u32, usize)> = Vec::new();
        for text in data.split_inclusive(|byte| *byte == b'\n') {
            if text.trim_ascii_end() == b"v=0" || (pieces.is_empty() && !text.trim_ascii().is_empty()) {
                pieces.push((line, start));
            }
            start += text.len();
            line += 1;
        }
        let ends: Vec<usize> = pieces.iter().skip(1).map(|(_, start)| *start).chain([data.len()]).collect();
        for ((line, start), end) in pieces.iter().zip(ends) {
            let sdp = data.get(*start..end).unwrap_or_default();
            match self.rewrite_alone(sdp) {
                Ok(text) => self.out.write_all(&text)?,
                Err(refusal) => self.bad.push(place(name, *line, &refusal)),
            }
        }
        Ok(())
    }

    /// By the flags of the command line.
    fn rewrite_alone(&mut self, sdp: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (mut memory, kind, sender) = match &self.answers {
            Some(offer) => (Memory::of_offer(offer, &self.flags)?, Kind::Answer, Side::Answerer),
            None => (Memory::default(), Kind::Offer, Side::Offerer),
        };
        let input = Input { sdp, kind, sender, flags: &self.flags };
        Ok(rewrite::rewrite(&input, &mut memory, &mut self.supply)?.sdp)
    }

    /// JSON objects, on a line each or not.
    fn json(&mut self, data: &[u8], name: &str) -> Result<(), Failure> {
        let mut stream = serde_json::Deserializer::from_slice(data).into_iter::<serde_json::Value>();
        let mut at = 0;
        while let Some(value) = stream.next() {
            match value {
                Ok(value) => {
                    let text = data.get(at..stream.byte_offset()).unwrap_or_default().trim_ascii();
                    at = stream.byte_offset();
                    self.object(text, value, name)?;
                }
                Err(error) => {
                    // A dump out of a log; what was read before is done.
                    let rest = data.get(at..).unwrap_or_default().trim_ascii();
                    let loose = loose(rest);
                    match ng::decode(loose.as_bytes()) {
                        Ok(_) => self.one_dict(loose.as_bytes(), name, Encoding::Json)?,
                        Err(_) => self.bad.push(format!("{name}:{}: no JSON: {error}", error.line())),
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn object(&mut self, text: &[u8], mut value: serde_json::Value, name: &str) -> Result<(), Failure> {
        if value.get("command").is_some() {
            return self.one_dict(text, name, Encoding::Json);
        }
        let Some(sdp) = value.get("sdp").and_then(|sdp| sdp.as_str()).map(str::to_owned) else {
            self.bad.push(format!("{name}: an object without a field sdp"));
            return Ok(());
        };
        match self.rewrite_alone(sdp.as_bytes()) {
            Ok(text) => {
                value["sdp"] = String::from_utf8_lossy(&text).into();
                writeln!(self.out, "{value}")?;
            }
            Err(refusal) => self.bad.push(place(name, 1, &refusal)),
        }
        Ok(())
    }

    /// A request of ng: it brings its own flags, and gets the relay's reply.
    fn one_dict(&mut self, text: &[u8], name: &str, encoding: Encoding) -> Result<(), Failure> {
        let (_, dict) = match ng::decode(text) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.bad.push(format!("{name}: {error}"));
                return Ok(());
            }
        };
        match self.request(&dict) {
            Ok(sdp) => {
                let reply = Dict::new().with("sdp", Value::Bytes(sdp)).with("result", "ok");
                match encoding {
                    Encoding::Bencode => self.out.write_all(&reply.encode_bencode())?,
                    Encoding::Json => writeln!(self.out, "{}", reply.encode_json())?,
                }
            }
            Err(reason) => self.bad.push(format!("{name}: {reason}")),
        }
        Ok(())
    }

    fn request(&mut self, dict: &Dict) -> Result<Vec<u8>, String> {
        let sdp = dict.get_bytes("sdp").ok_or("a dictionary without sdp")?;
        let flags = Flags::parse(dict)?;
        let (kind, sender) = match dict.get_str("command") {
            Some("offer") => (Kind::Offer, Side::Offerer),
            Some("answer") => (Kind::Answer, Side::Answerer),
            Some(other) => return Err(format!("command {other}: only offer and answer have an SDP")),
            None => return Err("a dictionary without command".to_owned()),
        };
        let text = |key| dict.get_str(key).unwrap_or_default().to_owned();
        let key = (text("call-id"), text("via-branch"));
        let memory = match (self.calls.entry(key), &self.answers, kind) {
            (std::collections::hash_map::Entry::Occupied(known), _, _) => known.into_mut(),
            (std::collections::hash_map::Entry::Vacant(new), Some(offer), Kind::Answer) => new
                .insert(Memory::of_offer(offer, &flags).map_err(|refusal| format!("--answers: {refusal}"))?),
            (std::collections::hash_map::Entry::Vacant(new), _, _) => new.insert(Memory::default()),
        };
        let input = Input { sdp, kind, sender, flags: &flags };
        rewrite::rewrite(&input, memory, &mut self.supply)
            .map(|out| out.sdp)
            .map_err(|refusal| refusal.to_string())
    }
}

/// `FILE:LINE: what`, the line counted in the whole input.
fn place(name: &str, first: u32, refusal: &Refusal) -> String {
    match refusal {
        Refusal::Sdp(error) => format!("{name}:{}: not an SDP: {}", first + error.line - 1, error.kind),
        other => format!("{name}:{first}: {other}"),
    }
}
