//! The flags of an `offer` or `answer`: how the receiver's SDP shall differ from the sender's.
//!
//! In: a request's [`Dict`]. Out: [`Flags`]; what is not understood is named in [`Flags::ignored`], so that the relay can say so.
//! Not here: what they do to an SDP (`rewrite`).

use super::codec::CodecFlags;
use super::manipulate::Manipulations;
use super::sdes::SdesFlags;
use super::{Dict, Value};
use crate::sdp::{Family, Profile};
use std::net::IpAddr;

/// `ICE`: toward the receiver of the SDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IceFlag {
    /// As the receiver has it, or, as long as he said nothing, as the sender has it.
    #[default]
    Default,
    /// Whatever the sender has, the receiver gets ICE of ours.
    Force,
    Remove,
}

/// `ICE-lite`: our agent only answers checks (RFC 8445 §2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IceLiteFlag {
    /// Toward the receiver of this SDP; `None`: as it was.
    pub forward: Option<bool>,
    /// Toward its sender.
    pub backward: Option<bool>,
}

/// `DTLS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsFlag {
    /// DTLS wherever the profile is a secure one; active where we may choose.
    #[default]
    Default,
    Off,
    /// Passive toward the offerer, where he leaves it to us.
    Passive,
    /// What `Default` does too.
    Active,
}

/// `rtcp-mux`: offer, require and demux are about the SDP of an offer, accept and reject about its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtcpMuxFlags {
    /// The receiver is offered mux, with a port of its own for RTCP to fall back on.
    pub offer: bool,
    /// The receiver is offered mux, and nothing else.
    pub require: bool,
    /// The receiver is not offered mux, even where the sender offers it; the sender's is accepted.
    pub demux: bool,
    /// The sender's mux is accepted, also where the receiver does not take it.
    pub accept: bool,
    /// The sender's mux is not accepted.
    pub reject: bool,
}

/// `media-echo`: media is not passed on, but sent back or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaEcho {
    /// What the receiver of this SDP sends comes back to him; what its sender sends is dropped.
    Forward,
    /// The other way round.
    Backward,
    Both,
    /// All is dropped.
    Blackhole,
}

/// `OSRTP`: RTP/AVP with keys beside it (RFC 8643).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OsrtpFlags {
    /// A plain profile is offered with keys.
    pub offer: bool,
    /// The sender's keys are taken, also where the receiver takes none.
    pub accept: bool,
}

/// What an `offer` or `answer` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub ice: IceFlag,
    pub ice_lite: IceLiteFlag,
    /// Our candidates come with `a=ice-options:trickle`.
    pub trickle: bool,
    pub dtls: DtlsFlag,
    /// The hash of our fingerprint; SHA-256 where nothing is said.
    pub fingerprint_hash: Option<String>,
    pub sdes: SdesFlags,
    pub osrtp: OsrtpFlags,
    /// None: as the receiver has it, or, as long as he said nothing, as the sender has it.
    pub transport_protocol: Option<Profile>,
    /// The answerer's profile stands in the answer, whatever was offered.
    pub accept_transport: bool,
    pub rtcp_mux: RtcpMuxFlags,
    pub replace_origin: bool,
    pub replace_session_connection: bool,
    /// The o= line's user name stays what it was in this side's first SDP.
    pub replace_username: bool,
    /// The same of s=.
    pub replace_session_name: bool,
    /// The o= line's version counts what changed for the receiver.
    pub replace_version: bool,
    /// All of these of the o= line, and its session's number.
    pub replace_origin_full: bool,
    /// The version goes up each time.
    pub force_version: bool,
    /// An address of zeros becomes ours, with the direction that it meant.
    pub replace_zero_address: bool,
    pub address_family: Option<Family>,
    /// Interface names: of the sender's side, and of the receiver's.
    pub direction: Option<(String, String)>,
    /// Stands in the SDP in place of the relay's own.
    pub media_address: Option<IpAddr>,
    /// Where the SIP message came from; with `SIP-source-address` it is where the sender's media is.
    pub received_from: Option<IpAddr>,
    pub sip_source_address: bool,
    /// The SDP's address counts even where nobody outside can reach it.
    pub trust_address: bool,
    pub generate_mid: bool,
    pub asymmetric: bool,
    pub strict_source: bool,
    pub no_rtcp_attribute: bool,
    pub full_rtcp_attribute: bool,
    /// An address of zeros does not turn the direction.
    pub original_sendrecv: bool,
    pub codec: CodecFlags,
    /// Milliseconds of audio in a packet that the receiver is asked for.
    pub ptime: Option<u32>,
    /// The same for the sender of an offer, in the answer to it.
    pub ptime_reverse: Option<u32>,
    /// Kinds of m-lines that are taken out of an offer: `audio`, `video` …, `other`.
    pub media_remove: Vec<String>,
    /// Attributes that are added, removed, substituted.
    pub manipulations: Manipulations,
    /// `a=extmap` is taken out: all, or these.
    pub extmap_strip: Vec<String>,
    /// Ours: what only browsers use is taken out.
    pub strip_browser: bool,
    /// What leaves the relay's ports is marked with: IPv4's type of service, IPv6's traffic class.
    pub tos: Option<u8>,
    pub media_echo: Option<MediaEcho>,
    /// Names, or `name=value`, that were asked for and mean nothing here.
    pub ignored: Vec<String>,
}

/// The words of a value: a list's strings, or a string's words.
pub fn words(value: &Value) -> Vec<String> {
    let plain = |text: &str| text.trim().replace([' ', '_'], "-");
    match value {
        Value::List(list) => {
            list.iter().filter_map(Value::as_str).map(plain).filter(|w| !w.is_empty()).collect()
        }
        Value::Bytes(_) => {
            let text = value.as_str().unwrap_or_default();
            text.split([' ', ',']).map(plain).filter(|word| !word.is_empty()).collect()
        }
        Value::Int(_) | Value::Dict(_) => Vec::new(),
    }
}

impl Flags {
    /// Reads the flags of a request; `Err` says which one has an impossible value.
    pub fn parse(request: &Dict) -> Result<Flags, String> {
        let mut flags = Flags::default();
        for (key, value) in request.iter() {
            flags.take(key, value)?;
        }
        Ok(flags)
    }

    /// Takes one entry; the last of a name counts.
    pub fn take(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let key = key.replace(' ', "-");
        let text = || value.as_str().unwrap_or_default().trim();
        match key.as_str() {
            "ICE" => {
                self.ice = match text() {
                    // All media goes through the relay: to be one candidate among others is no choice of ours.
                    "force" | "force-relay" | "optional" => IceFlag::Force,
                    "remove" => IceFlag::Remove,
                    "default" => IceFlag::Default,
                    other => {
                        return Err(format!("ICE={other}: force, force-relay, optional, remove or default"));
                    }
                }
            }
            "ICE-lite" => {
                let (forward, backward) = match text() {
                    "forward" | "offer" => (Some(true), None),
                    "backward" | "answer" => (None, Some(true)),
                    "both" => (Some(true), Some(true)),
                    "off" => (Some(false), Some(false)),
                    other => return Err(format!("ICE-lite={other}: forward, backward, both or off")),
                };
                self.ice_lite = IceLiteFlag { forward, backward };
            }
            "DTLS" => {
                self.dtls = match text() {
                    "off" | "no" | "disable" => DtlsFlag::Off,
                    "passive" => DtlsFlag::Passive,
                    "active" => DtlsFlag::Active,
                    "default" | "" => DtlsFlag::Default,
                    other => return Err(format!("DTLS={other}: off, passive or active")),
                }
            }
            "DTLS-fingerprint" => {
                let hash = text().to_ascii_lowercase();
                if !FINGERPRINT_HASHES.contains(&hash.as_str()) {
                    return Err(format!("DTLS-fingerprint={hash}: {}", FINGERPRINT_HASHES.join(", ")));
                }
                self.fingerprint_hash = Some(hash);
            }
            "SDES" => {
                for word in words(value) {
                    if !self.sdes.take(&word) {
                        self.ignored.push(format!("SDES={word}"));
                    }
                }
            }
            "OSRTP" => {
                for word in words(value) {
                    match word.as_str() {
                        "offer" | "offer-rfc" => self.osrtp.offer = true,
                        "accept" | "accept-rfc" => self.osrtp.accept = true,
                        other => self.ignored.push(format!("OSRTP={other}")),
                    }
                }
            }
            "transport-protocol" if text() == "accept" => self.accept_transport = true,
            "transport-protocol" => {
                let profile =
                    Profile::parse(text()).ok_or(format!("transport-protocol={}: no RTP profile", text()))?;
                self.transport_protocol = Some(profile);
            }
            "rtcp-mux" => {
                for word in words(value) {
                    match word.as_str() {
                        "offer" => self.rtcp_mux.offer = true,
                        "require" => self.rtcp_mux.require = true,
                        "demux" => self.rtcp_mux.demux = true,
                        "accept" => self.rtcp_mux.accept = true,
                        "reject" => self.rtcp_mux.reject = true,
                        other => {
                            return Err(format!("rtcp-mux={other}: offer, require, demux, accept or reject"));
                        }
                    }
                }
            }
            "replace" => {
                for word in words(value) {
                    match word.as_str() {
                        "origin" => self.replace_origin = true,
                        "session-connection" => self.replace_session_connection = true,
                        "username" => self.replace_username = true,
                        "session-name" => self.replace_session_name = true,
                        "SDP-version" | "sdp-version" => self.replace_version = true,
                        "force-increment-sdp-ver" => self.force_version = true,
                        "origin-full" => self.replace_origin_full = true,
                        "zero-address" => self.replace_zero_address = true,
                        other => self.ignored.push(format!("replace={other}")),
                    }
                }
            }
            "address-family" => {
                self.address_family = match text() {
                    "IP4" | "ip4" | "inet" => Some(Family::V4),
                    "IP6" | "ip6" | "inet6" => Some(Family::V6),
                    "" => None,
                    other => return Err(format!("address-family={other}: IP4 or IP6")),
                }
            }
            // A name of an interface keeps its blanks and underscores: it is not one of our words.
            "direction" => {
                let names: Vec<&str> = match value {
                    Value::List(list) => list.iter().filter_map(Value::as_str).collect(),
                    Value::Bytes(_) => text().split([' ', ',']).collect(),
                    Value::Int(_) | Value::Dict(_) => Vec::new(),
                };
                match names.as_slice() {
                    [from, to] => self.direction = Some(((*from).to_owned(), (*to).to_owned())),
                    _ => return Err("direction: the sender's and the receiver's interface".to_owned()),
                }
            }
            "media-address" => {
                let address = text().trim_matches(['[', ']']).parse();
                self.media_address =
                    Some(address.map_err(|_| format!("media-address={}: no address", text()))?);
            }
            "received-from" => {
                // `["IP4", "192.0.2.1"]`; a name or a placeholder is no address, and then the SDP's own counts.
                self.received_from = match value {
                    Value::List(list) => {
                        list.iter().rev().filter_map(Value::as_str).find_map(|w| w.parse().ok())
                    }
                    Value::Bytes(_) | Value::Int(_) | Value::Dict(_) => text().parse().ok(),
                }
            }
            "codec" => self.codec.take_dict(value, &mut self.ignored),
            "ptime" => self.ptime = milliseconds("ptime", value)?,
            "ptime-reverse" => self.ptime_reverse = milliseconds("ptime-reverse", value)?,
            "sdp-media-remove" => self.media_remove = words(value),
            "sdp-attr" => self.manipulations.take_dict(value, &mut self.ignored),
            "TOS" => {
                let tos = value.as_int().and_then(|tos| u8::try_from(tos).ok());
                self.tos = Some(tos.ok_or_else(|| format!("TOS={}: a number of 0 to 255", text()))?);
            }
            "media-echo" => {
                self.media_echo = Some(match text() {
                    "fw" | "fwd" | "forward" => MediaEcho::Forward,
                    "bk" | "bkw" | "back" | "backward" | "backwards" => MediaEcho::Backward,
                    "both" => MediaEcho::Both,
                    "blackhole" | "sinkhole" => MediaEcho::Blackhole,
                    other => {
                        return Err(format!("media-echo={other}: forward, backward, both or blackhole"));
                    }
                });
            }
            "extmap-strip" => self.extmap_strip = list(value),
            "flags" => {
                for word in flag_words(value) {
                    match word.split_once('=') {
                        // What is the request's own, or its list of flags itself, cannot stand among these.
                        Some((key, _)) if key == "flags" || OF_REQUEST.contains(&key) => {
                            self.ignored.push(key.to_owned());
                        }
                        Some((key, value)) => self.take(key, &Value::from(value))?,
                        None => self.take_flag(&word)?,
                    }
                }
            }
            own if OF_REQUEST.contains(&own) => {}
            other => self.ignored.push(other.to_owned()),
        }
        Ok(())
    }

    /// Whether the media of a sender whose SDP states this address is looked for at the source of its SIP instead.
    /// A private address is believed only where the request says so: else it is that of a phone behind a NAT.
    pub fn takes_source(&self, stated: Option<&IpAddr>) -> bool {
        let private = match stated {
            Some(IpAddr::V4(ip)) => {
                let [a, b, ..] = ip.octets();
                ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64)
            }
            Some(IpAddr::V6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
            None => false,
        };
        !self.trust_address && (self.sip_source_address || private)
    }

    fn take_flag(&mut self, word: &str) -> Result<(), String> {
        let plain = word.trim().replace([' ', '_'], "-");
        match plain.as_str() {
            "generate-mid" => self.generate_mid = true,
            "SIP-source-address" | "sip-source-address" => self.sip_source_address = true,
            "trust-address" => self.trust_address = true,
            "asymmetric" => self.asymmetric = true,
            "symmetric" => self.asymmetric = false,
            "strict-source" => self.strict_source = true,
            "no-rtcp-attribute" => self.no_rtcp_attribute = true,
            "full-rtcp-attribute" => self.full_rtcp_attribute = true,
            "strip-browser" => self.strip_browser = true,
            "original-sendrecv" => self.original_sendrecv = true,
            "trickle-ICE" | "trickle-ice" => self.trickle = true,
            "strip-extmap" => self.extmap_strip = vec!["all".to_owned()],
            "allow-asymmetric-codecs" | "asymmetric-codecs" => self.codec.asymmetric = true,
            "single-codec" => self.codec.single = true,
            "force-increment-sdp-ver" => self.force_version = true,
            // What it takes to talk to a browser.
            "WebRTC" | "webrtc" => {
                self.transport_protocol = Some(Profile::DtlsSavpf);
                self.ice = IceFlag::Force;
                self.trickle = true;
                self.rtcp_mux.offer = true;
                self.rtcp_mux.require = true;
                self.no_rtcp_attribute = true;
                self.sdes.off = true;
                self.generate_mid = true;
            }
            other => {
                // The flat forms of what are keys otherwise: `codec-strip-PCMU`, `replace-origin`, `SDES-off`, `ptime-20` …
                let prefixed = FLAT.into_iter().find_map(|key| {
                    let rest = other.strip_prefix(key)?.strip_prefix('-')?;
                    // A value keeps its underscores, as in a URI.
                    Some((key, rest, word.trim().get(key.len() + 1..)?))
                });
                match prefixed {
                    Some(("codec", rest, _)) if self.codec.take_flag(rest) => {}
                    Some(("codec", ..)) | None => self.ignored.push(plain),
                    Some((key, _, value)) => self.take(key, &Value::from(value))?,
                }
            }
        }
        Ok(())
    }
}

/// Keys that say which call it is, and whose SDP: they are no flags.
pub const OF_REQUEST: [&str; 7] = ["sdp", "command", "call-id", "from-tag", "to-tag", "via-branch", "label"];

/// Keys that `flags` may hold as `KEY-VALUE`; one that begins like another stands before it.
const FLAT: [&str; 18] = [
    "codec",
    "replace",
    "SDES",
    "rtcp-mux",
    "OSRTP",
    "ICE-lite",
    "ICE",
    "DTLS-fingerprint",
    "DTLS",
    "transport-protocol",
    "address-family",
    "media-address",
    "ptime-reverse",
    "ptime",
    "sdp-media-remove",
    "extmap-strip",
    "TOS",
    "media-echo",
];

/// Hashes that our fingerprint can be shown in (RFC 8122 §5); SHA-1 is none of them.
const FINGERPRINT_HASHES: [&str; 3] = ["sha-256", "sha-384", "sha-512"];

fn milliseconds(name: &str, value: &Value) -> Result<Option<u32>, String> {
    match value.as_int() {
        Some(0) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) if number <= 1000 => Ok(Some(number)),
            _ => Err(format!("{name}={number}: milliseconds, at most 1000")),
        },
        None => Err(format!("{name}: no number")),
    }
}

/// The entries of `flags`; a semicolon belongs to a value (`SDES=order:A;B`).
fn flag_words(value: &Value) -> Vec<String> {
    match value {
        Value::Bytes(_) => {
            let text = value.as_str().unwrap_or_default();
            text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        }
        Value::List(_) | Value::Int(_) | Value::Dict(_) => list(value),
    }
}

/// The texts of a list, or of a string's words, as they stand.
pub(super) fn list(value: &Value) -> Vec<String> {
    match value {
        Value::List(list) => {
            list.iter().filter_map(Value::as_str).map(|text| text.trim().to_owned()).collect()
        }
        Value::Bytes(_) => {
            let text = value.as_str().unwrap_or_default();
            text.split([' ', ',', ';']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        }
        Value::Int(_) | Value::Dict(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_flags() {
        let (_, request) = super::super::decode(
            br#"{"DTLS":"passive","ICE":"force","flags":["generate-mid"],"replace":["origin","session-connection"],
            "transport-protocol":"RTP/SAVPF","rtcp-mux":["offer"],"SDES":["off"],"call-id":"a@example.com",
            "via-branch":"z9hG4bK1","received-from":["IP4","192.0.2.1"],"from-tag":"f","command":"offer","sdp":""}"#,
        )
        .unwrap();
        let flags = Flags::parse(&request).unwrap();
        let expected = Flags {
            ice: IceFlag::Force,
            dtls: DtlsFlag::Passive,
            sdes: SdesFlags { off: true, ..SdesFlags::default() },
            transport_protocol: Some(Profile::Savpf),
            rtcp_mux: RtcpMuxFlags { offer: true, ..RtcpMuxFlags::default() },
            replace_origin: true,
            replace_session_connection: true,
            received_from: Some("192.0.2.1".parse().unwrap()),
            generate_mid: true,
            ..Flags::default()
        };
        assert_eq!(flags, expected);
    }

    #[test]
    fn words_may_be_one_string_and_blanks_are_hyphens() {
        let request = Dict::new()
            .with("flags", "trust-address strict_source,no-such-thing")
            .with("replace", ["session connection", "hat"])
            .with("rtcp mux", "demux")
            .with("record call", "yes");
        let flags = Flags::parse(&request).unwrap();
        assert!(flags.strict_source && flags.replace_session_connection && flags.rtcp_mux.demux);
        assert_eq!(flags.ignored, ["no-such-thing", "replace=hat", "record-call"]);
    }

    /// A key with its value may stand among the flags, with `=` or with a hyphen, and means the same as by itself.
    #[test]
    fn keys_among_the_flags() {
        for (key, value) in [
            ("ICE", "remove"),
            ("ICE-lite", "both"),
            ("DTLS", "passive"),
            ("DTLS-fingerprint", "sha-512"),
            ("SDES", "order:AEAD_AES_256_GCM;AES_CM_128_HMAC_SHA1_80"),
            ("OSRTP", "offer"),
            ("transport-protocol", "UDP/TLS/RTP/SAVPF"),
            ("rtcp-mux", "require"),
            ("replace", "zero-address"),
            ("address-family", "IP6"),
            ("media-address", "2001:db8::1"),
            ("ptime", "20"),
            ("ptime-reverse", "30"),
            ("sdp-media-remove", "video"),
            ("extmap-strip", "urn:example:one_two"),
            ("TOS", "184"),
            ("media-echo", "both"),
        ] {
            let flags = |request: Dict| {
                let flags = Flags::parse(&request).unwrap();
                assert!(flags.ignored.is_empty() && flags != Flags::default(), "{key}: {:?}", flags.ignored);
                flags
            };
            let itself = flags(Dict::new().with(key, value));
            assert_eq!(flags(Dict::new().with("flags", format!("{key}={value}"))), itself, "{key}");
            assert_eq!(flags(Dict::new().with("flags", format!("{key}-{value}"))), itself, "{key}");
            assert_eq!(
                flags(Dict::new().with("flags", [format!("{key}-{value}").as_str()])),
                itself,
                "{key}"
            );
        }
        let flags = Flags::parse(&Dict::new().with("flags", "call-id=x,flags=y,ptime-20")).unwrap();
        assert_eq!((flags.ptime, flags.ignored), (Some(20), vec!["call-id".to_owned(), "flags".to_owned()]));
    }

    #[test]
    fn impossible_values_are_refused() {
        for (key, value) in [
            ("ICE", "maybe"),
            ("DTLS", "sometimes"),
            ("transport-protocol", "RTP/XYZ"),
            ("rtcp-mux", "perhaps"),
            ("address-family", "IP5"),
            ("media-address", "example.com"),
            ("direction", "one"),
            ("TOS", "256"),
            ("media-echo", "loud"),
        ] {
            assert!(Flags::parse(&Dict::new().with(key, value)).is_err(), "{key}={value}");
        }
    }
}
