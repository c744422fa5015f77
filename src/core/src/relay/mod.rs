//! The relay's control side: answers ng requests and tells media workers what to do.
//!
//! In: datagrams of the ng protocol with their source and the time. Out: replies, calls of the [`Engine`], [`Record`]s.
//! Commands: `ping offer answer delete query list`. A request that comes again (same source and cookie) gets the same reply.
//! Not here: SDP (`rewrite`), packets (`media`), sockets, ports and threads (`sipbox-io`).

mod call;
mod cookies;
mod engine;
mod report;
#[cfg(test)]
mod tests;

pub use engine::{Engine, Family, PortError, Ports, Want};

use crate::limits;
use crate::machine::{Event, Level};
use crate::media::plan::{BridgeId, Learning, Side};
use crate::ng::{self, Dict, Flags, Parties, find_answer, find_offer};
use crate::rewrite::{Kind, Refusal};
use crate::rng::Rng;
use crate::sdp::Fingerprint;
use crate::time::Instant;
use call::{Branch, Call, Common};
use cookies::Cookies;
use report::Counted;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct Config {
    /// A call in which nothing arrives for so long although somebody wants to send, is ended (`--timeout`).
    pub timeout: Duration,
    /// The same for a call on hold or without an answer (`--silent-timeout`).
    pub silent_timeout: Duration,
    /// Any call is ended after so long (`--final-timeout`).
    pub final_timeout: Option<Duration>,
    /// Calls at a time, where that is less than [`RELAY_CALLS`](limits::RELAY_CALLS) (`--max-sessions`).
    pub max_calls: usize,
    /// A deleted call ends so much later, where the request does not say (`--delete-delay`).
    pub delete_delay: Duration,
    /// Each request has the flag `SIP-source-address` (`--sip-source`).
    pub sip_source: bool,
    /// How the address of a plain leg is found, where a request does not say (`--endpoint-learning`).
    pub learning: Learning,
    /// Of the certificate that all DTLS legs show.
    pub fingerprint: Fingerprint,
    /// The same by other hashes, for who asks for them (ng `DTLS-fingerprint`).
    pub fingerprints: Vec<Fingerprint>,
}

/// Something that happened: the event for the log, and its line for `--events`, which may hold more.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub event: Event,
    /// A JSON object without its line's end.
    pub line: String,
}

/// Why a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Delete,
    Timeout,
    SilentTimeout,
    FinalTimeout,
    /// The process goes.
    Shutdown,
}

impl End {
    const fn name(self) -> &'static str {
        match self {
            End::Delete => "delete",
            End::Timeout => "timeout",
            End::SilentTimeout => "silent-timeout",
            End::FinalTimeout => "final-timeout",
            End::Shutdown => "shutdown",
        }
    }
}

/// The control side of one relay.
pub struct Relay {
    config: Config,
    common: Common,
    calls: BTreeMap<String, Call>,
    cookies: Cookies,
    records: VecDeque<Record>,
    /// No call is to be looked at before.
    next_check: Option<Instant>,
    draining: bool,
}

impl Relay {
    pub fn new(config: Config, mut rng: Rng) -> Self {
        let foundation = rng.token(16);
        let common = Common {
            fingerprint: config.fingerprint.clone(),
            fingerprints: config.fingerprints.clone(),
            foundation,
            rng,
            next_bridge: 0,
        };
        Relay {
            config,
            common,
            calls: BTreeMap::new(),
            cookies: Cookies::default(),
            records: VecDeque::new(),
            next_check: None,
            draining: false,
        }
    }

    /// One datagram. `None`: there is no cookie to answer to.
    pub fn handle_request(
        &mut self,
        now: Instant,
        source: SocketAddr,
        data: &[u8],
        engine: &mut dyn Engine,
    ) -> Option<Vec<u8>> {
        let (cookie, body) = match ng::split_cookie(data) {
            Ok(parts) => parts,
            Err(error) => {
                self.tell(
                    now,
                    Event::new(Level::Warn, "ng-malformed").with("peer", source).with("reason", error),
                );
                return None;
            }
        };
        if let Some(reply) = self.cookies.get(now, source, cookie) {
            return Some(reply);
        }
        let (encoding, reply) = match ng::decode(body) {
            Ok((encoding, request)) => (encoding, self.answer_request(now, source, &request, engine)),
            Err(error) => {
                let json = body.first() == Some(&b'{');
                let encoding = if json { ng::Encoding::Json } else { ng::Encoding::Bencode };
                (encoding, refused(&error.to_string()))
            }
        };
        let mut bytes = ng::encode_message(cookie, encoding, &reply);
        if bytes.len() > limits::NG_MESSAGE_BYTES {
            // Too many sources for one datagram: the counts of streams and totals are what matters.
            let mut less = reply;
            less.set("SSRC", Dict::new());
            less.set("measured", Dict::new());
            bytes = ng::encode_message(cookie, encoding, &less);
        }
        self.cookies.put(now, source, cookie, &bytes);
        Some(bytes)
    }

    fn answer_request(
        &mut self,
        now: Instant,
        source: SocketAddr,
        request: &Dict,
        engine: &mut dyn Engine,
    ) -> Dict {
        let command = request.get_str("command").unwrap_or_default();
        let names = ["call-id", "from-tag", "to-tag", "via-branch", "label"];
        let too_long = |name: &str| request.get_bytes(name).is_some_and(|v| v.len() > limits::NG_NAME_BYTES);
        if let Some(name) = names.into_iter().find(|name| too_long(name)) {
            return refused(&format!("{name} is too long"));
        }
        let reply = match command {
            "ping" => return Dict::new().with("result", "pong"),
            "offer" => self.signal(now, source, Kind::Offer, request, engine),
            "answer" => self.signal(now, source, Kind::Answer, request, engine),
            "delete" => self.delete(now, request, engine),
            "query" => self.query(request, engine),
            "list" => Ok(self.list(request)),
            "" => Err("no command".to_owned()),
            other => Err(format!("unknown command '{other}'")),
        };
        reply.unwrap_or_else(|reason| {
            let call_id = request.get_str("call-id").unwrap_or_default();
            let event = Event::new(Level::Warn, "ng-refused").with("call_id", call_id).with("peer", source);
            self.tell(now, event.with("command", command).with("reason", &reason));
            refused(&reason)
        })
    }

    /// `offer` and `answer`.
    fn signal(
        &mut self,
        now: Instant,
        source: SocketAddr,
        kind: Kind,
        request: &Dict,
        engine: &mut dyn Engine,
    ) -> Result<Dict, String> {
        let id = request.get_str("call-id").filter(|id| !id.is_empty()).ok_or("no call-id")?;
        let from = request.get_str("from-tag").filter(|tag| !tag.is_empty()).ok_or("no from-tag")?;
        let to = request.get_str("to-tag").unwrap_or_default();
        let via = request.get_str("via-branch").filter(|via| !via.is_empty());
        let sdp = request.get_bytes("sdp").ok_or("no sdp")?;
        let mut flags = Flags::parse(request)?;
        flags.sip_source_address |= self.config.sip_source;
        flags.asymmetric |= self.config.learning == Learning::Off;
        if !flags.ignored.is_empty() {
            let event = Event::new(Level::Debug, "ng-ignored").with("call_id", id);
            self.tell(now, event.with("flags", flags.ignored.join(" ")));
        }

        let is_new = !self.calls.contains_key(id);
        if is_new {
            match kind {
                Kind::Answer => return Err("unknown call-id: no offer before this answer".to_owned()),
                Kind::Offer if self.draining => {
                    return Ok(Dict::new().with("result", "load limit").with("message", "shutting down"));
                }
                Kind::Offer if self.calls.len() >= self.config.max_calls.min(limits::RELAY_CALLS) => {
                    return Ok(Dict::new().with("result", "load limit").with("message", "too many calls"));
                }
                Kind::Offer => {}
            }
        }
        let mut fresh = is_new.then(|| Call::new(id, now, source));
        let call = match &mut fresh {
            Some(call) => call,
            None => self.calls.get_mut(id).ok_or("unknown call-id")?,
        };
        let (at, offering) = match kind {
            Kind::Offer => match find_offer(call.parties(), from, to, via) {
                Some(found) => found,
                None if call.branches.len() >= limits::RELAY_BRANCHES => {
                    return Err("too many branches".to_owned());
                }
                None => {
                    let mut parties = Parties::of_offer(from, to, via);
                    parties.offerer.created =
                        call.parties().next().map_or(now, |first| first.offerer.created);
                    parties.answerer.created = now;
                    call.branches.push(Branch::new(parties));
                    (call.branches.len() - 1, Side::Offerer)
                }
            },
            Kind::Answer => find_answer(call.parties(), from, to, via).ok_or("no offer with these tags")?,
        };
        let branch = call.branches.get_mut(at).ok_or("no such branch")?;
        let sender = match kind {
            Kind::Offer => offering,
            Kind::Answer => offering.other(),
        };
        match branch.pass(kind, sender, sdp, &flags, &mut self.common, engine) {
            Ok(sdp) => {
                let label = request.get_str("label").map(str::to_owned);
                let party = branch.parties.party_mut(sender);
                if label.is_some() {
                    party.label = label;
                }
                // A fork further on may answer one branch with several tags: the last one has the media.
                if kind == Kind::Answer && !to.is_empty() {
                    party.rename(to);
                }
                call.tos = flags.tos.or(call.tos);
                call.mark(engine);
                call.ends = None;
                call.last_signal = now;
                let latest = self.config.final_timeout.map(|allowed| call.created + allowed);
                call.check = now + self.config.timeout;
                call.check = latest.map_or(call.check, |latest| latest.min(call.check));
                self.next_check = Some(self.next_check.map_or(call.check, |next| next.min(call.check)));
                if let Some(call) = fresh {
                    let event =
                        Event::new(Level::Info, "call-start").with("call_id", id).with("from_tag", from);
                    self.calls.insert(call.id.clone(), call);
                    self.tell(now, event.with("peer", source));
                }
                Ok(Dict::new().with("sdp", sdp).with("result", "ok"))
            }
            Err(refusal) => {
                // What a first offer opened before it was refused, is closed with it.
                if kind == Kind::Offer && branch.memory.media_count() == 0 {
                    branch.close(engine);
                    call.branches.remove(at);
                }
                Err(match refusal {
                    Refusal::Sdp(error) => format!("Failed to parse SDP: {error}"),
                    Refusal::Ports(why) => format!("Ran out of ports: {why}"),
                    other => other.to_string(),
                })
            }
        }
    }

    fn delete(&mut self, now: Instant, request: &Dict, engine: &mut dyn Engine) -> Result<Dict, String> {
        let id = request.get_str("call-id").filter(|id| !id.is_empty()).ok_or("no call-id")?;
        let from = request.get_str("from-tag").unwrap_or_default();
        let via = request.get_str("via-branch").filter(|via| !via.is_empty());
        let unknown = || {
            let fatal =
                request.get("flags").is_some_and(|flags| ng::words(flags).iter().any(|word| word == "fatal"));
            let text = "Call-ID not found or tags didn't match";
            if fatal {
                Err(text.to_owned())
            } else {
                Ok(Dict::new().with("warning", text).with("result", "ok"))
            }
        };
        let Some(call) = self.calls.get_mut(id) else { return unknown() };
        if !from.is_empty() && !call.has_tag(from) {
            return unknown();
        }
        // One branch of several goes alone; with the last, or without a branch that is known, the call goes.
        let branch =
            call.branches.iter().position(|b| via.is_some() && b.parties.via_branch.as_deref() == via);
        if let Some(at) = branch
            && call.branches.len() > 1
        {
            let counted = count(call, Some(at), engine);
            let reply = report::report(call, &counted).with("result", "ok");
            let mut branch = call.branches.remove(at);
            branch.close(engine);
            return Ok(reply);
        }
        let delay = match request.get("delete-delay") {
            None => self.config.delete_delay,
            Some(asked) => {
                let seconds = asked.as_int().and_then(|seconds| u64::try_from(seconds).ok());
                let seconds = seconds.filter(|seconds| *seconds <= limits::RELAY_DELETE_DELAY_SECONDS);
                Duration::from_secs(seconds.ok_or("delete-delay: no number of seconds")?)
            }
        };
        // Until then late packets pass, and a new offer or answer keeps the call.
        if !delay.is_zero() {
            let reply = report::report(call, &count(call, None, engine));
            call.ends = Some(now + delay);
            call.check = call.check.min(now + delay);
            self.next_check = Some(self.next_check.map_or(call.check, |next| next.min(call.check)));
            return Ok(reply.with("result", "ok"));
        }
        let reply = self.end(now, id, End::Delete, engine).ok_or("unknown call-id")?;
        Ok(reply.with("result", "ok"))
    }

    /// Takes a call away, tells what it was like, and frees what it had.
    fn end(&mut self, now: Instant, id: &str, end: End, engine: &mut dyn Engine) -> Option<Dict> {
        let mut call = self.calls.remove(id)?;
        let counted = count(&call, None, engine);
        let reply = report::report(&call, &counted);
        call.close(engine);
        for one in &counted {
            let Some(branch) = call.branches.get(one.branch) else { continue };
            for side in [Side::Offerer, Side::Answerer] {
                // One that only reports (some send receiver reports under a number of their own) has no media to tell of.
                for stream in one.stats.side(side).streams.iter().filter(|stream| stream.packets > 0) {
                    let (tag, peer) =
                        (&branch.parties.party(side).tag, &branch.parties.party(side.other()).tag);
                    let record = stream_record(now, id, tag, peer, one.media, stream);
                    self.push(record);
                }
            }
        }
        let lasted = now.saturating_since(call.created);
        let level = if end == End::Delete { Level::Info } else { Level::Warn };
        let event = Event::new(level, "call-end")
            .with("call_id", id)
            .with("reason", end.name())
            .with("seconds", format!("{:.3}", lasted.as_secs_f64()));
        let line = serde_json::json!({
            "event": "call-end",
            "time": now.rfc3339(),
            "call_id": id,
            "reason": end.name(),
            "seconds": lasted.as_millis() as f64 / 1000.0,
            "created_from": call.created_from.to_string(),
            "stats": serde_json::from_str::<serde_json::Value>(&reply.encode_json()).unwrap_or_default(),
        });
        self.push(Record { event, line: line.to_string() });
        Some(reply)
    }

    fn query(&self, request: &Dict, engine: &mut dyn Engine) -> Result<Dict, String> {
        let id = request.get_str("call-id").filter(|id| !id.is_empty()).ok_or("no call-id")?;
        let call = self.calls.get(id).ok_or("Unknown call-id")?;
        let counted = count(call, None, engine);
        Ok(report::report(call, &counted).with("result", "ok"))
    }

    fn list(&self, request: &Dict) -> Dict {
        let limit = request.get_int("limit").unwrap_or(32).clamp(0, limits::NG_LISTED);
        let calls: Vec<&str> = self.calls.keys().take(limit as usize).map(String::as_str).collect();
        Dict::new().with("calls", calls).with("result", "ok")
    }

    /// Calls at the moment.
    pub fn call_count(&self) -> usize {
        self.calls.len()
    }

    /// Takes no new calls from now on (SIGTERM).
    pub fn drain(&mut self) {
        self.draining = true;
    }

    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whose bridge this is.
    pub fn call_of(&self, bridge: BridgeId) -> Option<&str> {
        let has = |call: &&Call| {
            call.branches.iter().any(|branch| branch.bridges().any(|(_, slot)| slot.bridge == bridge))
        };
        self.calls.values().find(has).map(|call| call.id.as_str())
    }

    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_check
    }

    /// Ends the calls in which nothing arrives any more.
    pub fn handle_timeout(&mut self, now: Instant, engine: &mut dyn Engine) {
        self.cookies.expire(now);
        let due: Vec<String> =
            self.calls.values().filter(|call| call.check <= now).map(|call| call.id.clone()).collect();
        for id in due {
            let Some(call) = self.calls.get(&id) else { continue };
            let heard = count(call, None, engine).iter().filter_map(|one| one.stats.last()).max();
            let silent = call.is_silent();
            let (allowed, end) = match silent {
                true => (self.config.silent_timeout, End::SilentTimeout),
                false => (self.config.timeout, End::Timeout),
            };
            let last = heard.unwrap_or(call.last_signal).max(call.last_signal);
            let latest = self.config.final_timeout.map(|allowed| call.created + allowed);
            if call.ends.is_some_and(|ends| now >= ends) {
                self.end(now, &id, End::Delete, engine);
            } else if latest.is_some_and(|latest| now >= latest) {
                self.end(now, &id, End::FinalTimeout, engine);
            } else if now.saturating_since(last) >= allowed {
                self.end(now, &id, end, engine);
            } else if let Some(call) = self.calls.get_mut(&id) {
                let check = last + allowed;
                call.check = [latest, call.ends].into_iter().flatten().fold(check, Ord::min);
            }
        }
        self.next_check = self.calls.values().map(|call| call.check).min();
    }

    /// Ends all calls: the process goes.
    pub fn close_all(&mut self, now: Instant, engine: &mut dyn Engine) {
        while let Some(id) = self.calls.keys().next().cloned() {
            self.end(now, &id, End::Shutdown, engine);
        }
    }

    /// One JSON object a call (SIGUSR1).
    pub fn dump(&self, out: &mut Vec<String>) {
        for call in self.calls.values() {
            let dict = Dict::new()
                .with("call-id", &call.id)
                .with("created", call.created.unix_secs())
                .with("branches", call.branches.len() as u64)
                .with("answered", u64::from(call.branches.iter().any(|branch| branch.answered)));
            out.push(dict.encode_json());
        }
    }

    fn tell(&mut self, now: Instant, event: Event) {
        let mut line = serde_json::Map::new();
        line.insert("event".into(), event.name.into());
        line.insert("time".into(), now.rfc3339().into());
        for (key, value) in &event.fields {
            line.insert((*key).into(), value.as_str().into());
        }
        self.push(Record { line: serde_json::Value::Object(line).to_string(), event });
    }

    fn push(&mut self, record: Record) {
        // Nobody takes them: the oldest go.
        if self.records.len() >= limits::RELAY_RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }
}

fn refused(reason: &str) -> Dict {
    Dict::new().with("result", "error").with("error-reason", reason)
}

/// Asks for the counts of a call's bridges, or of one branch's.
fn count(call: &Call, only: Option<usize>, engine: &mut dyn Engine) -> Vec<Counted> {
    let mut counted = Vec::new();
    for (at, branch) in call.branches.iter().enumerate().filter(|(at, _)| only.is_none_or(|only| only == *at))
    {
        for (media, slot) in branch.bridges() {
            if let Some(stats) = engine.stats(slot.bridge) {
                counted.push(Counted { branch: at, media, slot, stats });
            }
        }
    }
    counted
}

/// `stream-stats`: one source of one peer, as it arrived here.
fn stream_record(
    now: Instant,
    call_id: &str,
    tag: &str,
    peer_tag: &str,
    media: usize,
    stream: &crate::media::stats::StreamStats,
) -> Record {
    let quality = report::quality(stream);
    let codec = stream.encoding.as_deref().unwrap_or("unknown");
    let round = |value: f64| (value * 100.0).round() / 100.0;
    let event = Event::new(Level::Info, "stream-stats")
        .with("call_id", call_id)
        .with("tag", tag)
        .with("ssrc", stream.ssrc)
        .with("codec", codec)
        .with("packets", stream.packets)
        .with("lost", stream.lost);
    let mut line = serde_json::json!({
        "event": "stream-stats",
        "time": now.rfc3339(),
        "call_id": call_id,
        "tag": tag,
        "peer_tag": peer_tag,
        "index": media + 1,
        "ssrc": stream.ssrc,
        "payload_type": stream.payload_type,
        "codec": codec,
        "clock_rate": stream.clock_rate,
        "packets": stream.packets,
        "bytes": stream.bytes,
        "expected": stream.expected,
        "lost": stream.lost,
        "loss_percent": round(quality.loss_percent),
        "jitter_ms": f64::from(stream.jitter_us) / 1000.0,
        "seconds": stream.last.saturating_since(stream.first).as_millis() as f64 / 1000.0,
    });
    if let Some(rtt) = stream.round_trip {
        line["round_trip_ms"] = serde_json::json!(rtt.as_micros() as f64 / 1000.0);
    }
    // What its receiver got of it: a loss that is only here happened behind us.
    if let Some(far) = &stream.far_end {
        let quality = report::quality_of(stream, u64::from(far.lost), far.expected, far.jitter_us);
        line["receiver"] = serde_json::json!({
            "lost": far.lost,
            "expected": far.expected,
            "loss_percent": round(quality.loss_percent),
            "jitter_ms": f64::from(far.jitter_us) / 1000.0,
        });
        if let Some(score) = quality.score {
            line["receiver"]["mos"] = serde_json::json!(round(score.mos));
            line["receiver"]["mos_model"] = score.model.name().into();
        }
    }
    if let Some(score) = quality.score {
        line["mos"] = serde_json::json!(round(score.mos));
        line["mos_model"] = score.model.name().into();
    }
    Record { event, line: line.to_string() }
}
