//! Requests that go: REGISTER, INVITE, BYE, and what is in a dialog.
//!
//! RFC 3261 §8.1.1, §10.2, §12.2.1, §13.2.1. In: whom to reach, credentials where a challenge came. Out: a request on its way.
//! Not here: what becomes of it (`outcome`).

use super::*;

impl UserAgent {
    pub(super) fn aor(&self) -> String {
        format!("sip:{}@{}", self.config.user, self.config.domain)
    }

    pub(super) fn transport(&self) -> Transport {
        self.config.target.transport()
    }

    pub(super) fn contact_uri(&self) -> String {
        let Config { user, sent_by, .. } = &self.config;
        match self.transport() {
            Transport::Udp => format!("sip:{user}@{sent_by}"),
            transport => format!("sip:{user}@{sent_by};transport={}", transport.uri_param()),
        }
    }

    pub(super) fn contact(&self) -> String {
        format!("<{}>", self.contact_uri())
    }

    pub(super) fn via(&mut self) -> (String, String) {
        let branch = self.layer.branch(&mut self.rng);
        let via = format!("SIP/2.0/{} {};rport;branch={branch}", self.transport().via(), self.config.sent_by);
        (branch, via)
    }

    pub(super) fn send(&mut self, now: Instant, method: &str, branch: &str, data: Bytes) -> Option<ClientId> {
        self.layer.send_request(now, self.config.target, method, branch, data)
    }

    pub(super) fn send_again(
        &mut self,
        now: Instant,
        purpose: Purpose,
        credentials: (&'static str, String),
        challenges: u8,
    ) {
        match purpose {
            Purpose::Register { expires } => self.send_register(now, expires, Some(credentials), challenges),
            Purpose::Invite => match std::mem::replace(&mut self.call, Call::None) {
                Call::Outgoing { cancelled: true, .. } => {
                    self.notices.push_back(Notice::Ended { by: Side::Us });
                }
                Call::Outgoing { cseq, call_id, local, remote, uri, offer, .. } => {
                    let invite = Invite { cseq: cseq + 1, call_id, local, remote, uri, offer };
                    self.send_invite(now, invite, Some(credentials), challenges);
                }
                other => self.call = other,
            },
            // Our call is over for us; a server that wants a password for that does not get to keep it.
            Purpose::Bye => {}
        }
    }

    pub(super) fn send_register(
        &mut self,
        now: Instant,
        expires: Duration,
        credentials: Option<(&'static str, String)>,
        challenges: u8,
    ) {
        self.register_cseq += 1;
        let (branch, via) = self.via();
        let aor = self.aor();
        let mut contact = self.contact();
        if let Some(instance) = &self.config.instance {
            contact.push_str(&format!(";reg-id=1;+sip.instance=\"<{instance}>\""));
        }
        contact.push_str(&format!(";expires={}", expires.as_secs()));
        let from = format!("<{aor}>;tag={}", self.register_tag);
        let to = format!("<{aor}>");
        let cseq = format!("{} REGISTER", self.register_cseq);
        let seconds = expires.as_secs().to_string();
        let mut headers = vec![
            ("Via", via.as_str()),
            ("Max-Forwards", "70"),
            ("From", from.as_str()),
            ("To", to.as_str()),
            ("Call-ID", self.register_call_id.as_str()),
            ("CSeq", cseq.as_str()),
            ("Contact", contact.as_str()),
            ("Expires", seconds.as_str()),
            ("Supported", "path, outbound, gruu"),
            ("Allow", ALLOW),
            ("User-Agent", self.config.agent.as_str()),
        ];
        if let Some((name, value)) = &credentials {
            headers.push((name, value));
        }
        let uri = format!("sip:{}", self.config.domain);
        let data: Bytes = compose::request("REGISTER", &uri, &headers, b"").into();
        match self.send(now, "REGISTER", &branch, data) {
            Some(id) => self.pending.push(Pending { id, purpose: Purpose::Register { expires }, challenges }),
            None => self
                .notices
                .push_back(Notice::NotRegistered { status: 503, reason: "too much under way".into() }),
        }
    }

    pub(super) fn send_invite(
        &mut self,
        now: Instant,
        invite: Invite,
        credentials: Option<(&'static str, String)>,
        challenges: u8,
    ) {
        let (branch, via) = self.via();
        let (contact, cseq) = (self.contact(), format!("{} INVITE", invite.cseq));
        let mut headers = vec![
            ("Via", via.as_str()),
            ("Max-Forwards", "70"),
            ("From", invite.local.as_str()),
            ("To", invite.remote.as_str()),
            ("Call-ID", invite.call_id.as_str()),
            ("CSeq", cseq.as_str()),
            ("Contact", contact.as_str()),
            ("Supported", "outbound"),
            ("Allow", ALLOW),
            ("User-Agent", self.config.agent.as_str()),
            ("Content-Type", "application/sdp"),
        ];
        if let Some((name, value)) = &credentials {
            headers.push((name, value));
        }
        let data: Bytes = compose::request("INVITE", &invite.uri, &headers, invite.offer.as_bytes()).into();
        let Some(id) = self.send(now, "INVITE", &branch, data) else {
            self.notices.push_back(Notice::Failed { status: 503, reason: "too much under way".into() });
            return;
        };
        self.pending.push(Pending { id, purpose: Purpose::Invite, challenges });
        let Invite { cseq, call_id, local, remote, uri, offer } = invite;
        self.call = Call::Outgoing {
            invite: id,
            cseq,
            call_id,
            local,
            remote,
            uri,
            offer,
            credentials,
            cancelled: false,
        };
    }

    pub(super) fn send_bye(&mut self, now: Instant) {
        match std::mem::replace(&mut self.call, Call::None) {
            Call::Up { mut dialog, .. } | Call::Answering { mut dialog, .. } => {
                dialog.local_cseq += 1;
                self.bye(now, &dialog, None, 0);
            }
            other => self.call = other,
        }
    }

    pub(super) fn bye(
        &mut self,
        now: Instant,
        dialog: &Dialog,
        credentials: Option<&(&'static str, String)>,
        challenges: u8,
    ) {
        let (data, branch) = self.in_dialog_request(dialog, "BYE", dialog.local_cseq, credentials);
        if let Some(id) = self.send(now, "BYE", &branch, data) {
            self.pending.push(Pending { id, purpose: Purpose::Bye, challenges });
        }
    }

    /// §12.2.1.1. Its proxies are ours, and loose.
    pub(super) fn in_dialog_request(
        &mut self,
        dialog: &Dialog,
        method: &str,
        cseq: u32,
        credentials: Option<&(&'static str, String)>,
    ) -> (Bytes, String) {
        let (branch, via) = self.via();
        let cseq = format!("{cseq} {method}");
        let mut headers = vec![("Via", via.as_str()), ("Max-Forwards", "70")];
        headers.extend(dialog.route.iter().map(|route| ("Route", route.as_str())));
        headers.extend([
            ("From", dialog.local.as_str()),
            ("To", dialog.remote.as_str()),
            ("Call-ID", dialog.call_id.as_str()),
            ("CSeq", cseq.as_str()),
            ("User-Agent", self.config.agent.as_str()),
        ]);
        if let Some((name, value)) = credentials {
            headers.push((name, value));
        }
        (compose::request(method, &dialog.target, &headers, b"").into(), branch)
    }

    /// The header that answers a challenge (RFC 3261 §22.2, RFC 2617 §3.2.2); None where there is nothing to try.
    pub(super) fn credentials(
        &mut self,
        message: &Message<'_>,
        purpose: Purpose,
        challenges: u8,
    ) -> Option<(&'static str, String)> {
        let (header, challenge) = auth::digest::Challenge::of(message)?;
        // A second challenge that is not stale means: wrong password.
        if challenges > 0 && !challenge.stale {
            return None;
        }
        let (method, uri) = match (purpose, &self.call) {
            (Purpose::Register { .. }, _) => ("REGISTER", format!("sip:{}", self.config.domain)),
            (Purpose::Invite, Call::Outgoing { uri, .. }) => ("INVITE", uri.clone()),
            (Purpose::Invite | Purpose::Bye, _) => return None,
        };
        let cnonce = self.rng.token(16);
        let Config { user, password, .. } = &self.config;
        // Each challenge brings a fresh nonce, so its count is always 1.
        Some((header, challenge.answer(user, password, method, &uri, 1, &cnonce)))
    }
}

/// The parts of an INVITE that stay the same when it is sent again with credentials.
pub(super) struct Invite {
    pub(super) cseq: u32,
    pub(super) call_id: String,
    pub(super) local: String,
    pub(super) remote: String,
    pub(super) uri: String,
    pub(super) offer: String,
}
