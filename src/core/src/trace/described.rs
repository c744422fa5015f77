//! Which call an address of media belongs to, as the session descriptions say that went by.
//!
//! RFC 8866 §5.7 and §5.14 (address and port), §6.6 (rtpmap), §6.4 (ptime), RFC 8839 (candidates). In: SIP messages. Out: for
//! an address and port, the call and what its payload types mean. An address stays with the call that named it first,
//! until that call ends or was silent for a minute: a back-to-back user agent names one address in two calls. Not here:
//! packets (`rtp`).

use super::{Traced, show};
use crate::limits::TRACE_DESCRIBED;
use crate::media::plan::PayloadFormat;
use crate::sdp::{Sdp, Section};
use crate::time::Instant;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A call without BYE whose address is silent for so long has left it.
const SILENT: Duration = Duration::from_secs(60);

/// A call, by its first message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct About {
    pub call_id: String,
    pub from: String,
    pub to: String,
}

/// What an SDP says of one address.
#[derive(Clone, Debug)]
pub(super) struct Media {
    pub about: Arc<About>,
    pub formats: Arc<Vec<PayloadFormat>>,
    /// In milliseconds.
    pub ptime: Option<u32>,
    /// Grows whenever the above change, so that a flow sees it by one look.
    pub serial: u64,
    seen: Instant,
    ended: bool,
}

/// All of them, of the calls of one capture.
#[derive(Debug, Default)]
pub(super) struct Described {
    by_address: HashMap<SocketAddr, Media>,
    /// In the order in which they were named first.
    order: VecDeque<SocketAddr>,
    calls: HashMap<String, (Arc<About>, Vec<SocketAddr>)>,
    serials: u64,
}

impl Described {
    pub fn message(&mut self, traced: &Traced) {
        let summary = &traced.summary;
        if summary.is_request() && summary.method == "BYE" {
            let addresses = self.calls.get(&summary.call_id).map(|(_, addresses)| addresses.as_slice());
            for address in addresses.unwrap_or_default() {
                if let Some(media) = self.by_address.get_mut(address)
                    && media.about.call_id == summary.call_id
                {
                    media.ended = true;
                }
            }
            return;
        }
        for body in show::sdp(traced) {
            if let Ok(sdp) = Sdp::parse(&body) {
                self.sdp(traced, &sdp);
            }
        }
    }

    fn sdp(&mut self, traced: &Traced, sdp: &Sdp<'_>) {
        let summary = &traced.summary;
        let about = match self.calls.get(&summary.call_id) {
            Some((about, _)) => Arc::clone(about),
            None => Arc::new(About {
                call_id: summary.call_id.clone(),
                from: summary.from.clone(),
                to: summary.to.clone(),
            }),
        };
        for section in sdp.medias() {
            let Some(line) = section.media().filter(|line| line.port != 0) else { continue };
            let address = section.connection().or_else(|| sdp.session().connection()).and_then(|c| c.ip());
            let named = address.filter(|ip| !ip.is_unspecified()).map(|ip| SocketAddr::new(ip, line.port));
            let candidates = section.candidates().filter(|candidate| candidate.component == 1);
            let candidates = candidates.filter_map(|candidate| {
                Some(SocketAddr::new(candidate.address.parse().ok()?, candidate.port))
            });
            let formats = Arc::new(formats(&section));
            let ptime = section.ptime().or_else(|| sdp.session().ptime());
            for address in named.into_iter().chain(candidates) {
                self.name(traced.time, address, &about, &formats, ptime);
            }
        }
    }

    fn name(
        &mut self,
        now: Instant,
        address: SocketAddr,
        about: &Arc<About>,
        formats: &Arc<Vec<PayloadFormat>>,
        ptime: Option<u32>,
    ) {
        match self.by_address.get_mut(&address) {
            Some(media) if media.about == *about => {
                media.seen = now;
                media.ended = false;
                if media.formats != *formats || media.ptime != ptime {
                    self.serials += 1;
                    media.serial = self.serials;
                    media.formats = Arc::clone(formats);
                    media.ptime = ptime;
                }
                return;
            }
            Some(media) if !media.ended && now.saturating_since(media.seen) < SILENT => return,
            Some(_) => {}
            None => {
                if self.by_address.len() >= TRACE_DESCRIBED
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.forget(&oldest);
                }
                self.order.push_back(address);
            }
        }
        self.serials += 1;
        let media = Media {
            about: Arc::clone(about),
            formats: Arc::clone(formats),
            ptime,
            serial: self.serials,
            seen: now,
            ended: false,
        };
        if let Some(before) = self.by_address.insert(address, media) {
            self.leave(&before.about, &address);
        }
        let (_, addresses) =
            self.calls.entry(about.call_id.clone()).or_insert_with(|| (Arc::clone(about), Vec::new()));
        addresses.push(address);
    }

    fn forget(&mut self, address: &SocketAddr) {
        if let Some(media) = self.by_address.remove(address) {
            self.leave(&media.about, address);
        }
    }

    /// A call without addresses is none.
    fn leave(&mut self, about: &About, address: &SocketAddr) {
        if let Some((_, addresses)) = self.calls.get_mut(&about.call_id) {
            addresses.retain(|other| other != address);
            if addresses.is_empty() {
                self.calls.remove(&about.call_id);
            }
        }
    }

    /// What is known of a packet's ends: payload types are those of who receives; where his SDP was not seen, of who sends.
    pub fn find(&mut self, now: Instant, source: SocketAddr, destination: SocketAddr) -> Option<&Media> {
        let address = if self.by_address.contains_key(&destination) { destination } else { source };
        let media = self.by_address.get_mut(&address)?;
        media.seen = media.seen.max(now);
        Some(media)
    }
}

/// Of an m-line: its rtpmaps, and what the others mean without one (RFC 3551 §6).
fn formats(section: &Section<'_, '_>) -> Vec<PayloadFormat> {
    let mut formats: Vec<PayloadFormat> = section
        .rtpmaps()
        .map(|map| PayloadFormat {
            payload_type: map.payload_type,
            encoding: map.encoding.to_owned(),
            clock_rate: map.clock_rate,
            channels: map.channels,
        })
        .collect();
    for format in static_formats() {
        if !formats.iter().any(|known| known.payload_type == format.payload_type) {
            formats.push(format);
        }
    }
    formats
}

/// Payload types that mean the same without any SDP (RFC 3551 §6).
pub(super) fn static_formats() -> Vec<PayloadFormat> {
    let names = [(0, "PCMU"), (3, "GSM"), (4, "G723"), (8, "PCMA"), (9, "G722"), (13, "CN"), (18, "G729")];
    let format = |(payload_type, name): (u8, &str)| PayloadFormat {
        payload_type,
        encoding: name.to_owned(),
        clock_rate: 8000,
        channels: 1,
    };
    names.into_iter().map(format).collect()
}
