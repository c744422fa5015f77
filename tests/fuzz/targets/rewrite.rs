//! Rewriting an offer and its answer, for a browser, for a phone, and with nothing asked for.
//!
//! The first byte chooses the flags of each; a NUL parts the offer from the answer. Laws: what comes out is an SDP, with as many
//! m-lines as the offer had; a refusal leaves the memory as it was; the same supply makes the same text.

use sipbox_core::media::plan::Side;
use sipbox_core::ng::{self, Flags};
use sipbox_core::rewrite::{Address, Input, Kind, Memory, Supply, Want, rewrite};
use sipbox_core::sdp::{Family, Fingerprint, Sdp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const FLAGS: [&[u8]; 4] = [
    b"{}",
    br#"{"DTLS":"passive","ICE":"force","SDES":["off"],"transport-protocol":"RTP/SAVPF","rtcp-mux":["offer"],
        "flags":["generate-mid"],"replace":["origin","session-connection"]}"#,
    br#"{"DTLS":"off","ICE":"remove","SDES":["off"],"transport-protocol":"RTP/AVP","rtcp-mux":["demux"],
        "flags":["trust-address","strip-browser"],"replace":["origin","session-connection"]}"#,
    br#"{"transport-protocol":"RTP/SAVP","ICE":"remove","DTLS":"off","address-family":"IP6"}"#,
];

/// Counts, so that what differs between two runs is not the supply.
#[derive(Default)]
struct Counted(u16);

impl Supply for Counted {
    fn ports(&mut self, _: usize, _: Side, want: &Want) -> Result<Address, String> {
        self.0 = self.0.wrapping_add(2);
        let advertised = match want.family {
            Some(Family::V6) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            Some(Family::V4) | None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let at = |port| SocketAddr::new(advertised, port);
        Ok(Address { advertised, rtp: at(self.0), rtcp: at(self.0.wrapping_add(1)) })
    }

    fn ice(&mut self) -> (String, String) {
        ("ufrg".to_owned(), "passwordpasswordpassword".to_owned())
    }

    fn foundation(&mut self) -> String {
        "KJ7F9EsxS4CtrMjN".to_owned()
    }

    fn fingerprint(&self) -> Fingerprint {
        let digest = vec!["A0"; 32].join(":");
        Fingerprint::parse(&format!("sha-256 {digest}")).expect("a fingerprint")
    }

    fn sdes_key(&mut self) -> Vec<u8> {
        vec![7; 30]
    }
}

fn flags(choice: u8) -> Flags {
    let text = FLAGS[usize::from(choice) % FLAGS.len()];
    let (_, dict) = ng::decode(text).expect("our own flags");
    Flags::parse(&dict).expect("our own flags")
}

fn both(choice: u8, offer: &[u8], answer: &[u8]) -> Vec<Vec<u8>> {
    let mut supply = Counted::default();
    let mut memory = Memory::default();
    let mut made = Vec::new();
    let ways = [
        (Kind::Offer, Side::Offerer, offer, flags(choice)),
        (Kind::Answer, Side::Answerer, answer, flags(choice >> 2)),
    ];
    for (kind, sender, sdp, flags) in &ways {
        let before = memory.clone();
        match rewrite(
            &Input { sdp, kind: *kind, sender: *sender, flags, cuts: false },
            &mut memory,
            &mut supply,
        ) {
            Ok(done) => {
                let parsed = Sdp::parse(&done.sdp).expect("what is written is an SDP");
                let offered = Sdp::parse(offer).map_or(0, |offer| offer.media_count());
                if *kind == Kind::Offer || !made.is_empty() {
                    assert_eq!(parsed.media_count(), offered, "no m-line is lost or made up");
                    assert_eq!(done.media.len(), offered);
                }
                made.push(done.sdp);
            }
            Err(_) => assert!(memory == before, "a refusal changes nothing"),
        }
    }
    made
}

pub fn run(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let cut = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    let (offer, answer) = text.split_at(cut);
    let answer = answer.get(1..).unwrap_or_default();
    assert_eq!(both(choice, offer, answer), both(choice, offer, answer), "the same supply, the same text");
}
