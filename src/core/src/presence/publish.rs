//! PUBLISH: a document with its entity tag.
//!
//! RFC 3903 §6. Goes in: a request whose sender may, and the store's word that the change is durable. Comes out: questions to
//! the store, the 200 with its SIP-ETag. Not here: whether he may (`mod.rs`), what a document may be (`document`), who is told
//! (`subscriptions`).

use super::request;
use super::{Presence, Step, claimed};
use crate::machine::{Event, Level};
use crate::sip::{Aor, Message};
use crate::store::Query;
use crate::store::presence::{self as rows, Package, Publish};
use crate::time::Instant;
use crate::uas::Request;

/// What was asked of the store, as its 200 and its event tell it.
pub(super) struct Published {
    presentity: Aor,
    package: Package,
    etag: String,
    expires: u32,
    was: &'static str,
}

impl Presence {
    pub(super) fn publish(&mut self, now: Instant, request: &Request, message: &Message<'_>) {
        let wanted = match request::publishing(&self.config, message) {
            Ok(wanted) => wanted,
            Err((no, fault)) => {
                if let Some(fault) = fault {
                    let aor = request::presentity(message).map(|aor| aor.to_string()).unwrap_or_default();
                    let event =
                        Event::new(Level::Warn, "bad-document").with("aor", aor).with("fault", &fault);
                    self.uas.tell(event, &request.flow, message);
                }
                return self.refuse(now, request, message, &no);
            }
        };
        let etag = self.uas.rng.token(20);
        let was = match (&wanted.if_match, &wanted.body) {
            _ if wanted.lives.is_zero() => "unpublished",
            (Some(_), None) => "refreshed",
            (Some(_) | None, _) => "published",
        };
        let sender = claimed(message).map(|aor| format!("sip:{aor}")).unwrap_or_default();
        let expires = wanted.lives.as_secs() as u32;
        let publish = Publish {
            presentity: wanted.presentity.clone(),
            package: wanted.package,
            if_match: wanted.if_match,
            etag: etag.clone(),
            body: wanted.body,
            expires: now + wanted.lives,
            now,
            sender,
        };
        let step = Step::Publish(Box::new(Published {
            presentity: wanted.presentity,
            package: wanted.package,
            etag,
            expires,
            was,
        }));
        self.ask_for(now, Query::Presence(rows::Query::Publish(Box::new(publish))), request, step, message);
    }

    /// The store has it.
    pub(super) fn published(
        &mut self,
        now: Instant,
        request: &Request,
        message: &Message<'_>,
        published: &Published,
    ) {
        let Published { presentity, package, etag, expires, was } = published;
        let expires = expires.to_string();
        let headers = [("SIP-ETag", etag.as_str()), ("Expires", &expires)];
        self.uas.answer(now, request.server, message, 200, None, &headers);
        let event = Event::new(Level::Info, was).with("aor", presentity).with("package", package.as_str());
        self.uas.tell(event, &request.flow, message);
        self.look_soon(now, presentity);
    }
}
