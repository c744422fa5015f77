//! Branches: from a destination to a sent request, and to its end.
//!
//! RFC 3261 §16.6 to §16.10: each branch is resolved, its media are offered to the relay, then it is sent; timer C and the
//! ring time-out watch it; the best of the final responses goes back when all have ended; CANCEL and a 2xx end the
//! others. Not here: responses (`response`), the message itself (`forward`).

use super::config::Fork;
use super::context::{Branch, Context, Destination, Kind, NextHop, Outcome, Waiting};
use super::media::{self, Half, Key, Verdict};
use super::{Proxy, Timer, event, forward, lossy, nat};
use crate::flow::{ServerKey, Target, Transport};
use crate::machine::{Event, Level, Output, Question};
use crate::resolve::Hop;
use crate::sip::{Message, Name};
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Timer C: more than three minutes (§16.6 step 11).
const TIMER_C: Duration = Duration::from_secs(185);

/// Bytes of a request that still go as a datagram where the path's MTU is not known (§18.1.1).
const DATAGRAM: usize = 1300;
/// About what a request grows by on its way through us: Via and Record-Route.
const ADDED: usize = 200;
/// How long TCP may take before the datagram is tried after all.
const SILENCE: Duration = Duration::from_secs(2);

impl Proxy {
    /// Begins with the destinations, all at once or one after the other.
    pub(super) fn start(&mut self, now: Instant, context: &mut Context, destinations: Vec<Destination>) {
        // RFC 5393 §5.3.3: all that is open at a time shares the breadth that the request came with.
        let breadth = usize::try_from(context.breadth).unwrap_or(usize::MAX);
        let at_once = match self.config.fork {
            Fork::Parallel => destinations.len().min(breadth),
            Fork::Serial | Fork::None => breadth.min(1),
        };
        if at_once == 0 && !destinations.is_empty() {
            return self.answer(now, context, 440, None, &[]);
        }
        let share = context.breadth / u32::try_from(at_once.max(1)).unwrap_or(u32::MAX);
        let mut destinations = destinations.into_iter();
        let first: Vec<_> = destinations.by_ref().take(at_once).collect();
        if self.config.fork != Fork::None {
            context.later = destinations.collect();
        }
        let from = context.branches.len();
        context.branches.extend(first.into_iter().map(|destination| Branch::new(destination, share)));
        for index in from..context.branches.len() {
            self.resolve(now, context, index);
        }
    }

    fn resolve(&mut self, now: Instant, context: &mut Context, index: usize) {
        let next = context.branches[index].destination.next.clone();
        match next {
            NextHop::Target(target) => self.targeted(now, context, index, target),
            NextHop::Host(wanted) => {
                if let Some(hop) = wanted.literal() {
                    return match self.literal_target(&wanted) {
                        Some(target) => self.targeted(now, context, index, target),
                        None => {
                            self.tell_no_listener(hop.transport, &wanted.host);
                            self.fail(now, context, index, 503, "No Socket For This Transport");
                        }
                    };
                }
                let waiting = Waiting::Resolve(context.id, index);
                context.branches[index].asking = self.ask(now, Question::Locate(wanted), waiting);
                if context.branches[index].asking.is_none() {
                    self.fail(now, context, index, 503, "Too Many Questions");
                }
            }
        }
    }

    /// Where a name leads: to the first server that we have a socket for, and that is not known to be dead; the others
    /// wait for their turn.
    pub(super) fn located_hops(
        &mut self,
        now: Instant,
        context: &mut Context,
        index: usize,
        found: Vec<Hop>,
    ) {
        let Some(branch) = context.branches.get_mut(index) else { return };
        branch.asking = None;
        let NextHop::Host(wanted) = &branch.destination.next else { return };
        let (host, server) = (wanted.host.clone(), ServerKey::of(&wanted.host));
        if found.is_empty() {
            return self.fail(now, context, index, 503, "Host Not Found");
        }
        let mut hops = self.reachable(now, found, &host);
        let target = hops.pop_front().and_then(|hop| self.address_target(hop.remote, hop.transport, server));
        let Some(target) = target else {
            return self.fail(now, context, index, 503, "No Socket For This Transport");
        };
        context.branches[index].others = hops;
        self.targeted(now, context, index, target);
    }

    /// Of the servers of a name, those that a socket of ours reaches and that are not known to be dead. That there are none
    /// without a socket is told.
    pub(super) fn reachable(&mut self, now: Instant, found: Vec<Hop>, host: &str) -> VecDeque<Hop> {
        let (server, first) = (ServerKey::of(host), found.first().copied());
        let reached: Vec<_> = found
            .into_iter()
            .filter(|hop| self.address_target(hop.remote, hop.transport, server).is_some())
            .collect();
        if let Some(first) = first
            && reached.is_empty()
        {
            self.tell_no_listener(first.transport, host);
        }
        self.dead.leave_out(now, reached).into()
    }

    /// Nobody answered on a branch, or there was no way: who is not there is left out for a while.
    pub(super) fn unreached(&mut self, now: Instant, context: &mut Context, index: usize) {
        let Some(branch) = context.branches.get_mut(index) else { return };
        branch.unreached = true;
        if let Some(Target::Address { transport, remote, .. }) = branch.target {
            self.dead.mark(now, Hop { transport, remote });
        }
    }

    /// RFC 3263 §4.3: after a time-out, a failure on the way or a 503, the next server has its turn.
    fn try_next(&mut self, now: Instant, context: &mut Context, index: usize) -> bool {
        let branch = &mut context.branches[index];
        let over = branch.unreached || matches!(branch.outcome, Some(Outcome::Response(503, _)));
        if !over || context.cancelled || context.finished {
            return false;
        }
        let NextHop::Host(wanted) = &branch.destination.next else { return false };
        let server = ServerKey::of(&wanted.host);
        if let Some(target) = branch.datagram {
            let mut again = Branch::new(branch.destination.clone(), branch.breadth);
            again.others = std::mem::take(&mut branch.others);
            again.stays_datagram = true;
            context.branches.push(again);
            let index = context.branches.len() - 1;
            self.targeted(now, context, index, target);
            return true;
        }
        let mut others = std::mem::take(&mut branch.others);
        let Some(next) = others.pop_front() else { return false };
        let mut again = Branch::new(branch.destination.clone(), branch.breadth);
        again.others = others;
        let Some(target) = self.address_target(next.remote, next.transport, server) else { return false };
        context.branches.push(again);
        let index = context.branches.len() - 1;
        self.targeted(now, context, index, target);
        true
    }

    /// The seed's first trouble: what is to be reached by a transport that we do not listen on cannot be.
    pub(super) fn tell_no_listener(&mut self, transport: Transport, host: &str) {
        let event = Event::new(Level::Warn, "no-listener")
            .with("peer", format!("{transport}:{host}"))
            .with("reason", format!("there is no --listen {transport}: with an address of the same kind"))
            .with("mend", format!("add --listen {transport}:ADDRESS, or have that host reached otherwise"));
        self.outputs.push_back(Output::Event(event));
    }

    /// It is known where it goes; now its media.
    fn targeted(&mut self, now: Instant, context: &mut Context, index: usize, target: Target) {
        let ourselves = self
            .config
            .listeners
            .iter()
            .any(|own| own.transport == target.transport() && own.local == target.remote());
        if ourselves {
            return self.fail(now, context, index, 482, "Loop Detected");
        }
        let in_dialog = context.dialog.is_some();
        let relay = self.pick_relay(now, context);
        let branch = &mut context.branches[index];
        branch.target = Some(target);
        branch.destination.peer.v6 |= target.remote().is_ipv6();
        branch.relayed = context.method.has_media()
            && relay.is_some()
            && (in_dialog
                || media::is_relayed(self.config.relay_policy, context.sender, branch.destination.peer));
        if !branch.relayed {
            return self.send_branch(now, context, index, None);
        }
        context.relay = relay;
        if !context.has_sdp {
            return self.send_branch(now, context, index, None);
        }
        let request = context.request.clone();
        let Ok(message) = Message::parse(&request) else { return };
        // Others would leave as they came, past the relay.
        if message.descriptions().len() != 1 {
            return self.fail(now, context, index, 488, "Not Acceptable Here");
        }
        let key = self.media_key(context, &message, index);
        let source = self.source(&message, &context.flow);
        let receiver = context.branches[index].destination.peer;
        let dict = media::request(
            &key,
            Half::Offer,
            message.description().unwrap_or_default(),
            context.sender,
            receiver,
            source,
        );
        let branch = &mut context.branches[index];
        branch.told = true;
        branch.asking = relay.and_then(|relay| {
            let question = Question::Relay { relay: u16::from(relay), request: dict.encode_bencode().into() };
            self.ask(now, question, Waiting::Offer(context.id, index))
        });
        if branch.asking.is_none() {
            self.fail(now, context, index, 503, "Too Many Questions");
        }
    }

    /// The relay of this call: the one that it began on, else one by its Call-ID that answers.
    fn pick_relay(&self, now: Instant, context: &Context) -> Option<u8> {
        if context.relay.is_some() || context.dialog.is_some() || self.relays.is_empty() {
            return context.relay;
        }
        let message = Message::parse(&context.request).ok()?;
        let call_id = message.call_id().unwrap_or_default();
        let hash =
            call_id.iter().fold(0usize, |hash, &byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let count = self.relays.len();
        let nth = |n: usize| hash.wrapping_add(n) % count;
        let index = (0..count).map(nth).find(|&index| self.relays[index] <= now).unwrap_or(nth(0));
        u8::try_from(index).ok()
    }

    /// What names this branch to the relay: the caller's branch and our number behind it, as in the seed.
    pub(super) fn media_key(&self, context: &Context, message: &Message<'_>, index: usize) -> Key {
        let via_branch = if context.dialog.is_none() {
            let via = message.top_via().ok().and_then(|via| via.branch());
            format!("{}{index}", lossy(via.unwrap_or_default()))
        } else {
            String::new()
        };
        Key {
            call_id: lossy(message.call_id().unwrap_or_default()),
            from_tag: lossy(message.from_tag().unwrap_or_default()),
            to_tag: lossy(message.to_tag().unwrap_or_default()),
            via_branch,
        }
    }

    /// The relay's word on an offer.
    pub(super) fn offered(&mut self, now: Instant, context: &mut Context, index: usize, verdict: Verdict) {
        let Some(branch) = context.branches.get_mut(index) else { return };
        branch.asking = None;
        match verdict {
            Verdict::Sdp(sdp) => self.send_branch(now, context, index, Some(sdp)),
            Verdict::Refused(reason) => {
                self.relay_refused(context, &reason);
                self.fail(now, context, index, 488, "Not Acceptable Here");
            }
            Verdict::Unusable => {
                context.branches[index].told = false;
                self.fail(now, context, index, 503, "Media Relay Unavailable");
            }
        }
    }

    pub(super) fn relay_refused(&mut self, context: &Context, reason: &str) {
        if let Ok(message) = Message::parse(&context.request) {
            let event = event(Level::Warn, "relay-refused", &message, &context.flow).with("reason", reason);
            self.outputs.push_back(Output::Event(event));
        }
    }

    /// RFC 3261 §18.1.1: what is near the path's MTU goes by TCP, where the other side said nothing of how it is reached
    /// and has not been found without TCP before.
    fn by_tcp(&self, now: Instant, branch: &Branch, target: Target, length: usize) -> Option<Target> {
        let Target::Address { transport: Transport::Udp, remote, server, .. } = target else { return None };
        let NextHop::Host(wanted) = &branch.destination.next else { return None };
        let hop = Hop { transport: Transport::Tcp, remote };
        let may = length > DATAGRAM
            && !branch.stays_datagram
            && branch.destination.direct
            && wanted.transport.is_none()
            && !self.dead.has(now, &hop);
        may.then(|| self.address_target(remote, Transport::Tcp, server)).flatten()
    }

    /// What went by TCP for its length is answered by nobody: perhaps nobody listens there, and something in between
    /// says nothing of it.
    pub(super) fn silent(&mut self, now: Instant, context: &mut Context, index: usize) {
        let Some(branch) = context.branches.get(index) else { return };
        if branch.heard || branch.outcome.is_some() {
            return;
        }
        if let Some(client) = branch.client {
            self.layer.cancel(now, client);
        }
        self.unreached(now, context, index);
        self.fail(now, context, index, 408, "No Answer By TCP");
    }

    fn send_branch(&mut self, now: Instant, context: &mut Context, index: usize, sdp: Option<Vec<u8>>) {
        let request = context.request.clone();
        let Ok(message) = Message::parse(&request) else { return };
        let body = sdp.map(|sdp| message.with_description(sdp));
        let branch = &context.branches[index];
        let Some(mut target) = branch.target else { return };
        let relay = context.relay.filter(|_| branch.relayed);
        // Its length decides how it goes, and how it goes changes two lines of it: those two lengths are as good as one.
        let length = message.as_bytes().len() - message.body().len()
            + body.as_ref().map_or(message.body().len(), Vec::len)
            + ADDED;
        let datagram = target;
        let switched = self.by_tcp(now, branch, target, length);
        if let Some(stream) = switched {
            target = stream;
            let branch = &mut context.branches[index];
            (branch.target, branch.datagram) = (Some(stream), Some(datagram));
        }
        let branch = &context.branches[index];
        let record_routes = match (&context.dialog, context.method) {
            (None, method) if method.makes_dialog() => {
                self.record_routes(context, &message, &branch.destination, &target, relay)
            }
            (Some(_), Kind::Notify) => match self.shown(&message, &context.flow, context.own_routes) {
                Some(shown) => self.same_record_route(&target, &shown.text),
                None => Vec::new(),
            },
            (None | Some(_), _) => Vec::new(),
        };
        let register = context.method == Kind::Register;
        let leaving = forward::Leaving {
            destination: &branch.destination,
            target,
            branch: self.layer.branch(&mut self.rng) + &context.looked_up,
            own_routes: context.own_routes,
            strip_credentials: context.authenticated,
            record_routes,
            path: if register && context.first_hop {
                self.path(context, &message, target.remote().ip())
            } else {
                None
            },
            strip_path: register && !self.path_is_believed(context, &message),
            contact: if context.alias && !register { nat::with_alias(&message, &context.flow) } else { None },
            // Without the header the next one takes the same for granted as we did.
            max_breadth: Some(branch.breadth).filter(|&breadth| breadth != context.breadth),
            body,
        };
        let via_branch = leaving.branch.clone();
        let data = self.write(&message, leaving);
        let method = message.method().to_string();
        let Some(client) = self.layer.send_request(now, target, &method, &via_branch, data) else {
            return self.fail(now, context, index, 503, "Too Many Requests");
        };
        self.by_client.insert(client, (context.id, index));
        context.branches[index].client = Some(client);
        if switched.is_some() {
            self.timers.arm(Timer::Silent(context.id, index), now + SILENCE);
        }
        if context.method == Kind::Invite {
            self.timers.arm(Timer::C(context.id, index), now + TIMER_C);
            self.timers.arm(Timer::Ring(context.id, index), now + self.config.ring_timeout);
            if context.dialog.is_none() {
                let name = relay.and_then(|relay| self.config.relays.get(usize::from(relay)));
                let event = event(Level::Info, "call-start", &message, &context.flow)
                    .with("target", format!("{}:{}", target.transport(), target.remote()))
                    .with("relay", name.map_or("none", String::as_str));
                self.outputs.push_back(Output::Event(event));
            }
        }
    }

    /// A provisional response came: timer C begins anew (§16.7 step 2).
    pub(super) fn rings(&mut self, now: Instant, context: &Context, index: usize) {
        if self.timers.due(Timer::C(context.id, index)).is_some() {
            self.timers.arm(Timer::C(context.id, index), now + TIMER_C);
        }
    }

    /// Nobody answered in time: the branch is cancelled, and counts as 408.
    pub(super) fn ring_timeout(&mut self, now: Instant, context: &mut Context, index: usize) {
        let Some(client) = context.branches.get(index).and_then(|branch| branch.client) else { return };
        if context.branches[index].outcome.is_none() {
            self.layer.cancel(now, client);
            self.fail(now, context, index, 408, "Nobody Answered");
        }
    }

    fn fail(&mut self, now: Instant, context: &mut Context, index: usize, status: u16, reason: &'static str) {
        self.branch_failed(now, context, index, Outcome::Local(status, reason));
    }

    /// A branch has ended without success.
    pub(super) fn branch_failed(
        &mut self,
        now: Instant,
        context: &mut Context,
        index: usize,
        outcome: Outcome,
    ) {
        let outcome = match outcome {
            Outcome::Response(status, data) if !self.has_room(data.len()) => {
                Outcome::Local(status, crate::sip::status::reason(status))
            }
            other => other,
        };
        let Some(branch) = context.branches.get_mut(index) else { return };
        if branch.outcome.is_some() {
            return;
        }
        let status = outcome.status();
        branch.outcome = Some(outcome);
        self.quiet(context, index);
        let next = self.try_next(now, context, index);
        // In a dialog a request that fails leaves the session as it was (RFC 3261 §14.1).
        let told = std::mem::take(&mut context.branches[index].told) && context.dialog.is_none();
        let alone =
            context.branches.iter().all(|branch| branch.outcome.is_some()) && context.later.is_empty();
        if told && !(next && alone) {
            let relay = context.relay;
            if let Ok(message) = Message::parse(&context.request.clone()) {
                let mut key = self.media_key(context, &message, index);
                if alone && !context.finished {
                    // The last one: nothing of the call is left.
                    key.via_branch.clear();
                }
                self.delete_media(now, relay, key);
            }
        }
        if status >= 600 {
            context.later.clear();
            self.cancel_others(now, context, index);
        }
        self.proceed(now, context);
    }

    /// The next branch, or the end.
    fn proceed(&mut self, now: Instant, context: &mut Context) {
        if context.finished || context.branches.iter().any(|branch| branch.outcome.is_none()) {
            return;
        }
        if !context.cancelled
            && let Some(next) = context.later.pop_front()
        {
            context.branches.push(Branch::new(next, context.breadth));
            let index = context.branches.len() - 1;
            return self.resolve(now, context, index);
        }
        let best = context
            .branches
            .iter()
            .filter_map(|branch| branch.outcome.as_ref())
            .min_by_key(|outcome| rank(outcome.status()));
        match best.cloned() {
            Some(Outcome::Response(status, data)) => {
                context.finished = true;
                if let Ok(message) = Message::parse(&context.request.clone()) {
                    let reason =
                        Message::parse(&data).map(|response| lossy(response.reason())).unwrap_or_default();
                    self.tell(context, &message, status, &reason);
                }
                self.layer.respond(now, context.server, status, data);
            }
            Some(Outcome::Local(408, _)) if context.method != Kind::Invite => {
                // RFC 4320 §4.2: no 408 to what is not an INVITE; the client's own timer tells it.
                context.finished = true;
                self.layer.drop_server(context.server);
            }
            Some(Outcome::Local(status, reason)) => {
                let headers: &[_] = if status == 503 { &[("Retry-After", "5")] } else { &[] };
                self.answer(now, context, status, Some(reason), headers);
            }
            None => self.answer(now, context, if context.cancelled { 487 } else { 404 }, None, &[]),
        }
    }

    /// The caller hung up before anybody answered.
    pub(super) fn cancel_all(&mut self, now: Instant, context: &mut Context) {
        if context.finished || std::mem::replace(&mut context.cancelled, true) {
            return;
        }
        if let Ok(message) = Message::parse(&context.request.clone()) {
            let event = event(Level::Info, "call-cancelled", &message, &context.flow);
            self.outputs.push_back(Output::Event(event));
        }
        context.later.clear();
        if let Some(ticket) = context.asking.take() {
            self.drop_ticket(ticket);
        }
        self.cancel_others(now, context, usize::MAX);
        self.proceed(now, context);
    }

    /// Ends every branch but one: what is on its way is cancelled, and its final response awaited.
    pub(super) fn cancel_others(&mut self, now: Instant, context: &mut Context, but: usize) {
        for index in 0..context.branches.len() {
            let branch = &context.branches[index];
            if index == but || branch.outcome.is_some() {
                continue;
            }
            match branch.client {
                Some(client) => self.layer.cancel(now, client),
                None => self.fail(now, context, index, 487, "Request Terminated"),
            }
        }
    }

    /// Nothing more is waited for on a branch.
    pub(super) fn quiet(&mut self, context: &mut Context, index: usize) {
        self.timers.disarm(Timer::C(context.id, index));
        self.timers.disarm(Timer::Ring(context.id, index));
        self.timers.disarm(Timer::Silent(context.id, index));
        if let Some(ticket) = context.branches[index].asking.take() {
            self.drop_ticket(ticket);
        }
        context.branches[index].waiting.clear();
    }

    /// The transaction is over: nothing of it stays.
    pub(super) fn forget(&mut self, context: &mut Context) {
        if let Some(ticket) = context.asking.take() {
            self.drop_ticket(ticket);
        }
        for index in 0..context.branches.len() {
            self.quiet(context, index);
        }
    }

    /// Tells the relay that a branch or a call is over.
    pub(super) fn delete_media(&mut self, now: Instant, relay: Option<u8>, key: Key) {
        let Some(relay) = relay else { return };
        let request = media::delete(&key).encode_bencode().into();
        self.ask(now, Question::Relay { relay: u16::from(relay), request }, Waiting::Delete(key));
    }
}

/// §16.7 step 6: a 6xx first; else the lowest class, and within 4xx what tells the client how to go on.
fn rank(status: u16) -> (u16, u16) {
    let class = status / 100;
    match (class, status) {
        (6, _) => (0, status),
        (4, 401 | 407 | 415 | 420 | 484) => (class, 0),
        // Somebody is there: better than a branch that nobody answered or that is not there.
        (4, 486 | 487) => (class, 1),
        (4, 404 | 408 | 480 | 481) => (class, 3),
        (4, _) => (class, 2),
        (_, _) => (class, status),
    }
}

/// Contact of a response whose sender is behind a NAT and next to us.
pub(super) fn response_contact(
    message: &Message<'_>,
    destination: &Destination,
    flow: &crate::flow::Flow,
) -> Option<Vec<u8>> {
    message.header(Name::Contact)?;
    if destination.direct && !destination.foreign && nat::is_natted(message, flow) {
        nat::with_alias(message, flow)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn chooses_as_16_7_says() {
        let best = |codes: &[u16]| codes.iter().copied().min_by_key(|&code| rank(code));
        assert_eq!(best(&[486, 603, 404]), Some(603));
        assert_eq!(best(&[503, 404]), Some(404));
        assert_eq!(best(&[302, 404]), Some(302));
        assert_eq!(best(&[486, 407]), Some(407));
        assert_eq!(best(&[408, 486]), Some(486));
        assert_eq!(best(&[503, 500]), Some(500));
    }
}
