//! What both sides of a dialog said and were told, m-line by m-line, and what follows from the next description.
//!
//! In: one section of an SDP and the flags. Out: [`Said`], what it says in the terms of a relay, and [`Told`], what the other
//! side is to be told. Not here: the text (`compose`), the media engine's terms (`plan`).

use super::{Address, Input, Kind, Refusal, Supply, Want, other};
use crate::media::plan::{DtlsRole, IceRemote, Learning, PayloadFormat, Side};
use crate::ng::{DtlsFlag, IceFlag};
use crate::sdp::{Connection, Direction, Family, Fingerprint, Profile, RtpMap, Sdp, Section, Setup};
use std::net::{IpAddr, SocketAddr};

/// SRTP suites that are agreed on by SDES (RFC 4568 §6.2): key and salt are 30 bytes in both.
const SDES_SUITES: [&str; 2] = ["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"];
const SDES_KEY_BYTES: usize = 30;

/// What a side's own SDP says about one m-line.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// `audio`, `video`.
    pub media: String,
    /// Port 0, or a protocol that is no RTP.
    pub rejected: bool,
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
    pub rtp: Option<SocketAddr>,
    pub rtcp: Option<SocketAddr>,
    /// Of its c= line.
    pub family: Option<Family>,
    pub payloads: Vec<PayloadFormat>,
    /// Tag, suite, key of each `a=crypto` that we can use.
    pub keys: Vec<(String, String, Vec<u8>)>,
}

/// How the keys of a leg are agreed, as we told its side.
#[derive(Clone, Debug, PartialEq)]
pub enum SecurityTold {
    None,
    Dtls { setup: Setup },
    Sdes { tag: String, suite: String, key: Vec<u8> },
}

/// What a side was told about one m-line.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub rejected: bool,
    pub protocol: String,
    pub profile: Option<Profile>,
    pub mid: Option<String>,
    /// `a=rtcp-mux` stands there.
    pub mux: bool,
    /// RTCP has a port and a candidate of its own, used where mux is not agreed.
    pub own_rtcp: bool,
    pub ice: bool,
    pub trickle: bool,
    pub security: SecurityTold,
}

/// One side of one m-line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideMemory {
    pub said: Option<Said>,
    pub told: Option<Told>,
    pub(super) address: Option<Address>,
    /// Our ufrag, password and foundation toward this side.
    pub(super) ice: Option<(String, String, String)>,
    pub(super) sdes: Option<(String, Vec<u8>)>,
    pub(super) role: Option<DtlsRole>,
    pub(super) controlling: Option<bool>,
    pub(super) learning: Option<Learning>,
    /// The flags of its offer forbid to accept its mux.
    refuse_mux: bool,
}

impl SideMemory {
    /// How this side's address is found.
    pub fn learning(&self) -> Option<Learning> {
        self.learning
    }

    /// Our role in DTLS with this side, once it is decided.
    pub fn role(&self) -> Option<DtlsRole> {
        self.role
    }

    /// Our role in ICE with this side.
    pub fn is_controlling(&self) -> bool {
        self.controlling == Some(true)
    }
}

/// One m-line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MediaMemory {
    offerer: SideMemory,
    answerer: SideMemory,
}

/// One dialog.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    pub(super) media: Vec<MediaMemory>,
}

impl Memory {
    /// The memory of a dialog of which only the offer is known, as `sdp-rewrite --answers` has it.
    pub fn of_offer(offer: &[u8], flags: &crate::ng::Flags) -> Result<Memory, Refusal> {
        let sdp = Sdp::parse(offer).map_err(Refusal::Sdp)?;
        let input = Input { sdp: offer, kind: Kind::Offer, sender: Side::Offerer, flags };
        let media = sdp.medias().map(|section| {
            let mut slot = MediaMemory::default();
            slot.hear(&sdp, &section, &input);
            slot
        });
        Ok(Memory { media: media.collect() })
    }

    pub fn media_count(&self) -> usize {
        self.media.len()
    }

    pub fn side(&self, media: usize, side: Side) -> Option<&SideMemory> {
        self.media.get(media).map(|slot| slot.side(side))
    }

    /// The ports of an m-line were closed.
    pub fn forget_ports(&mut self, media: usize) {
        if let Some(slot) = self.media.get_mut(media) {
            slot.offerer.address = None;
            slot.answerer.address = None;
        }
    }
}

impl MediaMemory {
    pub(super) fn side(&self, side: Side) -> &SideMemory {
        match side {
            Side::Offerer => &self.offerer,
            Side::Answerer => &self.answerer,
        }
    }

    pub(super) fn side_mut(&mut self, side: Side) -> &mut SideMemory {
        match side {
            Side::Offerer => &mut self.offerer,
            Side::Answerer => &mut self.answerer,
        }
    }

    /// Takes in what the sender says.
    pub(super) fn hear(&mut self, sdp: &Sdp<'_>, section: &Section<'_, '_>, input: &Input<'_>) {
        let said = read(sdp, section, input);
        let side = self.side_mut(input.sender);
        if let Some(before) = &side.said {
            let restarted = match (&before.ice, &said.ice) {
                (Some(a), Some(b)) => a.ufrag != b.ufrag || a.pwd != b.pwd,
                (Some(_), None) | (None, Some(_)) => true,
                (None, None) => false,
            };
            // A restart that is offered is answered with credentials of ours that are new too (RFC 8839 §4.4.3.1.1).
            if input.kind == Kind::Offer && restarted {
                side.ice = None;
            }
            // Another certificate is another association, and its role is open again (RFC 8842 §5.1).
            if before.fingerprints != said.fingerprints {
                side.role = None;
            }
        }
        side.learning = Some(if input.flags.asymmetric {
            Learning::Off
        } else if input.flags.strict_source {
            Learning::Strict
        } else {
            Learning::Immediate
        });
        if input.kind == Kind::Offer {
            side.refuse_mux = input.flags.rtcp_mux.reject;
        }
        side.said = Some(said);
    }

    /// The answer lacks this m-line.
    pub(super) fn miss(&mut self, sender: Side) {
        let receiver = self.side_mut(other(sender));
        let said = receiver.said.as_ref();
        receiver.told = Some(Told::rejected(
            said.map(|said| said.protocol.clone()).unwrap_or_default(),
            said.and_then(|said| said.mid.clone()),
        ));
    }

    /// Decides what the receiver is told, and gets what that takes.
    pub(super) fn decide(
        &mut self,
        index: usize,
        input: &Input<'_>,
        supply: &mut dyn Supply,
    ) -> Result<(), Refusal> {
        let receiver = other(input.sender);
        let Some(said) = self.side(input.sender).said.clone() else { return Ok(()) };
        let told = match input.kind {
            Kind::Offer => self.told_offer(index, &said, input, supply)?,
            Kind::Answer => self.told_answer(index, &said, input, supply)?,
        };
        let side = self.side_mut(receiver);
        if !told.rejected {
            if side.address.is_none() {
                let interface = input.flags.direction.as_ref().map(|(_, to)| to.clone());
                let want = Want { family: input.flags.address_family, interface };
                // Unless told otherwise, in the family that the receiver speaks, or the sender; where there is none of
                // that, in what there is.
                let spoken = side.said.as_ref().and_then(|said| said.family).or(said.family);
                let implied = Want { family: want.family.or(spoken), ..want.clone() };
                let ports = match supply.ports(index, receiver, &implied) {
                    Err(_) if implied != want => supply.ports(index, receiver, &want),
                    ports => ports,
                };
                side.address = Some(ports.map_err(Refusal::Ports)?);
            }
            if told.ice && side.ice.is_none() {
                let (ufrag, pwd) = supply.ice();
                side.ice = Some((ufrag, pwd, supply.foundation()));
            }
        }
        side.told = Some(told);
        Ok(())
    }

    fn told_offer(
        &mut self,
        index: usize,
        said: &Said,
        input: &Input<'_>,
        supply: &mut dyn Supply,
    ) -> Result<Told, Refusal> {
        let flags = input.flags;
        let generated = || flags.generate_mid.then(|| (index + 1).to_string());
        let mid = said.mid.clone().or_else(generated);
        let (Some(heard), false) = (said.profile, said.rejected) else {
            return Ok(Told::rejected(said.protocol.clone(), mid));
        };
        if heard.is_secure() && !said.fingerprints.is_empty() && !said.mux {
            return Err(Refusal::NoMux { media: index });
        }
        if heard.is_secure() && said.fingerprints.is_empty() && said.keys.is_empty() {
            return Err(Refusal::NoKeys { media: index });
        }
        let profile = flags.transport_protocol.unwrap_or(heard);
        // Never both toward one side: browsers refuse an offer that has keys and a fingerprint (seed, Debug issue 3).
        let sdes_only =
            heard.is_secure() && said.fingerprints.is_empty() && flags.transport_protocol.is_none();
        // SAVP without feedback is a phone's, which has its keys in the SDP unless that is switched off.
        let phones = profile == Profile::Savp && flags.dtls == DtlsFlag::Default && !flags.sdes_off;
        let phones = phones && said.fingerprints.is_empty();
        let dtls = profile.is_secure() && flags.dtls != DtlsFlag::Off && !sdes_only && !phones;
        let security = if !profile.is_secure() {
            SecurityTold::None
        } else if dtls {
            // Our own offers leave the role to the other side (RFC 5763 §5).
            SecurityTold::Dtls { setup: Setup::ActPass }
        } else if !flags.sdes_off {
            let [suite, _] = SDES_SUITES;
            self.sdes(other(input.sender), "1", suite, supply)
        } else {
            return Err(Refusal::NoKeys { media: index });
        };
        let ice = match flags.ice {
            IceFlag::Force => true,
            IceFlag::Remove => false,
            IceFlag::Default => said.ice.is_some(),
        };
        let mux = &flags.rtcp_mux;
        let offered = mux.require || mux.offer || (said.mux && !mux.demux);
        let receiver = self.side_mut(other(input.sender));
        if receiver.controlling.is_none() && ice {
            receiver.controlling = Some(true); // we are the offerer (RFC 8445 §6.1.1)
        }
        Ok(Told {
            rejected: false,
            protocol: profile.as_str().to_owned(),
            profile: Some(profile),
            mid,
            mux: offered,
            own_rtcp: !mux.require,
            ice,
            trickle: receiver.said.as_ref().is_some_and(|said| said.trickle),
            security,
        })
    }

    fn told_answer(
        &mut self,
        index: usize,
        said: &Said,
        input: &Input<'_>,
        supply: &mut dyn Supply,
    ) -> Result<Told, Refusal> {
        let flags = input.flags;
        let receiver = other(input.sender);
        let offer = self.side(receiver).said.clone();
        let protocol = offer.as_ref().map_or(&said.protocol, |offer| &offer.protocol).clone();
        let mid = match &offer {
            Some(offer) => offer.mid.clone(),
            None => said.mid.clone().filter(|_| flags.generate_mid),
        };
        let dead = said.rejected || offer.as_ref().is_some_and(|offer| offer.rejected);
        let heard = offer.as_ref().map_or(said.profile, |offer| offer.profile);
        let (Some(heard), false) = (heard, dead) else {
            return Ok(Told::rejected(protocol, mid));
        };

        // The leg of who answers: what we offered him, and what he took.
        if let Some(told) = &self.side(input.sender).told {
            match &told.security {
                SecurityTold::Dtls { .. } if said.fingerprints.is_empty() => {
                    return Err(Refusal::NoFingerprint { media: index });
                }
                SecurityTold::Dtls { .. } if !(told.mux && said.mux) => {
                    return Err(Refusal::NoMux { media: index });
                }
                SecurityTold::Sdes { suite, .. }
                    if !said.keys.iter().any(|(_, theirs, _)| theirs == suite) =>
                {
                    return Err(Refusal::NoKeys { media: index });
                }
                SecurityTold::Dtls { .. } | SecurityTold::Sdes { .. } | SecurityTold::None => {}
            }
        }
        let sender = self.side_mut(input.sender);
        sender.role = Some(role(sender.role, said.setup, Kind::Answer));

        // The leg of who offered: an answer has nothing that the offer had not.
        let profile = flags.transport_protocol.unwrap_or(heard);
        let refuse_mux = flags.rtcp_mux.reject || self.side(receiver).refuse_mux;
        let mux = match &offer {
            Some(offer) => offer.mux && !refuse_mux,
            None => (flags.rtcp_mux.offer || flags.rtcp_mux.require || flags.rtcp_mux.accept) && !refuse_mux,
        };
        let security = match &offer {
            _ if !profile.is_secure() => SecurityTold::None,
            Some(offer) if !offer.fingerprints.is_empty() && flags.dtls != DtlsFlag::Off => {
                if !mux {
                    return Err(Refusal::NoMux { media: index });
                }
                let side = self.side_mut(receiver);
                let role = role(side.role, offer.setup, Kind::Offer);
                side.role = Some(role);
                SecurityTold::Dtls { setup: setup_of(role) }
            }
            Some(offer) if !flags.sdes_off && !offer.keys.is_empty() => {
                let Some((tag, suite, _)) = offer.keys.first().cloned() else {
                    return Err(Refusal::NoKeys { media: index });
                };
                self.sdes(receiver, &tag, &suite, supply)
            }
            Some(_) => return Err(Refusal::NoKeys { media: index }),
            None if flags.dtls != DtlsFlag::Off => SecurityTold::Dtls { setup: Setup::Passive },
            None => return Err(Refusal::NoKeys { media: index }),
        };
        let offered_ice = offer.as_ref().map(|offer| offer.ice.as_ref());
        let ice = match (flags.ice, offered_ice) {
            (IceFlag::Remove, _) => false,
            // One component a leg: ICE without mux is not taken up (an answer without ICE is allowed: RFC 8839 §4.2.2).
            (IceFlag::Force | IceFlag::Default, Some(offered)) => offered.is_some() && mux,
            (IceFlag::Force, None) => true,
            (IceFlag::Default, None) => false,
        };
        let side = self.side_mut(receiver);
        if side.controlling.is_none() && ice {
            // He offered; only a lite peer leaves the choice to us (RFC 8445 §6.1.1).
            side.controlling = Some(offered_ice.flatten().is_some_and(|remote| remote.lite));
        }
        Ok(Told {
            rejected: false,
            protocol: profile.as_str().to_owned(),
            profile: Some(profile),
            mid,
            mux,
            own_rtcp: !mux,
            ice,
            trickle: offer.as_ref().is_some_and(|offer| offer.trickle),
            security,
        })
    }

    /// Our key toward a side: the same as long as the suite is.
    fn sdes(&mut self, side: Side, tag: &str, suite: &str, supply: &mut dyn Supply) -> SecurityTold {
        let side = self.side_mut(side);
        let (suite, key) = match &side.sdes {
            Some((before, key)) if before == suite => (before.clone(), key.clone()),
            Some(_) | None => (suite.to_owned(), supply.sdes_key()),
        };
        side.sdes = Some((suite.clone(), key.clone()));
        SecurityTold::Sdes { tag: tag.to_owned(), suite, key }
    }
}

impl Told {
    fn rejected(protocol: String, mid: Option<String>) -> Told {
        Told {
            rejected: true,
            protocol,
            profile: None,
            mid,
            mux: false,
            own_rtcp: false,
            ice: false,
            trickle: false,
            security: SecurityTold::None,
        }
    }
}

/// Our role on a leg whose peer says `setup`. Passive wherever we may choose, from the peer's offer on, so that nothing
/// starts as a client before the answer told it otherwise; a role once taken stays (RFC 8842 §5.3).
fn role(before: Option<DtlsRole>, setup: Option<Setup>, kind: Kind) -> DtlsRole {
    match (setup, kind) {
        (Some(Setup::Passive), _) => DtlsRole::Active,
        (Some(Setup::Active), _) => DtlsRole::Passive,
        (Some(Setup::ActPass | Setup::HoldConn) | None, Kind::Offer) => before.unwrap_or(DtlsRole::Passive),
        // An answer that does not say is taken for `active`, what RFC 5763 §5 recommends.
        (Some(Setup::ActPass | Setup::HoldConn) | None, Kind::Answer) => before.unwrap_or(DtlsRole::Passive),
    }
}

const fn setup_of(role: DtlsRole) -> Setup {
    match role {
        DtlsRole::Active => Setup::Active,
        DtlsRole::Passive => Setup::Passive,
    }
}

/// Reads one m-section in a relay's terms; what it lacks comes from the session (RFC 8866 §5).
fn read(sdp: &Sdp<'_>, section: &Section<'_, '_>, input: &Input<'_>) -> Said {
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
    let keys = section
        .cryptos()
        .filter(|crypto| SDES_SUITES.contains(&crypto.suite) && crypto.key.len() == SDES_KEY_BYTES)
        .filter(|crypto| !crypto.has_mki && crypto.session_parameters.trim().is_empty())
        .map(|crypto| (crypto.tag.to_owned(), crypto.suite.to_owned(), crypto.key));

    let connection = section.connection().or_else(|| session.connection());
    let stated = connection.as_ref().and_then(Connection::ip);
    let from_source = input.flags.received_from.filter(|_| input.flags.takes_source(stated.as_ref()));
    let address = from_source.or(stated);
    let mut direction = section.direction().or_else(|| session.direction()).unwrap_or(Direction::SendRecv);
    let zeros = connection.as_ref().and_then(Connection::ip).is_some_and(|ip| ip.is_unspecified());
    if zeros && ice.is_none() {
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
    Said {
        media: media.to_owned(),
        // An m-line that is only there for a bundle has port 0 too; who does not bundle, refuses it (RFC 8843 §7.2.1).
        rejected: port == 0 || profile.is_none(),
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
        rtp,
        rtcp,
        family: stated.as_ref().map(Family::of),
        payloads: payloads.collect(),
        keys: keys.collect(),
    }
}
