//! What signalling decided, as the media engine takes it.
//!
//! A bridge joins the two legs of one m-line of one call. The relay's control side turns an SDP and its flags
//! into a [`LegPlan`] and applies it again whenever an offer or an answer changes it; the media worker keeps what
//! did not change (ICE and DTLS stay as they are where their parameters are the same: RFC 8842 §5.5, RFC 8839 §4.4.1.1).
//! Not here: ports and sockets (`sipbox-io`, `ports`), SDP (`rewrite`).

use std::net::SocketAddr;

/// One m-line of one call between one pair of peers; never used twice in a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BridgeId(pub u64);

/// Which leg of a bridge: who made the first offer, and who answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    Offerer,
    Answerer,
}

impl Side {
    /// Across the bridge.
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::Offerer => Side::Answerer,
            Side::Answerer => Side::Offerer,
        }
    }
}

/// All that one leg needs to talk to its peer.
#[derive(Clone, Debug, PartialEq)]
pub struct LegPlan {
    /// Where the peer said that it receives RTP; `None` before its SDP, or for an address of zeros.
    pub remote_rtp: Option<SocketAddr>,
    /// Where it receives RTCP; equal to `remote_rtp` when multiplexed.
    pub remote_rtcp: Option<SocketAddr>,
    /// RTP and RTCP share the RTP port (RFC 5761): agreed, not only offered.
    pub rtcp_mux: bool,
    pub ice: Option<IcePlan>,
    pub security: Security,
    /// What the peer wants to send and to receive (its own `a=sendrecv` and kin).
    pub peer_sends: bool,
    pub peer_receives: bool,
    /// RTP/AVPF or SAVPF: early feedback is understood (RFC 4585); otherwise it is filtered toward this peer.
    pub feedback: bool,
    /// No RTP: each datagram of the first port goes across as it is.
    pub opaque: bool,
    /// Of the peer's own SDP; until it came, what it was offered.
    pub payloads: Vec<PayloadFormat>,
    pub learning: Learning,
    pub arriving: Arriving,
}

/// What becomes of RTP that a peer sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arriving {
    /// It goes to the other leg.
    #[default]
    Across,
    /// It goes back to the peer, as a source of its own (ng `media-echo`).
    Back,
    Dropped,
}

/// ICE of one leg (RFC 8445). The foundation's and the priorities' text is the rewriter's.
#[derive(Clone, Debug, PartialEq)]
pub struct IcePlan {
    pub local_ufrag: String,
    pub local_pwd: String,
    /// None until the peer's SDP came.
    pub remote: Option<IceRemote>,
    pub controlling: bool,
    /// Our agent sends no checks, and takes what the peer nominates (RFC 8445 §2.5).
    pub lite: bool,
    /// Our candidates for RTP, and for RTCP where that is multiplexed; one of each address family at most.
    pub local_candidates: Vec<SocketAddr>,
    /// Those for RTCP on a port of its own (component 2); unused where it is multiplexed.
    pub local_rtcp: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct IceRemote {
    pub ufrag: String,
    pub pwd: String,
    /// Values of the peer's `a=candidate` lines as they stood, without `candidate:`.
    pub candidates: Vec<String>,
    pub lite: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Security {
    /// RTP/AVP, RTP/AVPF.
    None,
    /// DTLS-SRTP (RFC 5763, 5764).
    Dtls(DtlsPlan),
    /// Keys in the SDP (RFC 4568).
    Sdes(SdesPlan),
}

#[derive(Clone, Debug, PartialEq)]
pub struct DtlsPlan {
    /// What the peer's certificate must hash to: any of them; empty until its SDP came.
    pub fingerprints: Vec<Fingerprint>,
    pub role: DtlsRole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// Client: sends the ClientHello.
    Active,
    /// Server: waits for it, from the moment that the leg is open.
    Passive,
}

/// RFC 8122 §5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// `sha-256`, lower case.
    pub hash: String,
    pub digest: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SdesPlan {
    /// `AES_CM_128_HMAC_SHA1_80` and kin.
    pub suite: String,
    /// Key and salt, concatenated, that we protect with.
    pub local_key: Vec<u8>,
    /// Key and salt of the peer; empty until its SDP came.
    pub remote_key: Vec<u8>,
    /// Identifiers of the two keys in each packet; empty: none.
    pub local_mki: Vec<u8>,
    pub remote_mki: Vec<u8>,
    /// `local_key` is the other peer's own, and what he protected leaves as it came.
    pub is_shared: bool,
}

/// A payload type's meaning, for clock rates (jitter) and the codec's name (MOS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFormat {
    pub payload_type: u8,
    pub encoding: String,
    pub clock_rate: u32,
    pub channels: u8,
}

/// How a plain leg finds the address that its peer really sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learning {
    /// Only the address of the SDP (ng `asymmetric`).
    Off,
    /// The first packets within the learning window decide, then it is locked.
    Immediate,
    /// Locked, and packets from elsewhere are dropped and counted (ng `strict-source`).
    Strict,
}
