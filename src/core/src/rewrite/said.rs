//! What a side's own SDP says about one m-line, in a relay's terms.
//!
//! RFC 8866 §5 (what an m-section lacks comes from the session), 3264 §8.4, 3605, 5761, 8839. In: a section and the flags that
//! are about where its sender is. Out: [`Said`]. Not here: what follows from it (`offer`, `answer`).

use super::keys::Key;
use super::{Input, lines};
use crate::media::plan::{IceRemote, PayloadFormat};
use crate::sdp::{Connection, Direction, Family, Fingerprint, Profile, RtpMap, Sdp, Section, Setup};
use std::net::{IpAddr, SocketAddr};

/// One m-line as its sender wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// `audio`, `video`.
    pub media: String,
    /// Port 0, or a protocol that no relay carries.
    pub rejected: bool,
    /// Of such a protocol, but no concern of ours: it passes as it is.
    pub passes: bool,
    /// Carried without a look inside.
    pub opaque: bool,
    pub protocol: String,
    pub profile: Option<Profile>,
    pub formats: String,
    pub mid: Option<String>,
    pub mux: bool,
    pub setup: Option<Setup>,
    pub fingerprints: Vec<Fingerprint>,
    pub ice: Option<IceRemote>,
    pub trickle: bool,
    pub direction: Direction,
    /// Its address is one of zeros.
    pub zeros: bool,
    pub rtp: Option<SocketAddr>,
    pub rtcp: Option<SocketAddr>,
    /// Of its c= line.
    pub family: Option<Family>,
    pub payloads: Vec<PayloadFormat>,
    /// Each `a=crypto` that we can use.
    pub keys: Vec<Key>,
}

impl Said {
    /// What a format of the m-line means: by its rtpmap, or by RFC 3551 §6.
    pub(super) fn map_of(&self, format: &str) -> Option<RtpMap<'_>> {
        let number: u8 = format.parse().ok()?;
        let payload = self.payloads.iter().find(|payload| payload.payload_type == number)?;
        Some(RtpMap {
            payload_type: number,
            encoding: &payload.encoding,
            clock_rate: payload.clock_rate,
            channels: payload.channels,
        })
    }
}

/// Reads one m-section in a relay's terms; what it lacks comes from the session (RFC 8866 §5).
pub(super) fn read(sdp: &Sdp<'_>, section: &Section<'_, '_>, input: &Input<'_>) -> Said {
    let session = sdp.session();
    let get = |name: &str| section.get(name).or_else(|| session.get(name));
    let m = section.media();
    let (media, port, protocol, formats) =
        m.map_or(("", 0, "", ""), |m| (m.media, m.port, m.protocol, m.formats.trim_end()));
    let profile = m.and_then(|m| m.profile());

    let ice = match (get("ice-ufrag"), get("ice-pwd")) {
        (Some(ufrag), Some(pwd)) => Some(IceRemote {
            ufrag: ufrag.trim().to_owned(),
            pwd: pwd.trim().to_owned(),
            candidates: section.all("candidate").map(str::to_owned).collect(),
            lite: session.has("ice-lite"),
        }),
        _ => None,
    };
    let mut fingerprints: Vec<Fingerprint> = section.fingerprints().collect();
    if fingerprints.is_empty() {
        fingerprints = session.fingerprints().collect();
    }
    let keys = section.cryptos().filter_map(|crypto| Key::of(&crypto));

    let connection = section.connection().or_else(|| session.connection());
    let stated = connection.as_ref().and_then(Connection::ip);
    let from_source = input.flags.received_from.filter(|_| input.flags.takes_source(stated.as_ref()));
    let address = from_source.or(stated);
    let mut direction = section.direction().or_else(|| session.direction()).unwrap_or(Direction::SendRecv);
    let zeros = connection.as_ref().and_then(Connection::ip).is_some_and(|ip| ip.is_unspecified());
    if zeros && ice.is_none() && !input.flags.original_sendrecv {
        direction = direction.deaf();
    }
    let usable = |ip: &IpAddr| !zeros && !ip.is_unspecified() && !ip.is_multicast();
    let rtp = address.filter(usable).filter(|_| port != 0).map(|ip| SocketAddr::new(ip, port));
    let mux = section.has("rtcp-mux");
    let rtcp = rtp.and_then(|rtp| {
        if mux {
            return Some(rtp);
        }
        match section.rtcp() {
            Some(rtcp) => {
                let ip = rtcp.address.filter(|_| from_source.is_none()).unwrap_or(rtp.ip());
                Some(SocketAddr::new(ip, rtcp.port))
                    .filter(|rtcp| rtcp.port() != 0 && !rtcp.ip().is_unspecified())
            }
            None => rtp.port().checked_add(1).map(|port| SocketAddr::new(rtp.ip(), port)),
        }
    });

    let rtpmaps: Vec<RtpMap<'_>> = section.rtpmaps().collect();
    let payloads = m.iter().flat_map(|m| m.payload_types()).filter_map(|payload_type| {
        let map = rtpmaps.iter().find(|map| map.payload_type == payload_type).copied();
        let map = map.or_else(|| RtpMap::of_static(payload_type))?;
        Some(PayloadFormat {
            payload_type,
            encoding: map.encoding.to_owned(),
            clock_rate: map.clock_rate,
            channels: map.channels,
        })
    });
    let carried = profile.is_some() || lines::is_opaque(protocol);
    Said {
        media: media.to_owned(),
        // An m-line that is only there for a bundle has port 0 too; who does not bundle, refuses it (RFC 8843 §7.2.1).
        rejected: port == 0 || !carried,
        passes: port != 0 && !carried && lines::passes(protocol),
        opaque: lines::is_opaque(protocol),
        protocol: protocol.to_owned(),
        profile,
        formats: formats.to_owned(),
        mid: section.get("mid").map(|mid| mid.trim().to_owned()),
        mux,
        setup: get("setup").and_then(Setup::parse),
        fingerprints,
        trickle: get("ice-options")
            .is_some_and(|options| options.split_ascii_whitespace().any(|o| o == "trickle")),
        ice,
        direction,
        zeros,
        rtp,
        rtcp,
        family: stated.as_ref().map(Family::of),
        payloads: payloads.collect(),
        keys: keys.collect(),
    }
}
