//! Rewriting: items in, items of the same kind out.
//!
//! In: the flags, and items. Out: each with another SDP in the place of its own; an ng request gets the relay's reply. One that
//! cannot be rewritten is told with its place, and left out. Not here: what is rewritten and how (`sipbox_core::rewrite`).

use super::extract::{self, Record, record};
use super::source::Sink;
use super::supply::Pinned;
use super::{Bad, Form, place};
use crate::exit::Failure;
use crate::output::{self, Output};
use sipbox_core::inputs::{Item, Kind, Piece, json, sip};
use sipbox_core::limits::{RELAY_BRANCHES, STREAM_DIALOGS};
use sipbox_core::media::plan::Side;
use sipbox_core::ng::{Dict, Flags, Parties, Value, find_answer, find_offer};
use sipbox_core::rewrite::{self, Cut, Input, Kind as Role, Memory, Refusal};
use sipbox_core::sdp::Sdp;
use sipbox_core::sip::{Message, Method};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

pub struct Filter {
    /// `-o`, and whether there is nothing else to do.
    form: Option<Form>,
    converts_only: bool,
    flags: Flags,
    /// The offer that `--answers` names, as it is and as it was understood.
    answers: Option<(Vec<u8>, Memory)>,
    rewriter: Rewriter,
    offers: Known<Transaction, Memory>,
    calls: Known<String, Branches>,
    out: Output,
    bad: Bad,
    /// Kept for their memory: an SDP out of a record, and what is written.
    text: Vec<u8>,
    written: Vec<u8>,
}

/// The rewriter, with what a relay would put in, and what it took out of the item at hand.
struct Rewriter {
    supply: Pinned,
    verbose: bool,
    cuts: Vec<Cut>,
}

impl Rewriter {
    fn rewrite(
        &mut self,
        sdp: &[u8],
        (kind, sender): (Role, Side),
        flags: &Flags,
        memory: &mut Memory,
    ) -> Result<Vec<u8>, Refusal> {
        let input = Input { sdp, kind, sender, flags, cuts: self.verbose };
        let done = rewrite::rewrite(&input, memory, &mut self.supply)?;
        self.cuts.extend(done.cut);
        Ok(done.sdp)
    }

    /// `FILE:LINE: cut: a=…` on standard error; the line is the file's where the item is an SDP, else the SDP's own is told too.
    fn tell_cuts(&mut self, file: &str, item: &Item<'_>) {
        let first = item.place.line;
        for cut in self.cuts.drain(..) {
            let text = output::plain(&cut.text);
            crate::progress::tell(&match (item.kind, cut.line) {
                (Kind::Sdp, Some(line)) => format!("{file}:{}: cut: {text}", first + u64::from(line) - 1),
                (_, Some(line)) => format!("{file}:{first}: cut: {text} (line {line} of the SDP)"),
                (_, None) => format!("{file}:{first}: cut: {text}"),
            });
        }
    }
}

/// What was said before in the stream; the oldest is forgotten for a new one.
struct Known<K, V> {
    by_key: HashMap<K, V>,
    order: VecDeque<K>,
}

/// The transaction of an offer in SIP: its Call-ID and CSeq number.
type Transaction = (String, String);

/// A call of ng has branches, as the relay has them.
type Branches = Vec<(Parties, Memory)>;

impl<K: Clone + Eq + Hash, V> Known<K, V> {
    fn new() -> Self {
        Known { by_key: HashMap::new(), order: VecDeque::new() }
    }

    /// Takes a new one in place of one with the same key.
    fn insert(&mut self, key: K, value: V) {
        if self.by_key.insert(key.clone(), value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > STREAM_DIALOGS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}

/// Why an item is not rewritten.
enum Trouble {
    Refused(Refusal),
    Other(String),
    Failure(Failure),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Trouble::Refused(refusal)
    }
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Trouble::Other(reason)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failure(failure)
    }
}

impl Filter {
    pub fn new(
        flags: Flags,
        answers: Option<Vec<u8>>,
        supply: Pinned,
        strict: bool,
    ) -> Result<Self, Refusal> {
        let answers = match answers {
            Some(offer) => {
                let memory = Memory::of_offer(&offer, &flags)?;
                Some((offer, memory))
            }
            None => None,
        };
        Ok(Filter {
            form: None,
            converts_only: false,
            flags,
            answers,
            rewriter: Rewriter { supply, verbose: false, cuts: Vec::new() },
            offers: Known::new(),
            calls: Known::new(),
            out: Output::new(),
            bad: Bad::new(strict),
            text: Vec::new(),
            written: Vec::new(),
        })
    }

    /// Writes the SDP alone, in this form.
    #[must_use]
    pub fn with_form(mut self, form: Option<Form>, converts_only: bool) -> Self {
        self.form = form;
        self.converts_only = converts_only;
        self
    }

    /// Tells on standard error what was taken out for the receiver's sake.
    #[must_use]
    pub fn telling_cuts(mut self, verbose: bool) -> Self {
        self.rewriter.verbose = verbose;
        self
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        self.out.flush()?;
        self.bad.finish()
    }

    fn item(&mut self, item: &Item<'_>) -> Result<(), Trouble> {
        if let Some(form) = self.form {
            return self.convert(item, form);
        }
        match item.kind {
            Kind::Sdp => {
                let sdp = self.alone(item.data)?;
                self.out.bytes(&sdp)?;
            }
            Kind::Sip => self.sip(item.data)?,
            Kind::Bencode | Kind::Json => match record(item)? {
                Record::Ng(dict) => {
                    let sdp = Value::Bytes(self.request(&dict)?);
                    let reply = Dict::new().with("sdp", sdp).with("result", "ok");
                    if item.kind == Kind::Bencode {
                        self.out.bytes(&reply.encode_bencode())?;
                    } else {
                        self.out.text(&(reply.encode_json() + "\n"))?;
                    }
                }
                Record::Json { sdp } => self.json(item.data, sdp)?,
                Record::Form(sdp) => {
                    let sdp = self.alone(&sdp)?;
                    self.put(&sdp, Form::Json)?;
                }
            },
        }
        Ok(())
    }

    /// The SDP alone, in the form that `-o` asks for; rewritten only where a flag says how, or an ng request does.
    fn convert(&mut self, item: &Item<'_>, form: Form) -> Result<(), Trouble> {
        if matches!(item.kind, Kind::Bencode | Kind::Json)
            && let Record::Ng(dict) = record(item)?
            && dict.get("command").is_some()
        {
            let sdp = self.request(&dict)?;
            return self.put(&sdp, form);
        }
        let Some(found) = extract::description(item)? else { return Ok(()) };
        if self.converts_only {
            return self.put(&found.sdp, form);
        }
        let sdp = self.alone(&found.sdp)?;
        self.put(&sdp, form)
    }

    fn put(&mut self, sdp: &[u8], form: Form) -> Result<(), Trouble> {
        let parsed = Sdp::parse(sdp).map_err(Refusal::Sdp)?;
        match form {
            Form::Json => self.out.record(&parsed.to_json())?,
            Form::Sdp | Form::Text => self.out.bytes(sdp)?,
        }
        Ok(())
    }

    /// By the flags of the command line.
    fn alone(&mut self, sdp: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (mut memory, kind, sender) = match &self.answers {
            Some((_, memory)) => (memory.clone(), Role::Answer, Side::Answerer),
            None => (Memory::default(), Role::Offer, Side::Offerer),
        };
        self.rewriter.rewrite(sdp, (kind, sender), &self.flags, &mut memory)
    }

    /// The field is replaced, and all else stays byte for byte.
    fn json(&mut self, data: &[u8], field: std::ops::Range<usize>) -> Result<(), Trouble> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        json::text_of(data.get(field.clone()).unwrap_or_default(), &mut text);
        let sdp = self.alone(&text);
        self.text = text;
        let sdp = sdp?;
        self.written.clear();
        self.written.extend_from_slice(data.get(..field.start).unwrap_or_default());
        json::put_text(&sdp, &mut self.written);
        self.written.extend_from_slice(data.get(field.end..).unwrap_or_default());
        self.written.push(b'\n');
        self.out.bytes(&self.written)?;
        Ok(())
    }

    /// A message of SIP; one without an SDP passes as it is.
    fn sip(&mut self, data: &[u8]) -> Result<(), Trouble> {
        let not_sip = |error| format!("not a SIP message: {error}");
        let mended = sip::mend(data).map_err(not_sip)?;
        let message = Message::parse(&mended.data).map_err(not_sip)?;
        let Some(place) = sip::description(&message) else {
            self.out.bytes(&mended.data)?;
            return Ok(());
        };
        let sdp = message.body().get(place.clone()).unwrap_or_default();
        let sdp = match self.transaction(&message) {
            Some(key) => self.in_dialog(&message, key, sdp)?,
            None => self.alone(sdp)?,
        };
        self.written.clear();
        sip::put(&message, &place, &sdp, &mut self.written);
        self.out.bytes(&self.written)?;
        Ok(())
    }

    /// What ties an answer to its offer: both are of one transaction, or the answer is in the ACK.
    fn transaction(&self, message: &Message<'_>) -> Option<Transaction> {
        if self.answers.is_some() {
            return None;
        }
        let (number, _) = message.cseq().ok()?;
        let call_id = message.call_id()?;
        Some((String::from_utf8_lossy(call_id).into_owned(), number.to_string()))
    }

    fn in_dialog(&mut self, message: &Message<'_>, key: Transaction, sdp: &[u8]) -> Result<Vec<u8>, Refusal> {
        let answers = if message.is_request() { message.method() == Method::Ack } else { true };
        let Some(offer) = self.offers.by_key.get(&key).filter(|_| answers) else {
            // An offer, also where it comes in the response (RFC 3264 §4, RFC 3261 §13.2.1).
            let memory = Memory::of_offer(sdp, &self.flags)?;
            let rewritten = self.alone(sdp)?;
            self.offers.insert(key, memory);
            return Ok(rewritten);
        };
        // An answer has the transport of its offer.
        let flags = Flags { transport_protocol: None, ..self.flags.clone() };
        let mut memory = offer.clone();
        self.rewriter.rewrite(sdp, (Role::Answer, Side::Answerer), &flags, &mut memory)
    }

    /// A request of ng: it brings its own flags, and gets the relay's reply.
    fn request(&mut self, dict: &Dict) -> Result<Vec<u8>, String> {
        let sdp = dict.get_bytes("sdp").ok_or("a dictionary without sdp")?;
        let flags = Flags::parse(dict)?;
        let kind = match dict.get_str("command") {
            Some("offer") => Role::Offer,
            Some("answer") => Role::Answer,
            Some(other) => return Err(format!("command {other}: only offer and answer have an SDP")),
            None => return Err("a dictionary without command".to_owned()),
        };
        let text = |key| dict.get_str(key).unwrap_or_default();
        let (id, from, to, via) =
            (text("call-id"), text("from-tag"), text("to-tag"), dict.get_str("via-branch"));
        if !self.calls.by_key.contains_key(id) {
            self.calls.insert(id.to_owned(), Vec::new());
        }
        let call = self.calls.by_key.get_mut(id).ok_or("no room for a further call")?;
        let parties = call.iter().map(|(parties, _)| parties);
        let found = match kind {
            Role::Offer => find_offer(parties, from, to, via),
            Role::Answer => find_answer(parties, from, to, via),
        };
        let (at, offering) = match found {
            Some(found) => found,
            None if call.len() >= RELAY_BRANCHES => return Err("too many branches".to_owned()),
            // Without its offer, an answer is taken as it is, or as one to that of the command line.
            None => {
                let memory = match (&self.answers, kind) {
                    (Some((offer, _)), Role::Answer) => {
                        Memory::of_offer(offer, &flags).map_err(|refusal| format!("--answers: {refusal}"))?
                    }
                    (Some(_) | None, Role::Offer | Role::Answer) => Memory::default(),
                };
                call.push((Parties::of_offer(from, to, via), memory));
                (call.len() - 1, Side::Offerer)
            }
        };
        let (parties, memory) = call.get_mut(at).ok_or("no such branch")?;
        let sender = if kind == Role::Offer { offering } else { offering.other() };
        let done = self.rewriter.rewrite(sdp, (kind, sender), &flags, memory);
        match &done {
            Ok(_) if kind == Role::Answer && !to.is_empty() => parties.party_mut(sender).rename(to),
            Err(_) if memory.media_count() == 0 => drop(call.remove(at)),
            Ok(_) | Err(_) => {}
        }
        done.map_err(|refusal| refusal.to_string())
    }
}

impl Sink for Filter {
    fn piece(&mut self, file: &str, piece: &Piece<'_>) -> Result<(), Failure> {
        let item = match piece {
            Piece::Item(item) => item,
            Piece::Fault(at, reason) => return self.bad.add(place(file, at, reason)),
        };
        let mut at = item.place;
        let done = self.item(item);
        self.rewriter.tell_cuts(file, item);
        let reason = match done {
            Ok(()) => return Ok(()),
            Err(Trouble::Failure(failure)) => return Err(failure),
            Err(Trouble::Other(reason)) => reason,
            Err(Trouble::Refused(Refusal::Sdp(error))) if item.kind == Kind::Sdp => {
                at.line += u64::from(error.line.saturating_sub(1));
                format!("not an SDP: {}", error.kind)
            }
            Err(Trouble::Refused(refusal)) => refusal.to_string(),
        };
        self.bad.add(place(file, &at, reason))
    }

    fn idle(&mut self) -> Result<(), Failure> {
        self.out.flush()
    }
}
