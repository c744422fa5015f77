//! A callee that answered when nobody is there for it any more.
//!
//! RFC 3261 §16.7 would have us pass each 2xx on; that ends where the caller has another final answer already (the ring
//! time-out, a 6xx of another branch), or where the relay has no media for it. A callee that hears nothing repeats its
//! 2xx for 32 s with an open line. So it gets what the caller would give it: an ACK for each copy, and one BYE
//! (§13.2.2.4, §15). A request in a dialog gets the ACK only: the session that stands is both sides' to end.

use super::context::Context;
use super::{Proxy, event, forward, lossy};
use crate::flow::Target;
use crate::machine::{Level, Output};
use crate::sip::{Message, Name, NameAddr, Uri, build};
use crate::time::Instant;

/// 2xx with different To tags that one branch may bring: a proxy behind us forked, too.
const MOST_ORPHANS: usize = 8;

impl Proxy {
    /// `message`: the 2xx to an INVITE, as it came.
    pub(super) fn hang_up(
        &mut self,
        now: Instant,
        context: &mut Context,
        index: usize,
        message: &Message<'_>,
    ) {
        let Ok(request) = Message::parse(&context.request) else { return };
        let (Ok((number, _)), Some(tag)) = (message.cseq(), message.to_tag()) else { return };
        let branch = &mut context.branches[index];
        let Some(first_target) = branch.target else { return };
        let known = branch.hung_up.iter().any(|known| **known == *tag);
        if !known {
            if branch.hung_up.len() >= MOST_ORPHANS {
                return;
            }
            branch.hung_up.push(tag.into());
        }
        let destination = &branch.destination;
        let contact = message.contacts().find_map(Result::ok).map(|contact| contact.uri.as_bytes());
        let uri = lossy(contact.unwrap_or(&destination.uri));
        let routes: Vec<String> = if context.dialog.is_some() {
            let kept = request.values(Name::Route).skip(context.own_routes);
            let own = destination.routes.iter().map(Vec::as_slice);
            own.chain(kept.filter(|_| destination.keep_routes)).map(lossy).collect()
        } else {
            // What stands above our own value is behind us, the nearest last.
            let ours = |value: &&[u8]| {
                NameAddr::parse(value).is_ok_and(|own| self.is_ours(own.uri.host, own.uri.port))
            };
            let mut behind: Vec<_> =
                message.values(Name::RecordRoute).take_while(|value| !ours(value)).map(lossy).collect();
            behind.reverse();
            behind
        };
        let target = self.orphan_target(destination.foreign, first_target, &routes, &uri);
        let ack = self.request_to_orphan("ACK", number, message, target, &uri, &routes);
        self.layer.send_stateless(target, ack.1);
        if known || context.dialog.is_some() {
            return;
        }
        let (branch, bye) =
            self.request_to_orphan("BYE", number.saturating_add(1), message, target, &uri, &routes);
        // Its answer is nobody's business.
        self.layer.send_request(now, target, "BYE", &branch, bye);
        let told = event(Level::Warn, "hung-up", message, &context.flow)
            .with("reason", "answered when the caller could not have it any more");
        self.outputs.push_back(Output::Event(told));
    }

    /// A client of ours is where its INVITE went; a server of others is reached as it says, where that is an address.
    fn orphan_target(&self, foreign: bool, first: Target, routes: &[String], uri: &str) -> Target {
        let next = match routes.first() {
            Some(route) => {
                NameAddr::parse(route.as_bytes()).ok().and_then(|route| forward::next_hop(&route.uri))
            }
            None => Uri::parse(uri.as_bytes()).ok().and_then(|uri| forward::next_hop(&uri)),
        };
        match next {
            Some(super::context::NextHop::Host(wanted)) if foreign => {
                self.literal_target(&wanted).unwrap_or(first)
            }
            Some(_) | None => first,
        }
    }

    fn request_to_orphan(
        &mut self,
        method: &str,
        number: u32,
        answer: &Message<'_>,
        target: Target,
        uri: &str,
        routes: &[String],
    ) -> (String, bytes::Bytes) {
        let branch = self.layer.branch(&mut self.rng);
        let via = self.via(&target, &branch);
        let copy = |name| lossy(&crate::sip::unfold(answer.header(name).unwrap_or_default()));
        let (from, to, call_id) = (copy(Name::From), copy(Name::To), copy(Name::CallId));
        let cseq = format!("{number} {method}");
        let mut headers = vec![("Via", via.as_str()), ("Max-Forwards", "70")];
        headers.extend(routes.iter().map(|route| ("Route", route.as_str())));
        headers.extend([
            ("From", from.as_str()),
            ("To", to.as_str()),
            ("Call-ID", call_id.as_str()),
            ("CSeq", cseq.as_str()),
        ]);
        let data = build::request(method, uri, &headers, b"");
        (branch, data.into())
    }
}
