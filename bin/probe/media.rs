//! The scripted browser's media: one WebRTC audio call with the `webrtc` crate.
//!
//! ICE (RFC 8445), DTLS-SRTP (RFC 5763, 5764), PCMU and PCMA (RFC 3551). In go session descriptions and a tone's
//! frequency, out come session descriptions and what was measured. Not here: signalling (`core/client`).

use super::audio::{FRAME, Law, RATE, Tone, tones};
use bytes::Bytes;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
    SrtpProtectionProfile, StatsSelector, register_default_interceptors,
};
use webrtc::rtp_transceiver::RtpSender;

/// How long gathering candidates on one local address may take.
const GATHERING: Duration = Duration::from_secs(5);
/// Most samples kept for listening: a minute.
const MOST_SAMPLES: usize = 60 * RATE as usize;

/// Why there is no media.
#[derive(Debug)]
pub struct Failed(pub String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed(error.to_string())
    }
}

/// What came in, RFC 3550 §6.4.1 and appendix A.
#[derive(Default)]
struct Received {
    packets: u64,
    bytes: u64,
    first_sequence: Option<u16>,
    highest: u32,
    jitter: f64,
    transit: Option<f64>,
    codec: Option<Law>,
    other_payloads: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    samples: Vec<i16>,
}

impl Received {
    fn packet(&mut self, now: Instant, base: Instant, packet: &rtp::Packet) {
        let Some(law) = Law::of_payload_type(packet.header.payload_type) else {
            self.other_payloads += 1;
            return;
        };
        self.codec = Some(law);
        self.packets += 1;
        self.bytes += packet.payload.len() as u64;
        self.first.get_or_insert(now);
        self.last = Some(now);
        let sequence = packet.header.sequence_number;
        if self.first_sequence.is_none() {
            self.first_sequence = Some(sequence);
            self.highest = u32::from(sequence);
        }
        // The nearest number with these low 16 bits, so that a late packet does not count as a wrap.
        let ahead = sequence.wrapping_sub(self.highest as u16) as i16;
        if ahead > 0 {
            self.highest = self.highest.wrapping_add(ahead as u32);
        }
        let arrival = now.duration_since(base).as_secs_f64() * f64::from(RATE);
        let transit = arrival - f64::from(packet.header.timestamp);
        if let Some(before) = self.transit.replace(transit) {
            self.jitter += ((transit - before).abs() - self.jitter) / 16.0;
        }
        if self.samples.len() < MOST_SAMPLES {
            self.samples.extend(packet.payload.iter().map(|&byte| law.decode(byte)));
        }
    }

    fn expected(&self) -> u64 {
        let Some(first) = self.first_sequence else { return 0 };
        u64::from(self.highest.wrapping_sub(u32::from(first))) + 1
    }

    fn report(&self) -> Value {
        let expected = self.expected();
        let lost = expected.saturating_sub(self.packets);
        let heard: Vec<_> = tones(&self.samples, 3)
            .iter()
            .map(|tone| json!({ "hz": tone.hz, "share": (tone.share * 1000.0).round() / 1000.0 }))
            .collect();
        let seconds = match (self.first, self.last) {
            (Some(first), Some(last)) => last.duration_since(first).as_secs_f64(),
            (None, _) | (_, None) => 0.0,
        };
        json!({
            "packets": self.packets,
            "bytes": self.bytes,
            "codec": self.codec.map(Law::name),
            "other_payloads": self.other_payloads,
            "expected": expected,
            "lost": lost,
            "loss_percent": if expected == 0 { 0.0 } else { (lost as f64 * 10_000.0 / expected as f64).round() / 100.0 },
            "jitter_ms": (self.jitter * 1_000_000.0 / f64::from(RATE)).round() / 1000.0,
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "tones": heard,
        })
    }
}

struct Handler {
    gathered: watch::Sender<bool>,
    state: watch::Sender<RTCPeerConnectionState>,
    received: Arc<Mutex<Received>>,
    base: Instant,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let (received, base) = (Arc::clone(&self.received), self.base);
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let now = Instant::now();
                    received.lock().unwrap_or_else(|e| e.into_inner()).packet(now, base, &packet);
                }
            }
        });
    }
}

/// One peer connection with one audio track each way.
pub struct Media {
    peer: Arc<dyn PeerConnection>,
    track: Arc<TrackLocalStaticRTP>,
    sender: Arc<dyn RtpSender>,
    ssrc: u32,
    gathered: watch::Receiver<bool>,
    state: watch::Receiver<RTCPeerConnectionState>,
    received: Arc<Mutex<Received>>,
    sent: Mutex<(u64, Option<Law>)>,
}

/// The webrtc crate refuses every m-line that no BUNDLE group names, also where there is one m-line and no group, as in
/// all offers that began at a SIP phone. So the only m-line gets a group of its own, which the answer then leaves out.
fn bundle(offer: &str) -> String {
    let Some(mid) = offer.lines().find_map(|line| line.strip_prefix("a=mid:")) else {
        return offer.to_owned();
    };
    let Some(media) = offer.find("m=") else { return offer.to_owned() };
    format!("{}a=group:BUNDLE {mid}\r\n{}", &offer[..media], &offer[media..])
}

/// The description without the lines that begin so.
fn without(sdp: &str, prefix: &str) -> String {
    sdp.lines().filter(|line| !line.starts_with(prefix)).map(|line| format!("{line}\r\n")).collect()
}

/// Puts the default candidate into `m=` and `c=`, as a browser does once it has one (RFC 9429 §5.2.1, RFC 8839 §4.2.1.2);
/// the webrtc crate leaves port 9 and 0.0.0.0 there, which old ears take for hold (RFC 3264 §8.4).
fn name_default(sdp: &str) -> String {
    let candidate = sdp.lines().find_map(|line| {
        let mut words = line.strip_prefix("a=candidate:")?.split(' ');
        Some((words.nth(4)?.parse::<IpAddr>().ok()?, words.next()?))
    });
    let Some((address, port)) = candidate else { return sdp.to_owned() };
    let family = if address.is_ipv4() { "IP4" } else { "IP6" };
    let line = |line: &str| match line {
        _ if line.starts_with("m=") => line.replacen(" 9 ", &format!(" {port} "), 1),
        "c=IN IP4 0.0.0.0" => format!("c=IN {family} {address}"),
        _ => line.to_owned(),
    };
    sdp.lines().map(|text| line(text) + "\r\n").collect()
}

fn codec(law: Law) -> RTCRtpCodecParameters {
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: format!("audio/{}", law.name()),
            clock_rate: RATE,
            channels: 1,
            sdp_fmtp_line: String::new(),
            rtcp_feedback: vec![],
        },
        payload_type: match law {
            Law::Mu => 0,
            Law::A => 8,
        },
    }
}

impl Media {
    /// A peer connection whose only candidates are on `local`.
    pub async fn new(local: IpAddr, ssrc: u32) -> Result<Self, Failed> {
        let mut engine = MediaEngine::default();
        for law in [Law::Mu, Law::A] {
            engine.register_codec(codec(law), RtpCodecKind::Audio)?;
        }
        let registry = register_default_interceptors(Registry::new(), &mut engine)?;
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(local.is_loopback())
            // A relay gives addresses, no names; and a machine without a route cannot join mDNS's group.
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            // What browsers offer.
            .with_srtp_protection_profiles(vec![
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            ])
            .build();
        let (gathered_in, gathered) = watch::channel(false);
        let (state_in, state) = watch::channel(RTCPeerConnectionState::New);
        let received = Arc::new(Mutex::new(Received::default()));
        let handler = Handler {
            gathered: gathered_in,
            state: state_in,
            received: Arc::clone(&received),
            base: Instant::now(),
        };
        let Some(runtime) = webrtc::runtime::default_runtime() else {
            return Err(Failed("the webrtc crate was built without a runtime".into()));
        };
        let peer: Arc<dyn PeerConnection> = Arc::new(
            PeerConnectionBuilder::new()
                .with_configuration(RTCConfigurationBuilder::new().build())
                .with_media_engine(engine)
                .with_setting_engine(settings)
                .with_interceptor_registry(registry)
                .with_handler(Arc::new(handler))
                .with_runtime(runtime)
                .with_udp_addrs(vec![std::net::SocketAddr::new(local, 0)])
                .build()
                .await?,
        );
        let track = Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
            "probe".into(),
            "probe-audio".into(),
            "audio".into(),
            RtpCodecKind::Audio,
            vec![RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
                codec: codec(Law::Mu).rtp_codec,
                ..Default::default()
            }],
        )));
        let sender = peer.add_track(Arc::clone(&track) as Arc<dyn TrackLocal>).await?;
        Ok(Media { peer, track, sender, ssrc, gathered, state, received, sent: Mutex::new((0, None)) })
    }

    /// The local description with all candidates in it: no trickling towards SIP.
    async fn local(&self, description: RTCSessionDescription) -> Result<String, Failed> {
        self.peer.set_local_description(description).await?;
        let mut gathered = self.gathered.clone();
        let done = tokio::time::timeout(GATHERING, gathered.wait_for(|&done| done)).await;
        if !matches!(done, Ok(Ok(_))) {
            return Err(Failed("no ICE candidates could be gathered".into()));
        }
        let description = self.peer.local_description().await;
        description.map(|d| name_default(&d.sdp)).ok_or_else(|| Failed("no local description".into()))
    }

    pub async fn offer(&self) -> Result<String, Failed> {
        self.local(self.peer.create_offer(None).await?).await
    }

    /// Takes the peer's answer to [`offer`](Self::offer).
    pub async fn accept(&self, answer: &str) -> Result<(), Failed> {
        Ok(self.peer.set_remote_description(RTCSessionDescription::answer(answer.to_owned())?).await?)
    }

    /// Answers the peer's offer.
    pub async fn answer(&self, offer: &str) -> Result<String, Failed> {
        let bundled = offer.contains("a=group:BUNDLE");
        let taken = if bundled { offer.to_owned() } else { bundle(offer) };
        self.peer.set_remote_description(RTCSessionDescription::offer(taken)?).await?;
        let answer = self.local(self.peer.create_answer(None).await?).await?;
        Ok(if bundled { answer } else { without(&answer, "a=group:") })
    }

    /// Waits for ICE and DTLS; false when they failed, or are not there `within`.
    pub async fn connected(&self, within: Duration) -> bool {
        let mut state = self.state.clone();
        let settled = |state: &RTCPeerConnectionState| {
            matches!(
                state,
                RTCPeerConnectionState::Connected
                    | RTCPeerConnectionState::Failed
                    | RTCPeerConnectionState::Closed
            )
        };
        let reached = tokio::time::timeout(within, state.wait_for(settled)).await;
        matches!(reached, Ok(Ok(state)) if *state == RTCPeerConnectionState::Connected)
    }

    /// Sends a tone in real time, a packet each 20 ms, until it is dropped or the connection ends.
    pub async fn send_tone(&self, hz: f64) -> Result<(), Failed> {
        let parameters = self.sender.get_parameters().await?;
        let payload_types = parameters.rtp_parameters.codecs.iter().map(|codec| codec.payload_type);
        let Some(law) = payload_types.filter_map(Law::of_payload_type).next() else {
            return Err(Failed("the peer takes neither PCMU nor PCMA".into()));
        };
        let payload_type = codec(law).payload_type;
        let mut tone = Tone::new(hz);
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let mut sequence = self.ssrc as u16;
        let mut timestamp = self.ssrc;
        let mut marker = true;
        loop {
            // An interval catches up after a hiccup, so the count of packets stays that of real time.
            ticks.tick().await;
            let header = rtp::Header {
                version: 2,
                marker,
                payload_type,
                sequence_number: sequence,
                timestamp,
                ssrc: self.ssrc,
                ..Default::default()
            };
            let packet = rtp::Packet { header, payload: Bytes::from(tone.frame(law)) };
            self.track.write_rtp(packet).await?;
            let mut sent = self.sent.lock().unwrap_or_else(|e| e.into_inner());
            sent.0 += 1;
            sent.1 = Some(law);
            marker = false;
            sequence = sequence.wrapping_add(1);
            timestamp = timestamp.wrapping_add(FRAME as u32);
        }
    }

    /// True when packets went out and came in.
    pub fn flowed_both_ways(&self) -> bool {
        let received = self.received.lock().unwrap_or_else(|e| e.into_inner()).packets;
        let sent = self.sent.lock().unwrap_or_else(|e| e.into_inner()).0;
        sent > 0 && received > 0
    }

    /// What was measured so far.
    pub async fn report(&self) -> Value {
        let stats = self.peer.get_stats(Instant::now(), StatsSelector::None).await;
        let transport = stats.transport();
        let (sent, law) = *self.sent.lock().unwrap_or_else(|e| e.into_inner());
        let received = self.received.lock().unwrap_or_else(|e| e.into_inner()).report();
        json!({
            "dtls": transport.map(|t| t.dtls_state.to_string()),
            "dtls_role": transport.map(|t| t.dtls_role.to_string()),
            "ice": transport.map(|t| t.ice_state.to_string()),
            "srtp": transport.map(|t| t.srtp_cipher.clone()),
            "sent": { "packets": sent, "codec": law.map(Law::name) },
            "received": received,
        })
    }

    pub async fn close(&self) {
        let _ = self.peer.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn two_of_them_hear_each_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let one = Media::new(local, 0x1111_1111).await.unwrap();
            let two = Media::new(local, 0x2222_2222).await.unwrap();
            let offer = one.offer().await.unwrap();
            let answer = two.answer(&offer).await.unwrap();
            one.accept(&answer).await.unwrap();
            assert!(one.connected(Duration::from_secs(10)).await, "{offer}\n{answer}");
            assert!(two.connected(Duration::from_secs(10)).await);
            tokio::select! {
                ended = one.send_tone(440.0) => panic!("{ended:?}"),
                ended = two.send_tone(1000.0) => panic!("{ended:?}"),
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
            }
            for (media, hz) in [(&one, 1000), (&two, 440)] {
                let report = media.report().await;
                assert_eq!(report["dtls"], "connected", "{report}");
                assert_eq!(report["received"]["tones"][0]["hz"], hz, "{report}");
                assert!(report["received"]["packets"].as_u64().unwrap() > 80, "{report}");
                assert_eq!(report["received"]["lost"], 0, "{report}");
                media.close().await;
            }
        });
    }
}
