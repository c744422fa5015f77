//! The relay's control thread: ng over UDP, signals, the time-outs of calls.
//!
//! In: datagrams on `--control` sockets, notices of the media workers. Out: replies, events, one log line each.
//! It alone owns the control side (`sipbox_core::relay`) and the ends of the workers' channels, so there is no lock.
//! Not here: what is answered (`sipbox_core::relay`), packets (`media`).

use crate::clock::Clock;
use crate::events::Events;
use crate::media::{Notice, Workers};
use crate::signals::{Order, Signals};
use crate::start::{Kind, StartError};
use crate::{log, ready};
use sipbox_core::cidr::Cidr;
use sipbox_core::limits::NG_MESSAGE_BYTES;
use sipbox_core::machine::{Event, Level};
use sipbox_core::media::bridge;
use sipbox_core::media::leg::Component;
use sipbox_core::media::plan::Side;
use sipbox_core::relay::Relay;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

/// One refused asker a minute is told as a warning.
const REFUSALS_TOLD: Duration = Duration::from_secs(60);
/// Datagrams that may wait for the control side before the kernel's buffer does.
const QUEUE: usize = 256;

/// How it is run.
pub struct Options {
    pub clock: Clock,
    pub drain: Duration,
    pub events: Option<Events>,
    /// Who may ask; empty: anybody who reaches the address.
    pub allow: Vec<Cidr>,
}

/// Binds a `--control` address.
pub fn bind(address: SocketAddr, text: &str) -> Result<std::net::UdpSocket, StartError> {
    std::net::UdpSocket::bind(address)
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .map_err(|error| {
            let what = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "the address is in use, by another program or another sipbox; stop that one or choose another port"
                        .to_owned()
                }
                io::ErrorKind::AddrNotAvailable => "this machine has no such address; see `ip address`".to_owned(),
                _ => error.to_string(),
            };
            StartError::new(Kind::System, format!("--control {text}: {what}"))
        })
}

/// Serves until SIGTERM or SIGINT. Prints the ready line when it does.
pub fn run(
    relay: Relay,
    workers: Workers,
    notices: mpsc::UnboundedReceiver<Notice>,
    sockets: Vec<std::net::UdpSocket>,
    options: Options,
) -> Result<(), StartError> {
    let fault = |what: &str, error: &io::Error| StartError::new(Kind::System, format!("{what}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| fault("runtime", &error))?;
    runtime.block_on(LocalSet::new().run_until(async move {
        let signals = Signals::new().map_err(|error| fault("signals", &error))?;
        let mut shared = Vec::with_capacity(sockets.len());
        for socket in sockets {
            shared.push(Rc::new(UdpSocket::from_std(socket).map_err(|error| fault("--control", &error))?));
        }
        let control = Control { relay, workers, sockets: shared, options };
        control.serve(signals, notices).await;
        Ok(())
    }))
}

struct Control {
    relay: Relay,
    workers: Workers,
    sockets: Vec<Rc<UdpSocket>>,
    options: Options,
}

impl Control {
    async fn serve(mut self, mut signals: Signals, mut notices: mpsc::UnboundedReceiver<Notice>) {
        let (queue, mut datagrams) = mpsc::channel(QUEUE);
        for (index, socket) in self.sockets.iter().enumerate() {
            tokio::task::spawn_local(receive(
                index,
                socket.clone(),
                queue.clone(),
                self.options.allow.clone(),
            ));
        }
        let listen: Vec<String> = self
            .sockets
            .iter()
            .filter_map(|socket| Some(format!("udp:{}", socket.local_addr().ok()?)))
            .collect();
        ready::ready("relay", &listen);
        let mut watchdog = ready::watchdog_interval().map(tokio::time::interval);
        let mut drained_by = None;
        loop {
            if drained_by.is_some() && self.relay.is_idle() {
                break;
            }
            let due = self.relay.poll_timeout().map(|at| self.options.clock.to_std(at).into());
            tokio::select! {
                Some((index, source, data)) = datagrams.recv() => self.answer(index, source, &data).await,
                Some(notice) = notices.recv() => self.notice(&notice),
                order = signals.next() => match order {
                    Order::Stop if drained_by.is_some() => break,
                    Order::Stop => {
                        ready::stopping();
                        drained_by = Some(tokio::time::Instant::now() + self.options.drain);
                        self.relay.drain();
                    }
                    Order::Reload => {
                        if let Some(events) = &self.options.events {
                            events.reopen();
                        }
                    }
                    Order::Dump => {
                        let mut lines = Vec::new();
                        self.relay.dump(&mut lines);
                        lines.iter().for_each(|line| eprintln!("{line}"));
                    }
                },
                () = until(due) => self.timeout(),
                () = until(drained_by) => break,
                () = beat(&mut watchdog) => ready::alive(),
            }
        }
        // Calls that outlast the drain: what they were like is told all the same.
        self.relay.close_all(self.options.clock.now(), &mut self.workers);
        self.settle();
    }

    /// One request. What could not be sent at once is lost, as a datagram may be: the asker retransmits.
    async fn answer(&mut self, index: usize, source: SocketAddr, data: &[u8]) {
        let now = self.options.clock.now();
        if let Some(reply) = self.relay.handle_request(now, source, data, &mut self.workers)
            && let Some(socket) = self.sockets.get(index)
        {
            let _ = socket.send_to(&reply, source).await;
        }
        self.settle();
    }

    fn timeout(&mut self) {
        self.relay.handle_timeout(self.options.clock.now(), &mut self.workers);
        self.settle();
    }

    /// What the control side has to tell.
    fn settle(&mut self) {
        while let Some(record) = self.relay.poll_record() {
            log::write(&record.event);
            if let Some(events) = &self.options.events
                && record.event.level > Level::Debug
            {
                events.line(record.line);
            }
        }
    }

    fn event(&self, event: &Event) {
        log::write(event);
        if let Some(events) = &self.options.events
            && event.level > Level::Debug
        {
            events.write(self.options.clock.now(), event);
        }
    }

    /// What a worker saw on a bridge: a log line with the Call-ID, and for some a record.
    fn notice(&self, notice: &Notice) {
        let event = match &notice.event {
            bridge::Event::IceConnected { side, remote } => {
                Event::new(Level::Debug, "ice-connected").with("side", name(*side)).with("peer", remote)
            }
            bridge::Event::IceDisconnected { side } => {
                Event::new(Level::Info, "ice-disconnected").with("side", name(*side))
            }
            bridge::Event::DtlsConnected { side, suite } => Event::new(Level::Info, "dtls-connected")
                .with("side", name(*side))
                .with("suite", suite.name()),
            bridge::Event::FingerprintMismatch { side } => {
                Event::new(Level::Warn, "fingerprint-mismatch").with("side", name(*side))
            }
            bridge::Event::DtlsFailed { side, reason } => {
                Event::new(Level::Warn, "dtls-failed").with("side", name(*side)).with("reason", reason)
            }
            bridge::Event::Learned { side, component, address } => {
                let component = match component {
                    Component::Rtp => "rtp",
                    Component::Rtcp => "rtcp",
                };
                Event::new(Level::Debug, "learned")
                    .with("side", name(*side))
                    .with("component", component)
                    .with("peer", address)
            }
        };
        let call = self.relay.call_of(notice.bridge).unwrap_or_default();
        self.event(&event.with("call_id", call));
    }
}

const fn name(side: Side) -> &'static str {
    match side {
        Side::Offerer => "offerer",
        Side::Answerer => "answerer",
    }
}

/// Takes what comes in on one socket to the control side.
async fn receive(
    index: usize,
    socket: Rc<UdpSocket>,
    queue: mpsc::Sender<(usize, SocketAddr, Vec<u8>)>,
    allow: Vec<Cidr>,
) {
    let mut buffer = vec![0; NG_MESSAGE_BYTES];
    let mut told: Option<std::time::Instant> = None;
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((_, source)) if !allow.is_empty() && !Cidr::any(&allow, source.ip()) => {
                // Whoever set it up must see it, and nobody can fill the log by it.
                if told.is_none_or(|at| at.elapsed() > REFUSALS_TOLD) {
                    told = Some(std::time::Instant::now());
                    tracing::warn!(peer = %source, mend = "name its network with --control-allow", "control-refused");
                } else {
                    tracing::debug!(peer = %source, "control-refused");
                }
            }
            Ok((length, source)) => {
                let data = buffer.get(..length).unwrap_or_default().to_vec();
                if queue.send((index, source, data)).await.is_err() {
                    return;
                }
            }
            // An ICMP error of an earlier reply; the socket itself is well.
            Err(error) => tracing::debug!(%error, "control-receive"),
        }
    }
}

/// Never, for `None`.
async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn beat(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
