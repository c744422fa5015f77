//! What became of a request of ours: responses that come, and time-outs.
//!
//! RFC 3261 §10.2, §13.2.2, §22.2. In: a response, or its absence. Out: another try, a dialog, notices for the user.
//! Not here: writing requests (`outgoing`).

use super::*;

impl UserAgent {
    pub(super) fn receive_response(&mut self, now: Instant, message: &Message<'_>) {
        let Some(id) = ResponseId::of(message) else { return };
        match self.layer.receive_response(now, &id) {
            Answered::Pass(id) if message.status() < 200 => {
                if message.status() > 100 && self.purpose(id) == Some(Purpose::Invite) {
                    let sdp = text(message.body()).filter(|body| !body.is_empty());
                    self.notices.push_back(Notice::Progress { status: message.status(), sdp });
                }
            }
            Answered::Pass(id) => {
                let reason = text(message.reason()).unwrap_or_default();
                self.finished(now, id, message.status(), &reason, Some(message));
            }
            Answered::Absorbed | Answered::Stray => {}
        }
    }

    pub(super) fn purpose(&self, id: ClientId) -> Option<Purpose> {
        self.pending.iter().find(|pending| pending.id == id).map(|pending| pending.purpose)
    }

    /// The final answer to a request of ours; without a message it never came.
    pub(super) fn finished(
        &mut self,
        now: Instant,
        id: ClientId,
        status: u16,
        reason: &str,
        message: Option<&Message<'_>>,
    ) {
        let Some(at) = self.pending.iter().position(|pending| pending.id == id) else { return };
        let (purpose, challenges) = (self.pending[at].purpose, self.pending[at].challenges);
        if let Some(message) = message
            && matches!(status, 401 | 407)
            && challenges < CHALLENGES
            && let Some(credentials) = self.credentials(message, purpose, challenges)
        {
            self.pending.remove(at);
            return self.send_again(now, purpose, credentials, challenges + 1);
        }
        match purpose {
            Purpose::Register { expires } => {
                self.pending.remove(at);
                self.register_finished(now, expires, status, reason, message);
            }
            // It stays, since each further 2xx comes up too; the end of its transaction takes it away.
            Purpose::Invite => self.invite_finished(now, id, status, reason, message),
            Purpose::Bye => drop(self.pending.remove(at)),
        }
    }

    pub(super) fn register_finished(
        &mut self,
        now: Instant,
        asked: Duration,
        status: u16,
        reason: &str,
        message: Option<&Message<'_>>,
    ) {
        let Some(message) = message.filter(|_| (200..300).contains(&status)) else {
            // 423: the least that it takes (§10.2.8).
            if let (423, Some(message)) = (status, message)
                && let Some(least) = message.header(Name::MinExpires).map(sip::seconds)
                && Duration::from_secs(least.into()) > asked
                && !asked.is_zero()
            {
                return self.send_register(now, Duration::from_secs(least.into()), None, 0);
            }
            self.notices.push_back(Notice::NotRegistered { status, reason: reason.to_owned() });
            return;
        };
        if asked.is_zero() {
            self.notices.push_back(Notice::Unregistered);
            return;
        }
        let ours = self.contact_uri();
        let granted = message
            .contacts()
            .filter_map(Result::ok)
            .find(|contact| contact.uri.as_bytes() == ours.as_bytes())
            .and_then(|contact| contact.params.get("expires").map(sip::seconds))
            .or_else(|| message.expires());
        let expires = granted.map_or(asked, |seconds| Duration::from_secs(seconds.into()));
        // Early enough for a lost request and its repetitions, and never in a tight loop.
        let margin = (expires / 10).max(Duration::from_secs(5)).min(expires / 2);
        self.refresh_at = Some(now + (expires - margin).max(Duration::from_secs(1)));
        self.notices.push_back(Notice::Registered { expires });
    }

    pub(super) fn invite_finished(
        &mut self,
        now: Instant,
        id: ClientId,
        status: u16,
        reason: &str,
        message: Option<&Message<'_>>,
    ) {
        if let (200..300, Some(message)) = (status, message) {
            return self.invite_accepted(now, message);
        }
        match &self.call {
            Call::Outgoing { invite, cancelled, .. } if *invite == id => {
                let cancelled = *cancelled;
                self.call = Call::None;
                self.notices.push_back(match (cancelled, status) {
                    (true, 487) => Notice::Ended { by: Side::Us },
                    _ => Notice::Failed { status, reason: reason.to_owned() },
                });
            }
            Call::None
            | Call::Outgoing { .. }
            | Call::Incoming { .. }
            | Call::Answering { .. }
            | Call::Up { .. } => {}
        }
    }

    /// A 2xx: acknowledged, whatever comes of it (§13.2.2.4).
    pub(super) fn invite_accepted(&mut self, now: Instant, message: &Message<'_>) {
        let Ok((cseq, _)) = message.cseq() else { return };
        let Ok(mut dialog) = Dialog::from_response(message, cseq) else { return };
        if let Call::Up { dialog: known, ack } = &self.call
            && known.call_id == dialog.call_id
        {
            if known.remote_tag == dialog.remote_tag {
                if let Some(ack) = ack.clone() {
                    self.layer.send_stateless(self.config.target, ack);
                }
                return;
            }
            // A second phone took the same call: it is told that it is too late.
            let ack = self.in_dialog_request(&dialog, "ACK", cseq, None).0;
            self.layer.send_stateless(self.config.target, ack);
            dialog.local_cseq += 1;
            self.bye(now, &dialog, None, 0);
            return;
        }
        let (credentials, cancelled, answer) = match &self.call {
            Call::Outgoing { call_id, credentials, cancelled, .. } if *call_id == dialog.call_id => {
                (credentials.clone(), *cancelled, text(message.body()).unwrap_or_default())
            }
            // A repetition of what we hung up: only acknowledged.
            Call::None
            | Call::Outgoing { .. }
            | Call::Incoming { .. }
            | Call::Answering { .. }
            | Call::Up { .. } => {
                let ack = self.in_dialog_request(&dialog, "ACK", cseq, None).0;
                return self.layer.send_stateless(self.config.target, ack);
            }
        };
        let ack = self.in_dialog_request(&dialog, "ACK", cseq, credentials.as_ref()).0;
        self.layer.send_stateless(self.config.target, ack.clone());
        self.call = Call::Up { dialog, ack: Some(ack) };
        if cancelled {
            // The answer and our CANCEL crossed.
            self.send_bye(now);
            self.notices.push_back(Notice::Ended { by: Side::Us });
        } else {
            self.notices.push_back(Notice::Answered { answer });
        }
    }
}
