//! A watcher: subscribes to one presentity, and hands out each state that it is told.
//!
//! RFC 6665 §4.1 (subscriber), RFC 3856, §22 of RFC 3261 (digest). In go packets from its one server and the wish to stop; out come
//! messages, and [`News`]. It refreshes before its time is over, subscribes anew where a dialog is gone, and ends its
//! subscription when it is told to. Not here: what a document says, sockets.

use super::compose;
use super::dialog::{Dialog, header};
use super::text;
use crate::auth;
use crate::flow::{Flow, Target, Transport};
use crate::rng::Rng;
use crate::sip::{self, Message, Method, Name, build};
use crate::time::Instant;
use crate::transaction::{Answered, ClientId, Event, Layer, Received, RequestId, ResponseId};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;

/// Challenges that one request may answer: the proxy's, the server's, and one that says `stale`.
const CHALLENGES: u8 = 3;
/// How long before a subscription that was lost is made again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the last NOTIFY is waited for.
const LAST: Duration = Duration::from_secs(2);

/// Who watches whom, and how its server is reached.
#[derive(Clone, Debug)]
pub struct Config {
    pub user: String,
    pub domain: String,
    pub password: String,
    /// Whom it watches.
    pub uri: String,
    /// The package, as in Event.
    pub event: &'static str,
    /// What its documents are.
    pub accept: &'static str,
    /// All requests go here.
    pub target: Target,
    /// HOST:PORT in Via and Contact.
    pub sent_by: String,
    /// Asked for.
    pub expires: Duration,
    /// In User-Agent.
    pub agent: String,
}

/// News for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Notified {
        /// `active`, `pending` or `terminated`.
        state: String,
        reason: Option<String>,
        /// In seconds.
        expires: Option<u32>,
        content_type: String,
        body: String,
    },
    /// The server's final answer; 408 for none.
    Refused { status: u16, reason: String },
    /// It was stopped, and its server knows.
    Ended,
}

struct Pending {
    id: ClientId,
    expires: Duration,
    challenges: u8,
}

/// The watcher.
pub struct Watcher {
    config: Config,
    rng: Rng,
    layer: Layer,
    call_id: String,
    tag: String,
    cseq: u32,
    dialog: Option<Dialog>,
    /// CSeq of the latest NOTIFY.
    notified: Option<u32>,
    pending: Option<Pending>,
    refresh_at: Option<Instant>,
    /// It was told to stop; by then it has.
    stop_by: Option<Instant>,
    news: VecDeque<News>,
}

impl Watcher {
    pub fn new(config: Config, now: Instant, mut rng: Rng) -> Self {
        let layer = Layer::new(&mut rng, 0);
        let (call_id, tag) = (rng.token(22), rng.token(10));
        let mut watcher = Watcher {
            config,
            rng,
            layer,
            call_id,
            tag,
            cseq: 0,
            dialog: None,
            notified: None,
            pending: None,
            refresh_at: None,
            stop_by: None,
            news: VecDeque::new(),
        };
        let expires = watcher.config.expires;
        watcher.subscribe(now, expires, None, 0);
        watcher
    }

    /// Ends the subscription; [`News::Ended`] comes when that is done, or it is too late.
    pub fn stop(&mut self, now: Instant) {
        if self.stop_by.is_some() {
            return;
        }
        self.stop_by = Some(now + LAST);
        self.refresh_at = None;
        if self.dialog.is_some() {
            self.subscribe(now, Duration::ZERO, None, 0);
        } else {
            self.news.push_back(News::Ended);
        }
    }

    pub fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    pub fn poll_transmit(&mut self) -> Option<(Target, Bytes)> {
        self.layer.poll_transmit()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.layer.poll_timeout(), self.refresh_at, self.stop_by].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.layer.handle_timeout(now);
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            let expires = self.config.expires;
            self.subscribe(now, expires, None, 0);
        }
        if self.stop_by.is_some_and(|at| at <= now) {
            self.stop_by = Some(Instant(u64::MAX));
            self.news.push_back(News::Ended);
        }
        self.drain_events(now);
    }

    /// One whole message came.
    pub fn handle_packet(&mut self, now: Instant, flow: Flow, data: &Bytes) {
        let Ok(message) = Message::parse(data) else { return };
        if message.check().is_err() {
            return;
        }
        if message.is_request() {
            self.request(now, &message, Target::Flow(flow));
        } else if let Some(id) = ResponseId::of(&message)
            && let Answered::Pass(id) = self.layer.receive_response(now, &id)
            && message.status() >= 200
        {
            let reason = text(message.reason()).unwrap_or_default();
            self.answered(now, id, message.status(), &reason, Some(&message));
        }
        self.drain_events(now);
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.layer.poll_event() {
            match event {
                Event::TimedOut(id) => self.answered(now, id, 408, "no answer", None),
                Event::TransportFailed(id) => self.answered(now, id, 503, "could not be sent", None),
                Event::ClientEnded(_) | Event::Unacknowledged(_) | Event::ServerEnded(_) => {}
            }
        }
    }

    /// SUBSCRIBE: a new one, or in its dialog.
    fn subscribe(
        &mut self,
        now: Instant,
        expires: Duration,
        credentials: Option<(&'static str, String)>,
        challenges: u8,
    ) {
        self.cseq += 1;
        let branch = self.layer.branch(&mut self.rng);
        let transport = self.config.target.transport();
        let via = format!("SIP/2.0/{} {};branch={branch};rport", transport.via(), self.config.sent_by);
        let contact = match transport {
            Transport::Udp => format!("<sip:{}@{}>", self.config.user, self.config.sent_by),
            transport => {
                let parameter = transport.uri_param();
                format!("<sip:{}@{};transport={parameter}>", self.config.user, self.config.sent_by)
            }
        };
        let aor = format!("sip:{}@{}", self.config.user, self.config.domain);
        let (uri, from, to) = match &self.dialog {
            Some(dialog) => (dialog.target.clone(), dialog.local.clone(), dialog.remote.clone()),
            None => {
                let uri = &self.config.uri;
                (uri.clone(), format!("<{aor}>;tag={}", self.tag), format!("<{uri}>"))
            }
        };
        let (cseq, seconds) = (format!("{} SUBSCRIBE", self.cseq), expires.as_secs().to_string());
        let mut headers: Vec<(&str, &str)> = vec![("Via", &via), ("Max-Forwards", "70")];
        if let Some(dialog) = &self.dialog {
            headers.extend(dialog.route.iter().map(|route| ("Route", route.as_str())));
        }
        headers.extend([
            ("From", from.as_str()),
            ("To", &to),
            ("Call-ID", &self.call_id),
            ("CSeq", &cseq),
            ("Contact", &contact),
            ("Event", self.config.event),
            ("Accept", self.config.accept),
            ("Expires", &seconds),
            ("User-Agent", &self.config.agent),
        ]);
        if let Some((name, value)) = &credentials {
            headers.push((name, value));
        }
        let data: Bytes = compose::request("SUBSCRIBE", &uri, &headers, b"").into();
        self.pending = self
            .layer
            .send_request(now, self.config.target, "SUBSCRIBE", &branch, data)
            .map(|id| Pending { id, expires, challenges });
    }

    fn answered(
        &mut self,
        now: Instant,
        id: ClientId,
        status: u16,
        reason: &str,
        message: Option<&Message<'_>>,
    ) {
        let Some(pending) = self.pending.take_if(|pending| pending.id == id) else { return };
        if let Some(message) = message
            && matches!(status, 401 | 407)
            && pending.challenges < CHALLENGES
            && let Some((name, challenge)) = auth::digest::Challenge::of(message)
            && (pending.challenges == 0 || challenge.stale || name == "Authorization")
        {
            let uri = self.dialog.as_ref().map_or(&self.config.uri, |dialog| &dialog.target).clone();
            let cnonce = self.rng.token(10);
            let Config { user, password, .. } = &self.config;
            let value = challenge.answer(user, password, "SUBSCRIBE", &uri, 1, &cnonce);
            return self.subscribe(now, pending.expires, Some((name, value)), pending.challenges + 1);
        }
        match (status, message) {
            (200..300, Some(message)) => {
                if self.dialog.is_none() {
                    self.dialog = Dialog::from_response(message, self.cseq).ok();
                }
                if !pending.expires.is_zero() {
                    let granted =
                        message.expires().map_or(pending.expires, |s| Duration::from_secs(s.into()));
                    let margin = (granted / 10).max(Duration::from_secs(5)).min(granted / 2);
                    self.refresh_at = Some(now + (granted - margin).max(Duration::from_secs(1)));
                }
            }
            (423, Some(message)) if !pending.expires.is_zero() => {
                match message.header(Name::MinExpires).map(sip::seconds) {
                    Some(least) if Duration::from_secs(least.into()) > pending.expires => {
                        self.config.expires = Duration::from_secs(least.into());
                        let expires = self.config.expires;
                        self.subscribe(now, expires, None, 0);
                    }
                    _ => self.news.push_back(News::Refused { status, reason: reason.to_owned() }),
                }
            }
            _ if self.stop_by.is_some() => self.news.push_back(News::Ended),
            // The dialog is gone: another one (RFC 6665 §4.1.2.2).
            (404 | 408 | 481 | 503, _) if self.dialog.is_some() => self.anew(now),
            _ => self.news.push_back(News::Refused { status, reason: reason.to_owned() }),
        }
    }

    /// Forgets the dialog, and subscribes again in a while.
    fn anew(&mut self, now: Instant) {
        self.dialog = None;
        self.notified = None;
        self.call_id = self.rng.token(22);
        self.tag = self.rng.token(10);
        self.refresh_at = Some(now + AGAIN);
    }

    fn request(&mut self, now: Instant, message: &Message<'_>, reply_to: Target) {
        let id = match self.layer.receive_request(now, &RequestId::of(message), reply_to) {
            Received::New(id) => id,
            Received::Cancel { id, .. } => id,
            Received::Ack(_) | Received::Absorbed | Received::Overload => return,
        };
        let ours = message.call_id() == Some(self.call_id.as_bytes())
            && message.to_tag() == Some(self.tag.as_bytes());
        let cseq = message.cseq().map_or(0, |(number, _)| number);
        let status = match message.method() {
            Method::Notify if !ours => 481,
            // RFC 3261 §12.2.2: overtaken.
            Method::Notify if self.notified.is_some_and(|last| cseq <= last) => 500,
            Method::Notify => 200,
            Method::Cancel => 481,
            _ => 405,
        };
        let tag = self.rng.token(10);
        let allow = [("Allow", "NOTIFY")];
        let headers: &[(&str, &str)] = if status == 405 { &allow } else { &[] };
        let response = build::response(message, status, None, Some(&tag), headers, b"");
        self.layer.respond(now, id, status, response.into());
        if status == 200 {
            self.notified = Some(cseq);
            self.notified(now, message);
        }
    }

    fn notified(&mut self, now: Instant, message: &Message<'_>) {
        let said = sip::Valued::parse(message.header(Name::SubscriptionState).unwrap_or_default());
        let state = String::from_utf8_lossy(said.value).to_ascii_lowercase();
        let params = said.params().unwrap_or_default();
        let reason = params.get_str("reason").map(str::to_owned);
        let over = state == "terminated";
        self.news.push_back(News::Notified {
            state,
            expires: params.get("expires").map(sip::seconds),
            content_type: header(message, Name::ContentType).unwrap_or_default(),
            body: String::from_utf8_lossy(message.body()).into_owned(),
            reason: reason.clone(),
        });
        if !over {
            return;
        }
        match reason.as_deref() {
            _ if self.stop_by.is_some() => {
                self.stop_by = Some(Instant(u64::MAX));
                self.news.push_back(News::Ended);
            }
            // RFC 6665 §4.1.3: these say that there is nothing to come back for.
            Some("rejected" | "noresource" | "invariant") => {
                self.refresh_at = None;
                self.news.push_back(News::Ended);
            }
            _ => self.anew(now),
        }
    }
}
