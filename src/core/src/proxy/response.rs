//! Responses on their way back.
//!
//! RFC 3261 §16.7: our Via is taken off; a provisional response and a 2xx go on at once, other final ones wait for the
//! rest. What carries an SDP of a relayed branch goes by the relay first, and later responses of that branch wait behind
//! it, so that they stay in order. Not here: which response is best (`fork`).

use super::context::{Context, Kind, Outcome, Waiting};
use super::media::{self, Half, Key, Verdict};
use super::{Proxy, event, fork, lossy};
use crate::flow::Flow;
use crate::limits;
use crate::machine::{Level, Output, Question};
use crate::sip::Message;
use crate::sip::edit::Edit;
use crate::time::Instant;
use bytes::Bytes;

/// Responses of one branch that wait for the relay; its sender repeats what matters.
const MOST_WAITING: usize = 8;
/// Rewritten bodies that are kept for a response that is repeated.
const MOST_REWRITTEN: usize = 4;

impl Proxy {
    /// A response that its transaction lets pass.
    pub(super) fn branch_response(
        &mut self,
        now: Instant,
        context: &mut Context,
        index: usize,
        flow: Flow,
        data: Bytes,
    ) {
        let Ok(message) = Message::parse(&data) else { return };
        let status = message.status();
        let Some(branch) = context.branches.get_mut(index) else { return };
        branch.heard = true;
        match &branch.outcome {
            // The callee repeats its 2xx until it is acknowledged, end to end.
            Some(Outcome::Response(200..=299, _)) if (200..300).contains(&status) => {}
            Some(_) if context.method == Kind::Invite && (200..300).contains(&status) => {
                return self.hang_up(now, context, index, &message);
            }
            Some(_) => return,
            None => {}
        }
        if status == 100 {
            return;
        }
        if status < 200 {
            self.rings(now, context, index);
        }
        // What this step has put there already is counted when it is over: one message.
        let has_room = self.has_room(data.len());
        if let Some(branch) = context.branches.get_mut(index)
            && branch.asking.is_some()
        {
            if branch.waiting.len() < MOST_WAITING && has_room {
                branch.waiting.push_back((flow, data));
            }
            return;
        }
        self.with_media(now, context, index, flow, data);
    }

    /// Has its SDP rewritten, where there is one and the branch is relayed.
    fn with_media(&mut self, now: Instant, context: &mut Context, index: usize, flow: Flow, data: Bytes) {
        let Ok(message) = Message::parse(&data) else { return };
        let branch = &context.branches[index];
        let described = message.description().filter(|_| branch.relayed && message.status() < 300);
        let Some(sdp) = described else { return self.pass(now, context, index, flow, &message, None) };
        let known = branch.rewritten.iter().find(|(body, _)| body == message.body());
        if let Some((_, body)) = known {
            let body = body.clone();
            return self.pass(now, context, index, flow, &message, Some(body));
        }
        if !self.has_room(data.len()) {
            return;
        }
        let Ok(request) = Message::parse(&context.request) else { return };
        let mut key = self.media_key(context, &request, index);
        key.to_tag = lossy(message.to_tag().unwrap_or_default());
        let half = if context.has_sdp {
            Half::Answer(context.sdp)
        } else {
            // The offer is in the response: its sender is who offers (RFC 3261 §13.2.1).
            key = Key { from_tag: key.to_tag, to_tag: key.from_tag, ..key };
            Half::Offer
        };
        let mut sender = branch.destination.peer;
        if let Some(described) = media::describe(sdp) {
            sender.browser |= described.browser;
        }
        let source = flow.remote.ip();
        let dict = media::request(&key, half, sdp, sender, context.sender, source);
        let question = Question::Relay {
            relay: u16::from(context.relay.unwrap_or_default()),
            request: dict.encode_bencode().into(),
        };
        let asking = self.ask(now, question, Waiting::Answer(context.id, index));
        let branch = &mut context.branches[index];
        branch.told = true;
        branch.asking = asking;
        if asking.is_some() {
            branch.waiting.push_front((flow, data));
        }
    }

    /// The relay's word on the SDP of the response that waits first.
    pub(super) fn rewritten(&mut self, now: Instant, context: &mut Context, index: usize, verdict: Verdict) {
        let has_room = self.has_room(limits::SIP_MESSAGE_BYTES);
        let Some(branch) = context.branches.get_mut(index) else { return };
        branch.asking = None;
        let Some((flow, data)) = branch.waiting.pop_front() else { return };
        let Ok(message) = Message::parse(&data) else { return };
        match verdict {
            Verdict::Sdp(sdp) => {
                let body = message.with_description(sdp);
                if branch.rewritten.len() >= MOST_REWRITTEN {
                    branch.rewritten.remove(0);
                }
                if has_room {
                    branch.rewritten.push((Bytes::copy_from_slice(message.body()), body.clone()));
                }
                self.pass(now, context, index, flow, &message, Some(body));
            }
            Verdict::Refused(reason) => {
                self.relay_refused(context, &reason);
                return self.spoilt(now, context, index, &message, 488, "Not Acceptable Here");
            }
            Verdict::Unusable => {
                return self.spoilt(now, context, index, &message, 503, "Media Relay Unavailable");
            }
        }
        // What came meanwhile.
        while let Some(branch) = context.branches.get_mut(index)
            && branch.asking.is_none()
            && let Some((flow, data)) = branch.waiting.pop_front()
        {
            self.with_media(now, context, index, flow, data);
        }
    }

    /// A response whose media cannot be had. The caller is told; a callee that has answered is hung up on, one that rings
    /// is cancelled.
    fn spoilt(
        &mut self,
        now: Instant,
        context: &mut Context,
        index: usize,
        message: &Message<'_>,
        status: u16,
        reason: &'static str,
    ) {
        if message.status() < 200
            && let Some(client) = context.branches[index].client
        {
            self.layer.cancel(now, client);
        }
        self.branch_failed(now, context, index, Outcome::Local(status, reason));
        if message.status() >= 200 && context.method == Kind::Invite {
            self.hang_up(now, context, index, message);
        }
    }

    /// Sends it on, or keeps it until all branches have ended.
    fn pass(
        &mut self,
        now: Instant,
        context: &mut Context,
        index: usize,
        flow: Flow,
        message: &Message<'_>,
        body: Option<Vec<u8>>,
    ) {
        let status = message.status();
        let mut edit = Edit::new();
        edit.remove_top_via();
        if let Some(contact) = fork::response_contact(message, &context.branches[index].destination, &flow) {
            edit.replace_contacts(contact);
        }
        if let Some(body) = body {
            edit.replace_body(None, body);
        }
        let mut out = Vec::with_capacity(message.as_bytes().len() + 128);
        edit.write(message, &mut out);
        let data = Bytes::from(out);
        match status {
            ..=199 => {
                if !context.finished {
                    self.layer.respond(now, context.server, status, data);
                }
            }
            200..=299 => self.success(now, context, index, message, data),
            300.. => self.branch_failed(now, context, index, Outcome::Response(status, data)),
        }
    }

    /// A 2xx goes on at once, and ends the other branches (§16.7 steps 5 and 10).
    fn success(
        &mut self,
        now: Instant,
        context: &mut Context,
        index: usize,
        message: &Message<'_>,
        data: Bytes,
    ) {
        let status = message.status();
        let first = !std::mem::replace(&mut context.finished, true);
        let passed = self.layer.respond(now, context.server, status, data.clone());
        self.quiet(context, index);
        if !passed && context.method == Kind::Invite {
            // The caller had another final answer before.
            context.branches[index].outcome = Some(Outcome::Local(487, "Too Late"));
            return self.hang_up(now, context, index, message);
        }
        context.branches[index].outcome = Some(Outcome::Response(status, data));
        context.later.clear();
        if !first {
            return;
        }
        self.cancel_others(now, context, index);
        if context.method == Kind::Invite && context.dialog.is_none() {
            self.answered.begin(now, message);
            self.outputs.push_back(Output::Event(event(
                Level::Info,
                "call-answered",
                message,
                &context.flow,
            )));
        }
    }
}
