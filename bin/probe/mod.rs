//! `wsgw probe`: a scripted browser. It registers over a WebSocket ([`sipbox_io::websocket`]), calls or answers
//! ([`sipbox_core::client`]), sends a tone and listens ([`media`], [`audio`]).
//!
//! In goes a [`Plan`], out comes one JSON object of what was measured. Not here: flags (`cmd/wsgw_probe`).

pub mod audio;
pub mod media;

use crate::exit::{Code, Failure};
use media::Media;
use serde_json::{Value, json};
use sipbox_core::client::{Config, Notice, Side, UserAgent};
use sipbox_core::flow::{ConnectionId, Flow, ListenerId, Target, Transport};
use sipbox_core::rng::Rng;
use sipbox_core::sip::Aor;
use sipbox_io::clock::Clock;
use sipbox_io::entropy;
use sipbox_io::websocket::{Address, Socket, Trust};
use std::time::Duration;

/// How long registering may take, with all repetitions.
const REGISTERING: Duration = Duration::from_secs(40);
/// How long ICE and DTLS may take. The webrtc crate's DTLS never comes back from a lost flight, so after this it is
/// started over, once.
const CONNECTING: Duration = Duration::from_secs(8);
/// How long the good-bye may take.
const LEAVING: Duration = Duration::from_secs(5);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub server: Address,
    pub trust: Trust,
    pub user: Aor,
    pub password: String,
    pub role: Role,
    /// How long audio is sent.
    pub talk: Duration,
    pub tone_hz: f64,
}

/// Who starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Call this URI; it may take so long to answer.
    Call { uri: String, patience: Duration },
    /// Wait so long for a call.
    Answer { patience: Duration },
}

/// What came of it.
pub struct Outcome {
    pub record: Value,
    /// Packets went out and came in.
    pub flowed: bool,
    /// Where they did not: the reason in one line.
    pub why: String,
}

/// How one try at a call ended.
enum Tried {
    /// Media was connected, and measured.
    Talked { media: Value, flowed: bool, peer: String, ended_by: &'static str },
    /// There was no call.
    NoCall { status: u16, reason: String },
    /// The call was answered, but ICE and DTLS did not come up.
    NoMedia { media: Value, peer: String },
    /// The connection to the server is gone.
    Lost,
}

/// The user agent on its WebSocket.
struct Phone {
    agent: UserAgent,
    socket: Socket,
    flow: Flow,
    clock: Clock,
    rng: Rng,
    /// The connection is gone.
    lost: bool,
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(Code::Unavailable, message)
}

impl Phone {
    async fn connect(plan: &Plan) -> Result<Self, Failure> {
        let socket = Socket::connect(&plan.server, &plan.trust).await?;
        let mut rng = entropy::rng()
            .map_err(|error| Failure::new(Code::System, format!("no random numbers: {error}")))?;
        let transport = if plan.server.secure { Transport::Wss } else { Transport::Ws };
        let flow = Flow {
            transport,
            listener: ListenerId(0),
            remote: socket.remote,
            connection: Some(ConnectionId(1)),
        };
        let config = Config {
            user: plan.user.user.clone(),
            domain: plan.user.domain.clone(),
            password: plan.password.clone(),
            target: Target::Flow(flow),
            sent_by: format!("{}.invalid", rng.token(12).to_ascii_lowercase()),
            expires: Duration::from_secs(120),
            instance: Some(format!("urn:uuid:{}", uuid(&mut rng))),
            agent: concat!("sipbox-probe/", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let mut seed = [0; 32];
        rng.fill(&mut seed);
        let agent = UserAgent::new(config, Rng::from_entropy(seed));
        Ok(Phone { agent, socket, flow, clock: Clock::start(), rng, lost: false })
    }

    /// Sends what is to be sent, and waits for the next notice; `None` when the connection is gone or time is up.
    async fn notice(&mut self, until: tokio::time::Instant) -> Option<Notice> {
        loop {
            while let Some((_, data)) = self.agent.poll_transmit() {
                self.lost |= self.socket.send(&data).await.is_err();
            }
            if let Some(notice) = self.agent.poll_notice() {
                return Some(notice);
            }
            if self.lost {
                return None;
            }
            let timer =
                self.agent.poll_timeout().map(|at| tokio::time::Instant::from_std(self.clock.to_std(at)));
            let wake = timer.map_or(until, |timer| timer.min(until));
            tokio::select! {
                data = self.socket.receive() => {
                    let (now, flow) = (self.clock.now(), self.flow);
                    self.lost = data.is_none();
                    match data {
                        Some(data) => self.agent.handle_packet(now, flow, &data),
                        None => self.agent.flow_closed(now, &flow),
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    if tokio::time::Instant::now() >= until {
                        return None;
                    }
                    self.agent.handle_timeout(self.clock.now());
                }
            }
        }
    }

    async fn register(&mut self, plan: &Plan) -> Result<(), Failure> {
        let (user, server) = (&plan.user, &plan.server);
        self.agent.register(self.clock.now());
        let until = tokio::time::Instant::now() + REGISTERING;
        while let Some(notice) = self.notice(until).await {
            match notice {
                Notice::Registered { .. } => return Ok(()),
                Notice::NotRegistered { status: status @ (408 | 500..=599), reason } => {
                    return Err(failed(format!("{server}: no registration for {user}: {status} {reason}")));
                }
                Notice::NotRegistered { status, reason } => {
                    let message = format!(
                        "{server} refused to register {user}: {status} {reason}; check the user and the password"
                    );
                    return Err(Failure::new(Code::Failed, message));
                }
                Notice::Unregistered
                | Notice::Incoming { .. }
                | Notice::Progress { .. }
                | Notice::Answered { .. }
                | Notice::Established
                | Notice::Failed { .. }
                | Notice::Ended { .. } => {}
            }
        }
        Err(failed(format!("{server}: no answer to REGISTER")))
    }

    /// Calls, and gives the peer's answer to `media`.
    async fn call(&mut self, uri: &str, patience: Duration, media: &Media) -> Result<String, Tried> {
        let offer = media.offer().await.map_err(no_call)?;
        self.agent.call(self.clock.now(), uri, offer);
        let until = tokio::time::Instant::now() + patience;
        loop {
            match self.notice(until).await {
                Some(Notice::Answered { answer }) => {
                    media.accept(&answer).await.map_err(no_call)?;
                    return Ok(uri.to_owned());
                }
                Some(Notice::Failed { status, reason }) => return Err(Tried::NoCall { status, reason }),
                Some(Notice::Ended { .. }) => {
                    return Err(Tried::NoCall { status: 487, reason: "cancelled".into() });
                }
                Some(
                    Notice::Registered { .. }
                    | Notice::NotRegistered { .. }
                    | Notice::Unregistered
                    | Notice::Incoming { .. }
                    | Notice::Progress { .. }
                    | Notice::Established,
                ) => {}
                None if self.lost => return Err(Tried::Lost),
                None => {
                    self.leave().await;
                    return Err(Tried::NoCall { status: 408, reason: "nobody answered".into() });
                }
            }
        }
    }

    /// Waits for a call and answers it with `media`'s answer; gives who calls.
    async fn answer(&mut self, patience: Duration, media: &Media) -> Result<String, Tried> {
        let until = tokio::time::Instant::now() + patience;
        let mut caller = String::new();
        loop {
            match self.notice(until).await {
                Some(Notice::Incoming { from, offer }) => {
                    caller = from;
                    self.agent.ring(self.clock.now());
                    match media.answer(&offer).await {
                        Ok(answer) => self.agent.answer(self.clock.now(), &answer),
                        Err(error) => {
                            self.agent.reject(self.clock.now(), 488);
                            self.leave().await;
                            return Err(Tried::NoCall { status: 488, reason: error.0 });
                        }
                    }
                }
                Some(Notice::Established) => return Ok(caller),
                Some(Notice::Ended { .. }) => {
                    return Err(Tried::NoCall { status: 487, reason: "the caller gave up".into() });
                }
                Some(
                    Notice::Registered { .. }
                    | Notice::NotRegistered { .. }
                    | Notice::Unregistered
                    | Notice::Progress { .. }
                    | Notice::Answered { .. }
                    | Notice::Failed { .. },
                ) => {}
                None if self.lost => return Err(Tried::Lost),
                None => return Err(Tried::NoCall { status: 408, reason: "nobody called".into() }),
            }
        }
    }

    /// Follows the call until its peer ends it, the connection is gone, or `until`.
    async fn follow(&mut self, until: tokio::time::Instant) -> Option<Side> {
        while let Some(notice) = self.notice(until).await {
            if let Notice::Ended { by } = notice {
                return Some(by);
            }
        }
        None
    }

    /// Hangs up, and waits until the server has heard it.
    async fn leave(&mut self) {
        self.agent.hangup(self.clock.now());
        let until = tokio::time::Instant::now() + LEAVING;
        while self.agent.is_busy() && !self.lost && tokio::time::Instant::now() < until {
            self.notice(tokio::time::Instant::now() + Duration::from_millis(50)).await;
        }
    }

    /// One call from its offer to its end.
    async fn attempt(&mut self, plan: &Plan) -> Tried {
        let media = match Media::new(self.socket.local.ip(), self.rng.u32()).await {
            Ok(media) => media,
            Err(error) => return no_call(error),
        };
        let tried = self.attempt_with(plan, &media).await;
        media.close().await;
        tried
    }

    async fn attempt_with(&mut self, plan: &Plan, media: &Media) -> Tried {
        let met = match &plan.role {
            Role::Call { uri, patience } => self.call(uri, *patience, media).await,
            Role::Answer { patience } => self.answer(*patience, media).await,
        };
        let peer = match met {
            Ok(peer) => peer,
            Err(tried) => return tried,
        };
        // The signalling must be served while ICE and DTLS go on; a peer that hangs up ends them too.
        let deadline = tokio::time::Instant::now() + CONNECTING;
        let connected = tokio::select! {
            connected = media.connected(CONNECTING) => connected,
            _ = self.follow(deadline + LEAVING) => false,
        };
        if !connected {
            let report = media.report().await;
            self.leave().await;
            return Tried::NoMedia { media: report, peer };
        }
        let until = tokio::time::Instant::now() + plan.talk;
        let ended_by = tokio::select! {
            ended = self.follow(until) => match ended {
                Some(Side::Peer) => "peer",
                Some(Side::Us) | None => "us",
            },
            stopped = media.send_tone(plan.tone_hz) => {
                if let Err(error) = stopped {
                    eprintln!("wsgw probe: sending stopped: {}", error.0);
                }
                "media"
            }
        };
        // The peer's BYE and its last packets race: what is on its way still counts.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let report = media.report().await;
        self.leave().await;
        Tried::Talked { media: report, flowed: media.flowed_both_ways(), peer, ended_by }
    }
}

fn no_call(error: media::Failed) -> Tried {
    Tried::NoCall { status: 488, reason: error.0 }
}

/// A random UUID (RFC 9562 §5.4).
fn uuid(rng: &mut Rng) -> String {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Carries out the plan.
pub async fn run(plan: &Plan) -> Result<Outcome, Failure> {
    let mut phone = Phone::connect(plan).await?;
    phone.register(plan).await?;
    eprintln!("wsgw probe: {} is registered at {}", plan.user, plan.server);
    let mut attempts = 1;
    let tried = loop {
        match phone.attempt(plan).await {
            Tried::NoMedia { .. } if attempts == 1 => {
                eprintln!(
                    "wsgw probe: ICE and DTLS did not come up within {} s; starting over once \
                     (the webrtc crate's DTLS does not survive a lost flight)",
                    CONNECTING.as_secs()
                );
                attempts += 1;
            }
            tried => break tried,
        }
    };
    phone.agent.unregister(phone.clock.now());
    let until = tokio::time::Instant::now() + LEAVING;
    while let Some(notice) = phone.notice(until).await {
        if matches!(notice, Notice::Unregistered | Notice::NotRegistered { .. }) {
            break;
        }
    }
    phone.socket.close().await;
    let role = match plan.role {
        Role::Call { .. } => "caller",
        Role::Answer { .. } => "callee",
    };
    let mut record = json!({
        "event": "probe",
        "user": plan.user.to_string(),
        "server": plan.server.to_string(),
        "role": role,
        "attempts": attempts,
    });
    let mut why = String::new();
    let (flowed, more) = match tried {
        Tried::Talked { media, flowed, peer, ended_by } => {
            if !flowed {
                why = "media did not flow both ways; the record tells how far it came".to_owned();
            }
            let tone = plan.tone_hz;
            let more = json!({ "peer": peer, "ended_by": ended_by, "tone_hz": tone, "media": media });
            (flowed, more)
        }
        Tried::NoMedia { media, peer } => {
            why = format!("ICE and DTLS did not come up with {peer}; the record tells how far they came");
            (false, json!({ "peer": peer, "media": media }))
        }
        Tried::NoCall { status, reason } => {
            why = format!("no call: {status} {reason}");
            (false, json!({ "status": status, "reason": reason }))
        }
        Tried::Lost => return Err(failed(format!("{}: the connection was lost", plan.server))),
    };
    if let (Some(record), Value::Object(more)) = (record.as_object_mut(), more) {
        record.insert("flowed".to_owned(), flowed.into());
        record.extend(more);
    }
    Ok(Outcome { record, flowed, why })
}
