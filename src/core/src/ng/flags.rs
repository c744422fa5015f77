//! The flags of an `offer` or `answer`: how the receiver's SDP shall differ from the sender's.
//!
//! In: a request's [`Dict`]. Out: [`Flags`]; what is not understood is named in [`Flags::ignored`], so that the relay can say so.
//! Not here: what they do to an SDP (`rewrite`).

use super::{Dict, Value};
use crate::sdp::{Family, Profile};
use std::net::IpAddr;

/// `ICE`: toward the receiver of the SDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IceFlag {
    /// As the sender has it.
    #[default]
    Default,
    /// Whatever the sender has, the receiver gets ICE of ours.
    Force,
    Remove,
}

/// `DTLS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsFlag {
    /// DTLS wherever the profile is a secure one; passive where we may choose.
    #[default]
    Default,
    Off,
    /// Passive toward the offerer: what `Default` does too.
    Passive,
}

/// `rtcp-mux`: offer, require and demux are about the SDP of an offer, accept and reject about its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtcpMuxFlags {
    /// The receiver is offered mux, with a port of its own for RTCP to fall back on.
    pub offer: bool,
    /// The receiver is offered mux, and nothing else.
    pub require: bool,
    /// The receiver is not offered mux, even where the sender offers it.
    pub demux: bool,
    /// The sender's mux is accepted: what happens anyway.
    pub accept: bool,
    /// The sender's mux is not accepted.
    pub reject: bool,
}

/// What an `offer` or `answer` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub ice: IceFlag,
    pub dtls: DtlsFlag,
    pub sdes_off: bool,
    /// None: as the sender has it.
    pub transport_protocol: Option<Profile>,
    pub rtcp_mux: RtcpMuxFlags,
    pub replace_origin: bool,
    pub replace_session_connection: bool,
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
    /// Ours: what only browsers use is taken out.
    pub strip_browser: bool,
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
                    "force" | "optional" => IceFlag::Force,
                    "remove" => IceFlag::Remove,
                    "default" => IceFlag::Default,
                    other => return Err(format!("ICE={other}: force, remove or default")),
                }
            }
            "DTLS" => {
                self.dtls = match text() {
                    "off" | "no" | "disable" => DtlsFlag::Off,
                    "passive" => DtlsFlag::Passive,
                    "default" => DtlsFlag::Default,
                    other => return Err(format!("DTLS={other}: off or passive")),
                }
            }
            "SDES" => {
                for word in words(value) {
                    match word.as_str() {
                        "off" | "no" | "disable" => self.sdes_off = true,
                        other => self.ignored.push(format!("SDES={other}")),
                    }
                }
            }
            // What happens in any case: an answer may have another profile than was asked for.
            "transport-protocol" if text() == "accept" => {}
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
            "flags" => {
                for word in words(value) {
                    self.take_flag(&word);
                }
            }
            "sdp" | "command" | "call-id" | "from-tag" | "to-tag" | "via-branch" | "label" => {}
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

    fn take_flag(&mut self, word: &str) {
        match word {
            "generate-mid" => self.generate_mid = true,
            "SIP-source-address" | "sip-source-address" => self.sip_source_address = true,
            "trust-address" => self.trust_address = true,
            "asymmetric" => self.asymmetric = true,
            "symmetric" => self.asymmetric = false,
            "strict-source" => self.strict_source = true,
            "no-rtcp-attribute" => self.no_rtcp_attribute = true,
            "full-rtcp-attribute" => self.full_rtcp_attribute = true,
            "strip-browser" => self.strip_browser = true,
            // What happens here in any case: directions are never turned.
            "original-sendrecv" => {}
            other => self.ignored.push(other.to_owned()),
        }
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
            sdes_off: true,
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
            .with("replace", ["session connection", "username"])
            .with("rtcp mux", "demux")
            .with("record call", "yes");
        let flags = Flags::parse(&request).unwrap();
        assert!(flags.strict_source && flags.replace_session_connection && flags.rtcp_mux.demux);
        assert_eq!(flags.ignored, ["no-such-thing", "replace=username", "record-call"]);
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
        ] {
            assert!(Flags::parse(&Dict::new().with(key, value)).is_err(), "{key}={value}");
        }
    }
}
