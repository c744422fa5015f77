//! The media decision, per branch: is a relay used, and what is it told.
//!
//! The seed's NATMANAGE and BRIDGING: a browser is known by its SDP where it sends one, by its binding where it
//! receives one; offer and answer of one call use the row of *who sent this SDP*. In go the two sides and the SDP; out
//! comes an ng dictionary (rtpengine's control protocol), and from the reply the SDP to send on. Not here: the exchange
//! with the relay (`machine::Question::Relay`), what the relay does (`relay`, `rewrite`).

use super::config::RelayPolicy;
use crate::ng;
use crate::sdp::{Profile, Sdp};
use std::net::{IpAddr, Ipv4Addr};

/// What is known of one side of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Speaks WebRTC: ICE, DTLS-SRTP, one port.
    pub browser: bool,
    /// Behind a NAT that we saw.
    pub nat: bool,
    pub v6: bool,
}

/// What an SDP tells of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    pub browser: bool,
    /// A media address that nobody outside can reach.
    pub private: bool,
    pub v6: bool,
    /// The transport protocol of the first m-line that is in use.
    pub profile: Option<Profile>,
}

/// Reads an SDP; `None` where the body is none.
pub fn describe(body: &[u8]) -> Option<Described> {
    let sdp = Sdp::parse(body).ok()?;
    let session = sdp.session();
    let mut described = Described {
        browser: session.has("fingerprint") || session.has("ice-ufrag"),
        private: false,
        v6: false,
        profile: None,
    };
    for section in sdp.medias() {
        let Some(media) = section.media() else { continue };
        let profile = media.profile();
        described.profile = described.profile.or(profile);
        described.browser |= section.has("fingerprint")
            || section.has("ice-ufrag")
            || matches!(profile, Some(Profile::DtlsSavp | Profile::DtlsSavpf));
        let connection = section.connection().or_else(|| session.connection());
        if let Some(ip) = connection.and_then(|connection| connection.ip()) {
            described.private |= is_private(ip);
            described.v6 |= ip.is_ipv6();
        }
    }
    Some(described)
}

/// RFC 1918 and RFC 6598, as Kamailio's NAT test has them. IPv6 is taken to be without NAT, as in the seed.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || in_cgnat(ip),
        IpAddr::V6(_) => false,
    }
}

fn in_cgnat(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 64
}

/// Whether this branch's media goes through a relay.
pub fn is_relayed(policy: RelayPolicy, caller: Peer, callee: Peer) -> bool {
    match policy {
        RelayPolicy::Never => false,
        RelayPolicy::Always => true,
        RelayPolicy::Auto => {
            caller.browser || callee.browser || caller.nat || callee.nat || caller.v6 != callee.v6
        }
    }
}

/// Which half of an exchange an SDP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Offer,
    /// With the transport protocol of the offer that it answers, as its receiver wrote it.
    Answer(Option<Profile>),
}

/// What names a call and a branch to the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub call_id: String,
    /// Who sent the offer.
    pub from_tag: String,
    /// Who answers it; empty in an initial offer.
    pub to_tag: String,
    /// The caller's top branch with the number of our branch behind it; empty in a dialog.
    pub via_branch: String,
}

/// `offer` or `answer`: `sdp` goes from `sender` to `receiver`.
pub fn request(key: &Key, half: Half, sdp: &[u8], sender: Peer, receiver: Peer, source: IpAddr) -> ng::Dict {
    let described = describe(sdp);
    let mut flags = Vec::new();
    let mut dict = ng::Dict::new().with("sdp", sdp);
    match (sender.browser, receiver.browser) {
        (true, false) => dict = dict.with("DTLS", "off").with("ICE", "remove"),
        (_, true) => {
            dict = dict.with("DTLS", "passive").with("ICE", "force");
            flags.push("generate-mid");
        }
        (false, false) => {}
    }
    // What the SDP says is trusted, unless nobody outside can reach it: then its source counts.
    if !described.is_some_and(|described| described.private) {
        flags.push("trust-address");
    }
    if sender.browser && !receiver.browser {
        flags.push("strip-browser");
    }
    if !flags.is_empty() {
        dict = dict.with("flags", flags);
    }
    dict = dict.with("replace", ["origin", "session-connection"]);
    let own_profile = match (sender.browser, receiver.browser) {
        (true, false) => Some(Profile::Avp),
        (false, true) => Some(Profile::Savpf),
        (true, true) | (false, false) => None,
    };
    let profile = match half {
        Half::Offer => own_profile,
        // RFC 3264 §6: the answer has the transport of its offer.
        Half::Answer(offered) => offered.or(own_profile),
    };
    if let Some(profile) = profile {
        dict = dict.with("transport-protocol", profile.as_str());
    }
    match (sender.browser, receiver.browser) {
        (true, false) => dict = dict.with("rtcp-mux", ["demux"]),
        (false, true) => dict = dict.with("rtcp-mux", ["offer"]),
        (true, true) | (false, false) => {}
    }
    if sender.browser || receiver.browser {
        dict = dict.with("SDES", ["off"]);
    } else if described.and_then(|described| described.profile).is_some_and(Profile::is_secure) {
        // No suites beyond the phone's own: a dozen of them would not fit a datagram.
        dict = dict.with("SDES", ["nonew"]);
    }
    if sender.v6 != receiver.v6 {
        dict = dict.with("address-family", if receiver.v6 { "IP6" } else { "IP4" });
    }
    dict = put_key(dict, key);
    let family = if source.is_ipv6() { "IP6" } else { "IP4" };
    dict.with("received-from", [family.to_owned(), source.to_string()]).with(
        "command",
        match half {
            Half::Offer => "offer",
            Half::Answer(_) => "answer",
        },
    )
}

/// `delete`: of one branch, where the key has one, else of the call.
pub fn delete(key: &Key) -> ng::Dict {
    put_key(ng::Dict::new(), key).with("command", "delete")
}

fn put_key(mut dict: ng::Dict, key: &Key) -> ng::Dict {
    dict = dict.with("call-id", &key.call_id);
    if !key.via_branch.is_empty() {
        dict = dict.with("via-branch", &key.via_branch);
    }
    dict = dict.with("from-tag", &key.from_tag);
    if !key.to_tag.is_empty() {
        dict = dict.with("to-tag", &key.to_tag);
    }
    dict
}

/// What the relay said to an offer or an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Sdp(Vec<u8>),
    /// It understood, and refuses: the SDP is to blame.
    Refused(String),
    /// No answer, or none that makes sense.
    Unusable,
}

pub fn verdict(reply: Option<&[u8]>) -> Verdict {
    let Some((_, dict)) = reply.and_then(|bytes| ng::decode(bytes).ok()) else { return Verdict::Unusable };
    match (dict.get_str("result"), dict.get_bytes("sdp")) {
        (Some("ok"), Some(sdp)) => Verdict::Sdp(sdp.to_vec()),
        (Some("error"), _) => {
            // Full, or going down: another relay may do it, the SDP is not to blame.
            let reason = dict.get_str("error-reason").unwrap_or_default();
            if reason.contains("port") || reason.contains("load") || reason.contains("limit") {
                Verdict::Unusable
            } else {
                Verdict::Refused(reason.to_owned())
            }
        }
        _ => Verdict::Unusable,
    }
}

/// What a relay counted of a call, by its reply to `delete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub rtp_packets: i64,
    pub rtp_errors: i64,
    pub rtcp_packets: i64,
    /// In tenths: the worst of the sources that have an average, in whatever model the relay uses.
    pub mos: Option<i64>,
}

/// `None` where there are no figures, as in a refusal.
pub fn totals(reply: &[u8]) -> Option<Totals> {
    let (_, dict) = ng::decode(reply).ok()?;
    let of = |kind: &str, count: &str| dict.get_dict("totals")?.get_dict(kind)?.get_int(count);
    let sources = dict.get_dict("SSRC").into_iter().flat_map(ng::Dict::iter);
    let mos = sources.filter_map(|(_, source)| source.as_dict()?.get_dict("average MOS")?.get_int("MOS"));
    Some(Totals {
        rtp_packets: of("RTP", "packets")?,
        rtp_errors: of("RTP", "errors").unwrap_or(0),
        rtcp_packets: of("RTCP", "packets").unwrap_or(0),
        mos: mos.min(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_the_seed_s_reply() {
        let reply = br#"1 {"SSRC":{"1":{"average MOS":{"MOS":41}},"2":{"average MOS":{"MOS":40}},"3":{}},
            "totals":{"RTP":{"packets":2665,"bytes":456309,"errors":1},"RTCP":{"packets":6,"bytes":368,"errors":0}},"result":"ok"}"#;
        let expected = Totals { rtp_packets: 2665, rtp_errors: 1, rtcp_packets: 6, mos: Some(40) };
        assert_eq!(totals(&reply[2..]), Some(expected));
        assert_eq!(totals(br#"{"result":"error","error-reason":"Unknown call-id"}"#), None);
        assert_eq!(totals(b"junk"), None);
    }

    const PHONE: &[u8] = b"v=0\r\no=Z 0 0 IN IP4 192.0.2.1\r\ns=Z\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        m=audio 44076 RTP/AVP 8 0\r\na=sendrecv\r\n";
    const BROWSER: &[u8] = b"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 8\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=fingerprint:sha-256 AA\r\n";

    const SIP: Peer = Peer { browser: false, nat: false, v6: false };
    const WEB: Peer = Peer { browser: true, nat: false, v6: false };

    fn key() -> Key {
        Key {
            call_id: "c".into(),
            from_tag: "f".into(),
            to_tag: String::new(),
            via_branch: "z9hG4bK10".into(),
        }
    }

    fn natted() -> Vec<u8> {
        String::from_utf8_lossy(PHONE).replace("c=IN IP4 192.0.2.1", "c=IN IP4 10.0.0.1").into_bytes()
    }

    fn ask(half: Half, sdp: &[u8], sender: Peer, receiver: Peer) -> String {
        let source = "192.0.2.1".parse().expect("an address");
        let dict = request(&key(), half, sdp, sender, receiver, source);
        let json = dict.encode_json();
        // The SDP stands first, and is passed as it is.
        assert_eq!(dict.get_bytes("sdp"), Some(sdp));
        json.split_once("\\r\\n\",").expect("an SDP").1.to_owned()
    }

    #[test]
    fn describes_senders() {
        let phone = describe(PHONE).expect("an SDP");
        assert_eq!((phone.browser, phone.private, phone.profile), (false, false, Some(Profile::Avp)));
        let browser = describe(BROWSER).expect("an SDP");
        assert_eq!((browser.browser, browser.profile), (true, Some(Profile::DtlsSavpf)));
        assert_eq!(describe(b"hello"), None);
        for (ip, private) in
            [("10.1.1.1", true), ("100.64.0.1", true), ("100.128.0.1", false), ("127.0.0.1", false)]
        {
            assert_eq!(is_private(ip.parse().expect("an address")), private, "{ip}");
        }
    }

    #[test]
    fn auto_spares_the_relay_only_for_sip_without_nat() {
        let nat = Peer { nat: true, ..SIP };
        let v6 = Peer { v6: true, ..SIP };
        for (caller, callee, relayed) in [
            (SIP, SIP, false),
            (SIP, WEB, true),
            (WEB, SIP, true),
            (WEB, WEB, true),
            (nat, SIP, true),
            (SIP, nat, true),
            (v6, SIP, true),
            (v6, v6, false),
        ] {
            assert_eq!(is_relayed(RelayPolicy::Auto, caller, callee), relayed, "{caller:?} {callee:?}");
            assert!(is_relayed(RelayPolicy::Always, caller, callee));
            assert!(!is_relayed(RelayPolicy::Never, caller, callee));
        }
    }

    #[test]
    fn phones_with_keys_are_offered_no_more_suites() {
        let secure = String::from_utf8_lossy(PHONE).replace("RTP/AVP", "RTP/SAVP").into_bytes();
        assert!(ask(Half::Offer, &secure, SIP, SIP).contains("\"SDES\":[\"nonew\"]"));
        assert!(!ask(Half::Offer, PHONE, SIP, SIP).contains("SDES"));
    }

    #[test]
    fn the_seed_s_flags_for_each_direction() {
        let tail = "\"call-id\":\"c\",\"via-branch\":\"z9hG4bK10\",\"from-tag\":\"f\",\
            \"received-from\":[\"IP4\",\"192.0.2.1\"],\"command\":";
        // The seed's phone was behind a NAT.
        assert_eq!(
            ask(Half::Offer, &natted(), SIP, WEB),
            format!(
                "\"DTLS\":\"passive\",\"ICE\":\"force\",\"flags\":[\"generate-mid\"],\
                 \"replace\":[\"origin\",\"session-connection\"],\"transport-protocol\":\"RTP/SAVPF\",\
                 \"rtcp-mux\":[\"offer\"],\"SDES\":[\"off\"],{tail}\"offer\"}}"
            )
        );
        assert_eq!(
            ask(Half::Answer(Some(Profile::Avp)), BROWSER, WEB, SIP),
            format!(
                "\"DTLS\":\"off\",\"ICE\":\"remove\",\"flags\":[\"trust-address\",\"strip-browser\"],\
                 \"replace\":[\"origin\",\"session-connection\"],\"transport-protocol\":\"RTP/AVP\",\
                 \"rtcp-mux\":[\"demux\"],\"SDES\":[\"off\"],{tail}\"answer\"}}"
            )
        );
        // A browser's offer is answered in the profile that it offered.
        let answer = ask(Half::Answer(Some(Profile::DtlsSavpf)), PHONE, SIP, WEB);
        assert!(answer.contains("\"transport-protocol\":\"UDP/TLS/RTP/SAVPF\""), "{answer}");
        let browsers = ask(Half::Offer, BROWSER, WEB, WEB);
        assert!(
            !browsers.contains("transport-protocol") && browsers.contains("\"ICE\":\"force\""),
            "{browsers}"
        );
        let phones = ask(Half::Offer, PHONE, SIP, SIP);
        assert!(!phones.contains("ICE") && !phones.contains("SDES"), "{phones}");
    }

    #[test]
    fn private_addresses_are_not_trusted() {
        let phones = ask(Half::Offer, &natted(), SIP, SIP);
        assert!(!phones.contains("trust-address"), "{phones}");
        for receiver in [SIP, WEB] {
            let phones = ask(Half::Offer, PHONE, SIP, receiver);
            assert!(phones.contains("trust-address"), "{phones}");
        }
    }

    #[test]
    fn verdicts() {
        let encode = |dict: ng::Dict| dict.encode_bencode();
        let ok = encode(ng::Dict::new().with("result", "ok").with("sdp", "v=0\r\n"));
        assert_eq!(verdict(Some(&ok)), Verdict::Sdp(b"v=0\r\n".to_vec()));
        let bad = encode(ng::Dict::new().with("result", "error").with("error-reason", "Failed to parse SDP"));
        assert_eq!(verdict(Some(&bad)), Verdict::Refused("Failed to parse SDP".into()));
        let full = encode(ng::Dict::new().with("result", "error").with("error-reason", "Ran out of ports"));
        assert_eq!(verdict(Some(&full)), Verdict::Unusable);
        assert_eq!(verdict(None), Verdict::Unusable);
        assert_eq!(verdict(Some(b"junk")), Verdict::Unusable);
    }
}
