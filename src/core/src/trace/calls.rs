//! Messages put together into calls by their Call-ID, and which of them are shown.
//!
//! RFC 3261 §12 and §13, seen from outside: nobody here takes part. In: messages in time order. Out: messages one by one,
//! or calls, as the view wants it; a message that the [`Choice`] fits brings its whole call, also what came before it.
//! Beyond [`TRACE_CALLS`] calls, or [`TRACE_KEPT_BYTES`] bytes, the call that was silent for longest is let go (and shown).
//! Not here: what it looks like (`show`).

use super::{Choice, Traced};
use crate::limits::{TRACE_CALL_MESSAGES, TRACE_CALLS, TRACE_KEPT_BYTES};
use crate::time::Instant;
use std::collections::{HashMap, VecDeque};
use std::fmt;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Calls without their messages.
    Calls,
    /// Calls with their messages.
    Ladders,
    /// Messages, as soon as it is known that they are meant.
    Messages,
}

/// How far a call got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A request without a final answer.
    Pending,
    /// INVITE: 180 to 189 came.
    Ringing,
    /// INVITE: a 2xx came, and no BYE yet.
    Talking,
    /// INVITE: answered, and BYE.
    Ended,
    /// INVITE: 487, or CANCEL before any final answer.
    Cancelled,
    /// A final answer of 300 and more was the last word.
    Failed,
    /// Any other request: 2xx.
    Done,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Ringing => "ringing",
            State::Talking => "talking",
            State::Ended => "ended",
            State::Cancelled => "cancelled",
            State::Failed => "failed",
            State::Done => "done",
        }
    }

    /// Whether nothing more is expected.
    pub const fn is_final(self) -> bool {
        match self {
            State::Ended | State::Cancelled | State::Failed | State::Done => true,
            State::Pending | State::Ringing | State::Talking => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// All messages with one Call-ID.
#[derive(Clone, Debug)]
pub struct Call {
    pub call_id: String,
    /// Of its first message.
    pub from: String,
    pub to: String,
    pub method: String,
    pub state: State,
    /// The answer to its method: the first 2xx; without one, the last answer, of which a final one counts more than a
    /// provisional one. 0 before any.
    pub status: u16,
    pub reason: String,
    pub first: Instant,
    pub last: Instant,
    pub answered: Option<Instant>,
    pub messages: u64,
    /// What is kept of them: all, in the view of ladders, up to a limit.
    pub kept: Vec<Traced>,
    kept_bytes: usize,
    /// Of the attempt that `status` answers.
    cseq: u32,
    chosen: bool,
    serial: u64,
    stamp: u64,
}

impl Call {
    fn new(traced: &Traced, serial: u64) -> Self {
        let summary = &traced.summary;
        Call {
            call_id: summary.call_id.clone(),
            from: summary.from.clone(),
            to: summary.to.clone(),
            method: summary.method.clone(),
            state: State::Pending,
            status: 0,
            reason: String::new(),
            first: traced.time,
            last: traced.time,
            answered: None,
            messages: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            cseq: 0,
            chosen: false,
            serial,
            stamp: 0,
        }
    }

    fn is_invite(&self) -> bool {
        self.method == "INVITE"
    }

    fn note(&mut self, traced: &Traced) {
        let summary = &traced.summary;
        self.messages += 1;
        self.first = self.first.min(traced.time);
        self.last = self.last.max(traced.time);
        if summary.is_request() {
            self.request(summary.method.as_str(), summary.cseq);
        } else if summary.method == self.method && self.answered.is_none() && summary.cseq >= self.cseq {
            let next_attempt = summary.cseq > self.cseq;
            let provisional = summary.status < 200;
            if provisional && self.status >= 200 && !next_attempt {
                return;
            }
            self.cseq = summary.cseq;
            self.status = summary.status;
            self.reason.clone_from(&summary.reason);
            match summary.status {
                180..=189 if self.is_invite() => self.state = State::Ringing,
                100..=199 => {}
                200..=299 => {
                    self.answered = Some(traced.time);
                    self.state = if self.is_invite() { State::Talking } else { State::Done };
                }
                487 => self.state = State::Cancelled,
                _ => self.state = State::Failed,
            }
        }
    }

    fn request(&mut self, method: &str, cseq: u32) {
        match method {
            "BYE" if self.is_invite() && self.answered.is_some() => self.state = State::Ended,
            "CANCEL" if self.is_invite() && !self.state.is_final() && self.answered.is_none() => {
                self.state = State::Cancelled;
            }
            // Once more, with credentials or elsewhere.
            _ if method == self.method
                && self.answered.is_none()
                && cseq > self.cseq
                && self.status >= 300 =>
            {
                self.state = State::Pending;
            }
            _ => {}
        }
    }
}

/// Something to show.
#[derive(Debug)]
pub enum Shown {
    Message(Box<Traced>),
    Call(Box<Call>),
}

/// Calls under way, and what is shown of them.
#[derive(Debug)]
pub struct Trace {
    view: View,
    choice: Choice,
    calls: HashMap<String, Call>,
    /// Who was active when; an entry whose stamp is not its call's own is out of date.
    activity: VecDeque<(u64, String)>,
    next: u64,
    kept_bytes: usize,
    /// Calls that were let go because of the limits.
    pub forgotten: u64,
}

impl Trace {
    pub fn new(view: View, choice: Choice) -> Self {
        Trace {
            view,
            choice,
            calls: HashMap::new(),
            activity: VecDeque::new(),
            next: 0,
            kept_bytes: 0,
            forgotten: 0,
        }
    }

    /// One message. What is to be shown now is appended to `out`.
    pub fn add(&mut self, traced: Traced, out: &mut Vec<Shown>) {
        let fits = self.choice.fits(&traced.summary);
        if self.choice.only && !fits {
            return;
        }
        let streamed = self.view == View::Messages && (self.choice.only || self.choice.is_all());
        if streamed {
            out.push(Shown::Message(Box::new(traced)));
            return;
        }
        if traced.summary.call_id.is_empty() {
            // Without a Call-ID it belongs to no call: it can only stand for itself.
            if fits && self.view == View::Messages {
                out.push(Shown::Message(Box::new(traced)));
            }
            return;
        }
        self.next += 1;
        let stamp = self.next;
        let call_id = traced.summary.call_id.clone();
        if !self.calls.contains_key(&call_id) && self.calls.len() >= TRACE_CALLS {
            self.let_go(out);
        }
        let call = self.calls.entry(call_id.clone()).or_insert_with(|| Call::new(&traced, stamp));
        call.stamp = stamp;
        self.activity.push_back((stamp, call_id));
        call.note(&traced);
        if fits && !call.chosen {
            call.chosen = true;
            if self.view == View::Messages {
                self.kept_bytes -= std::mem::take(&mut call.kept_bytes);
                out.extend(call.kept.drain(..).map(|traced| Shown::Message(Box::new(traced))));
            }
        }
        match self.view {
            View::Calls => {}
            View::Messages if call.chosen => out.push(Shown::Message(Box::new(traced))),
            View::Messages | View::Ladders => {
                if call.kept.len() < TRACE_CALL_MESSAGES {
                    let weight = traced.weight();
                    call.kept_bytes += weight;
                    self.kept_bytes += weight;
                    call.kept.push(traced);
                }
            }
        }
        while self.kept_bytes > TRACE_KEPT_BYTES && self.let_go(out) {}
        // Entries that are out of date go once there are more of them than calls.
        if self.activity.len() > 2 * self.calls.len() + 1024 {
            let calls = &self.calls;
            self.activity.retain(|(stamp, id)| calls.get(id).is_some_and(|call| call.stamp == *stamp));
        }
    }

    /// Lets go of the call that was silent for longest; false where there is none.
    fn let_go(&mut self, out: &mut Vec<Shown>) -> bool {
        while let Some((stamp, call_id)) = self.activity.pop_front() {
            if self.calls.get(&call_id).is_some_and(|call| call.stamp == stamp) {
                self.forgotten += 1;
                self.close(&call_id, out);
                return true;
            }
        }
        false
    }

    fn close(&mut self, call_id: &str, out: &mut Vec<Shown>) {
        if let Some(call) = self.calls.remove(call_id) {
            self.kept_bytes -= call.kept_bytes;
            if call.chosen && self.view != View::Messages {
                out.push(Shown::Call(Box::new(call)));
            }
        }
    }

    /// For input without an end: shows calls that nothing more is expected of, and that were silent since `before`.
    pub fn settle(&mut self, before: Instant, out: &mut Vec<Shown>) {
        let mut over: Vec<(u64, String)> = self
            .calls
            .values()
            .filter(|call| call.state.is_final() && call.last < before)
            .map(|call| (call.serial, call.call_id.clone()))
            .collect();
        over.sort_unstable();
        for (_, call_id) in over {
            self.close(&call_id, out);
        }
    }

    /// The input has ended: shows what is left, in the order in which it began.
    pub fn finish(&mut self, out: &mut Vec<Shown>) {
        let mut rest: Vec<(u64, String)> =
            self.calls.values().map(|call| (call.serial, call.call_id.clone())).collect();
        rest.sort_unstable();
        for (_, call_id) in rest {
            self.close(&call_id, out);
        }
    }
}
