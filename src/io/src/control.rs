//! The relay's control thread: ng over UDP and TCP, signals, the time-outs of calls.
//!
//! In: datagrams and connections on `--control` sockets, notices of the media workers. Out: replies, events, one log line each.
//! It alone owns the control side (`sipbox_core::relay`) and the ends of the workers' channels, so there is no lock.
//! Not here: what is answered (`sipbox_core::relay`), packets (`media`).

mod tcp;

use crate::clock::Clock;
use crate::events::Events;
use crate::media::{Notice, Workers};
use crate::signals::{Order, Signals};
use crate::start::{Kind, StartError};
use crate::{log, ready};
use sipbox_core::cidr::Cidr;
use sipbox_core::flow::Transport;
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
use tokio::net::{TcpListener, UdpSocket};
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

/// A socket of `--control`.
pub enum Socket {
    Udp(std::net::UdpSocket),
    Tcp(std::net::TcpListener),
}

/// Binds a `--control` address.
pub fn bind(address: SocketAddr, transport: Transport, text: &str) -> Result<Socket, StartError> {
    let bound = if transport == Transport::Tcp {
        std::net::TcpListener::bind(address)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| Socket::Tcp(socket)))
    } else {
        std::net::UdpSocket::bind(address)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| Socket::Udp(socket)))
    };
    bound.map_err(|error| {
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
    sockets: Vec<Socket>,
    options: Options,
) -> Result<(), StartError> {
    let fault = |what: &str, error: &io::Error| StartError::new(Kind::System, format!("{what}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| fault("runtime", &error))?;
    runtime.block_on(LocalSet::new().run_until(async move {
        let signals = Signals::new().map_err(|error| fault("signals", &error))?;
        let (queue, requests) = mpsc::channel(QUEUE);
        let mut listen = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let gate = Gate { allow: options.allow.clone(), told: None };
            let address = receive(socket, queue.clone(), gate).map_err(|error| fault("--control", &error))?;
            listen.push(address);
        }
        let control = Control { relay, workers, options };
        control.serve(signals, notices, requests, &listen).await;
        Ok(())
    }))
}

struct Control {
    relay: Relay,
    workers: Workers,
    options: Options,
}

/// A request, and the way back for its reply.
struct Asked {
    back: Back,
    source: SocketAddr,
    data: Vec<u8>,
}

enum Back {
    Udp(Rc<UdpSocket>),
    /// `None` where there is none.
    Tcp(mpsc::Sender<Option<Vec<u8>>>),
}

/// Who may ask.
struct Gate {
    /// Empty: anybody who reaches the address.
    allow: Vec<Cidr>,
    told: Option<std::time::Instant>,
}

impl Gate {
    /// Whoever set it up must see who was refused, and nobody can fill the log by it.
    fn admits(&mut self, peer: SocketAddr) -> bool {
        if self.allow.is_empty() || Cidr::any(&self.allow, peer.ip()) {
            return true;
        }
        if self.told.is_none_or(|at| at.elapsed() > REFUSALS_TOLD) {
            self.told = Some(std::time::Instant::now());
            tracing::warn!(%peer, mend = "name its network with --control-allow", "control-refused");
        } else {
            tracing::debug!(%peer, "control-refused");
        }
        false
    }
}

impl Control {
    async fn serve(
        mut self,
        mut signals: Signals,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        mut requests: mpsc::Receiver<Asked>,
        listen: &[String],
    ) {
        ready::ready("relay", listen);
        let mut watchdog = ready::Watchdog::of_systemd();
        let mut drained_by = None;
        loop {
            if drained_by.is_some() && self.relay.is_idle() {
                break;
            }
            let due = self.relay.poll_timeout().map(|at| self.options.clock.to_std(at).into());
            tokio::select! {
                Some(asked) = requests.recv() => self.answer(&asked).await,
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
                () = watchdog.due() => ready::alive(),
            }
        }
        // Calls that outlast the drain: what they were like is told all the same.
        self.relay.close_all(self.options.clock.now(), &mut self.workers);
        self.settle();
    }

    /// One request. What could not be sent at once is lost, as a datagram may be: the asker retransmits.
    async fn answer(&mut self, asked: &Asked) {
        let now = self.options.clock.now();
        let reply = self.relay.handle_request(now, asked.source, &asked.data, &mut self.workers);
        match (&asked.back, reply) {
            (Back::Udp(socket), Some(reply)) => drop(socket.send_to(&reply, asked.source).await),
            (Back::Udp(_), None) => {}
            // The connection waits for this one, so there is room; or it is gone.
            (Back::Tcp(back), reply) => drop(back.try_send(reply)),
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

/// From now on, what comes in on this socket goes to the control side. Gives its address as the ready line has it.
fn receive(socket: Socket, queue: mpsc::Sender<Asked>, gate: Gate) -> io::Result<String> {
    Ok(match socket {
        Socket::Udp(socket) => {
            let socket = UdpSocket::from_std(socket)?;
            let address = format!("udp:{}", socket.local_addr()?);
            tokio::task::spawn_local(datagrams(Rc::new(socket), queue, gate));
            address
        }
        Socket::Tcp(socket) => {
            let listener = TcpListener::from_std(socket)?;
            let address = format!("tcp:{}", listener.local_addr()?);
            tokio::task::spawn_local(tcp::accept(listener, queue, gate));
            address
        }
    })
}

async fn datagrams(socket: Rc<UdpSocket>, queue: mpsc::Sender<Asked>, mut gate: Gate) {
    let mut buffer = vec![0; NG_MESSAGE_BYTES];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((_, source)) if !gate.admits(source) => {}
            Ok((length, source)) => {
                let data = buffer.get(..length).unwrap_or_default().to_vec();
                let asked = Asked { back: Back::Udp(socket.clone()), source, data };
                if queue.send(asked).await.is_err() {
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
