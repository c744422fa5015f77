//! SUBSCRIBE: a new subscription, its refresh, its end.
//!
//! RFC 6665 §4.2.1, RFC 3261 §12.1.1 and §12.2.2. Goes in: a request whose sender may, and the store's word that the change is
//! durable. Comes out: questions to the store, the 200 that makes the dialog, subscriptions that live. Not here: whether he
//! may (`mod.rs`), NOTIFYs (`subscriptions`).

use super::request;
use super::subscriptions::{self, WatchId};
use super::{Presence, Step, Timer};
use crate::flow::Flow;
use crate::limits;
use crate::machine::Level;
use crate::sip::{Message, Name, build};
use crate::store::Query;
use crate::store::presence::{self as rows, DialogKey, Subscription};
use crate::time::Instant;
use crate::uas::Request;

impl Presence {
    /// RFC 6665 §4.2.1: a new subscription, or with Expires 0 one look.
    pub(super) fn subscribe(&mut self, now: Instant, request: &Request, message: &Message<'_>) {
        let tag = self.uas.rng.token(12);
        let row = match request::subscription(&self.config, message, &request.flow, &tag, now) {
            Ok(row) => row,
            Err(no) => return self.refuse(now, request, message, &no),
        };
        if self.watches.len() >= limits::SUBSCRIPTIONS {
            return self.uas.unavailable(now, request.server, message);
        }
        if row.expires <= now {
            self.accept(now, request, message, &row);
            let id = self.watches.add(row, direct(message, &request.flow));
            return self.last(now, id);
        }
        let query = rows::Query::Subscribe { row: Box::new(row.clone()), now };
        let step = Step::Subscribe(Box::new(row));
        self.ask_for(now, Query::Presence(query), request, step, message);
    }

    /// Within a dialog: refreshed, or ended.
    pub(super) fn renew(&mut self, now: Instant, request: &Request, message: &Message<'_>) {
        let known = dialog_key(message).and_then(|key| self.watches.find(&key));
        let Some((id, watch)) = known.and_then(|id| Some((id, self.watches.get(id)?))) else {
            return self.uas.answer(now, request.server, message, 481, None, &[]);
        };
        let cseq = message.cseq().map_or(0, |(number, _)| number);
        let mut row = watch.row.clone();
        let refusal = match (request::event(message), request::expires(&self.config, message)) {
            // RFC 3261 §12.2.2: one that was overtaken.
            _ if cseq <= row.remote_cseq => Some(request::no(500)),
            // One dialog, one subscription (RFC 6665 §4.5.1: another one has a dialog of its own).
            (Ok((package, event_id)), Ok(_)) if (package, &event_id) != (row.package, &row.event_id) => {
                Some(request::no(481))
            }
            (Ok(_), Ok(lives)) => {
                row.expires = now + lives;
                row.remote_cseq = cseq;
                match message.header(Name::Contact).map(|_| request::contact(message, &request.flow)) {
                    Some(Ok(contact)) => {
                        row.contact = contact;
                        None
                    }
                    Some(Err(no)) => Some(no),
                    None => None,
                }
            }
            (Err(no), _) | (_, Err(no)) => Some(no),
        };
        if let Some(no) = refusal {
            return self.refuse(now, request, message, &no);
        }
        let (query, step) = if row.expires <= now {
            (rows::Query::Unsubscribe(vec![row.key]), Step::Unsubscribe(id))
        } else {
            (rows::Query::Subscribe { row: Box::new(row.clone()), now }, Step::Subscribe(Box::new(row)))
        };
        self.ask_for(now, Query::Presence(query), request, step, message);
    }

    /// The row is durable.
    pub(super) fn subscribed(
        &mut self,
        now: Instant,
        request: &Request,
        message: &Message<'_>,
        row: &Subscription,
    ) {
        self.accept(now, request, message, row);
        let way = direct(message, &request.flow);
        let id = match self.watches.find(&row.key) {
            Some(id) => {
                if let Some(watch) = self.watches.get_mut(id) {
                    watch.row.expires = row.expires;
                    watch.row.contact.clone_from(&row.contact);
                    watch.row.remote_cseq = watch.row.remote_cseq.max(row.remote_cseq);
                    watch.flow = way;
                    // RFC 6665 §4.2.1.2: each SUBSCRIBE brings a NOTIFY.
                    watch.sent = None;
                }
                // The row was written with numbers that may have been used since.
                self.counted.insert(id);
                self.subscription_event("renewed", row, &request.flow);
                id
            }
            None => {
                let id = self.watches.add(row.clone(), way);
                self.subscription_event("subscribed", row, &request.flow);
                id
            }
        };
        self.timers.arm(Timer::Expires(id), row.expires);
        self.look_soon(now, &row.presentity);
    }

    /// Its row is gone.
    pub(super) fn unsubscribed(
        &mut self,
        now: Instant,
        request: &Request,
        message: &Message<'_>,
        id: WatchId,
    ) {
        let Some(watch) = self.watches.get_mut(id) else {
            return self.uas.answer(now, request.server, message, 481, None, &[]);
        };
        watch.row.expires = now;
        let row = watch.row.clone();
        self.accept(now, request, message, &row);
        self.subscription_event("unsubscribed", &row, &request.flow);
        self.last(now, id);
    }

    /// 200 to a SUBSCRIBE: makes the dialog, or keeps it (RFC 3261 §12.1.1).
    fn accept(&mut self, now: Instant, request: &Request, message: &Message<'_>, row: &Subscription) {
        let routes: Vec<String> = message
            .headers(Name::RecordRoute)
            .map(|header| String::from_utf8_lossy(&crate::sip::unfold(header.value)).into_owned())
            .collect();
        let expires = row.expires.saturating_since(now).as_micros().div_ceil(1_000_000).to_string();
        let contact = format!("<{}>", row.local_contact);
        let mut headers: Vec<(&str, &str)> =
            routes.iter().map(|route| ("Record-Route", route.as_str())).collect();
        headers.extend([
            ("Contact", contact.as_str()),
            ("Expires", &expires),
            ("Allow-Events", request::EVENTS),
        ]);
        let data = build::response(message, 200, None, Some(&row.key.local_tag), &headers, b"");
        self.uas.layer.respond(now, request.server, 200, data.into());
    }

    fn subscription_event(&mut self, name: &'static str, row: &Subscription, flow: &Flow) {
        self.uas.event(subscriptions::event(Level::Info, name, row).with("peer", flow));
    }
}

fn dialog_key(message: &Message<'_>) -> Option<DialogKey> {
    let text = |value: Option<&[u8]>| value.and_then(|value| String::from_utf8(value.to_vec()).ok());
    Some(DialogKey {
        call_id: text(message.call_id())?,
        local_tag: text(message.to_tag())?,
        remote_tag: text(message.from_tag())?,
    })
}

/// The connection that a watcher himself is on: NOTIFYs go back along it.
fn direct(message: &Message<'_>, flow: &Flow) -> Option<Flow> {
    let direct = message.vias().count() == 1 && message.header(Name::RecordRoute).is_none();
    (direct && flow.connection.is_some()).then_some(*flow)
}
