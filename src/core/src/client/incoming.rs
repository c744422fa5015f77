//! The user agent as a server: requests that come.
//!
//! RFC 3261 §12.2.2, §13.3, §15.1.2, §9.2. In: a request that passed the checks. Out: its answers, and notices for the user.
//! Not here: transactions (`transaction`), responses (`outcome`).

use super::*;

impl UserAgent {
    pub(super) fn receive_request(
        &mut self,
        now: Instant,
        message: &Message<'_>,
        data: &Bytes,
        reply_to: Target,
    ) {
        match self.layer.receive_request(now, &RequestId::of(message), reply_to) {
            Received::New(id) => self.new_request(now, id, message, data),
            Received::Cancel { id, invite } => self.cancel_request(now, id, invite, data),
            Received::Ack(_) => self.acknowledged(message),
            Received::Absorbed => {}
            Received::Overload => {
                let response = build::response(message, 503, None, None, &[], b"");
                self.layer.send_stateless(reply_to, response.into());
            }
        }
    }

    pub(super) fn new_request(&mut self, now: Instant, id: ServerId, message: &Message<'_>, data: &Bytes) {
        if message.to_tag().is_some() {
            return self.in_dialog(now, id, message, data);
        }
        match message.method() {
            Method::Invite if self.in_call() => self.respond(now, id, data, 486, None, &[]),
            Method::Invite => {
                let (Some(offer), Ok(from)) = (text(message.body()), header(message, Name::From)) else {
                    return self.respond(now, id, data, 400, None, &[]);
                };
                let local_tag = self.rng.token(10);
                self.call = Call::Incoming { invite: id, request: data.clone(), local_tag };
                self.notices.push_back(Notice::Incoming { from, offer });
            }
            Method::Options => self.respond(now, id, data, 200, None, &[("Allow", ALLOW)]),
            Method::Bye | Method::Info | Method::Update => self.respond(now, id, data, 481, None, &[]),
            Method::Ack
            | Method::Cancel
            | Method::Register
            | Method::Prack
            | Method::Subscribe
            | Method::Notify
            | Method::Refer
            | Method::Message
            | Method::Publish
            | Method::Other(_) => self.respond(now, id, data, 405, None, &[("Allow", ALLOW)]),
        }
    }

    pub(super) fn in_dialog(&mut self, now: Instant, id: ServerId, message: &Message<'_>, data: &Bytes) {
        let dialog = match &mut self.call {
            Call::Up { dialog, .. } | Call::Answering { dialog, .. } if dialog.has(message) => dialog,
            Call::None
            | Call::Outgoing { .. }
            | Call::Incoming { .. }
            | Call::Up { .. }
            | Call::Answering { .. } => {
                return self.respond(now, id, data, 481, None, &[]);
            }
        };
        let Ok((cseq, method)) = message.cseq() else { return };
        // §12.2.2: an older request is out of order.
        if dialog.remote_cseq.is_some_and(|last| cseq < last) {
            return self.respond(now, id, data, 500, None, &[]);
        }
        dialog.remote_cseq = Some(cseq);
        match method {
            Method::Bye => {
                self.call = Call::None;
                self.respond(now, id, data, 200, None, &[]);
                self.notices.push_back(Notice::Ended { by: Side::Peer });
            }
            Method::Info | Method::Options => self.respond(now, id, data, 200, None, &[("Allow", ALLOW)]),
            Method::Update if message.body().is_empty() => {
                let contact = self.contact();
                self.respond(now, id, data, 200, None, &[("Contact", &contact)]);
            }
            // The session stays as it was agreed (§14.2).
            Method::Invite | Method::Update => self.respond(now, id, data, 488, None, &[]),
            Method::Ack
            | Method::Cancel
            | Method::Register
            | Method::Prack
            | Method::Subscribe
            | Method::Notify
            | Method::Refer
            | Method::Message
            | Method::Publish
            | Method::Other(_) => self.respond(now, id, data, 405, None, &[("Allow", ALLOW)]),
        }
    }

    pub(super) fn cancel_request(
        &mut self,
        now: Instant,
        id: ServerId,
        invite: Option<ServerId>,
        data: &Bytes,
    ) {
        let status = if invite.is_some() { 200 } else { 481 };
        self.respond(now, id, data, status, None, &[]);
        let Call::Incoming { invite: ours, request, local_tag } = &self.call else { return };
        if invite != Some(*ours) {
            return;
        }
        let (ours, request, tag) = (*ours, request.clone(), local_tag.clone());
        self.call = Call::None;
        self.respond(now, ours, &request, 487, Some(&tag), &[]);
        self.notices.push_back(Notice::Ended { by: Side::Peer });
    }

    pub(super) fn acknowledged(&mut self, message: &Message<'_>) {
        match std::mem::replace(&mut self.call, Call::None) {
            Call::Answering { dialog, .. } if dialog.has(message) => {
                self.call = Call::Up { dialog, ack: None };
                self.notices.push_back(Notice::Established);
            }
            other => self.call = other,
        }
    }

    pub(super) fn respond(
        &mut self,
        now: Instant,
        id: ServerId,
        request: &Bytes,
        status: u16,
        tag: Option<&str>,
        headers: &[(&str, &str)],
    ) {
        let Ok(message) = Message::parse(request) else { return };
        let fresh;
        let tag = match tag {
            Some(tag) => tag,
            None => {
                fresh = self.rng.token(10);
                &fresh
            }
        };
        let response = build::response(&message, status, None, Some(tag), headers, b"");
        self.layer.respond(now, id, status, response.into());
    }
}
