//! HEPv3 over UDP: what a tracer receives (`--hep-listen`), and what servers send it (`--hep`).
//!
//! Receiving: in go bound sockets, out come each datagram, and ticks, until SIGTERM or SIGINT. Sending: a copy of each SIP
//! message that a driver received or sent; it never waits, and what the socket does not take is lost. Not here: the
//! format (`trace::hep`).

use crate::listen::{self, Bound, Socket};
use crate::ready;
use crate::signals::{Order, Signals};
use crate::start::{Kind, StartError};
use sipbox_core::flow::Transport;
use sipbox_core::time::Instant;
use sipbox_core::trace::hep::{self, Packet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// Where copies go. A clone sends to the same place.
#[derive(Clone, Debug)]
pub struct Sender {
    socket: Arc<UdpSocket>,
    /// Tells several senders to one collector apart: the process id.
    agent: u32,
    buffer: Vec<u8>,
}

impl Sender {
    /// From `--hep udp:HOST:PORT`.
    pub fn open(uri: &str) -> Result<Self, StartError> {
        let spec = listen::parse("--hep", uri, &[Transport::Udp])?;
        if spec.advertised.is_some() {
            return Err(StartError::new(Kind::Usage, format!("--hep {uri}: '!' has no meaning here")));
        }
        let any: SocketAddr = match spec.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let open = || {
            let socket = UdpSocket::bind(any)?;
            socket.connect(spec.address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error: io::Error| {
            StartError::new(
                Kind::System,
                format!("--hep {uri}: {error}; give an address that can be reached"),
            )
        })?;
        Ok(Sender { socket: Arc::new(socket), agent: std::process::id(), buffer: Vec::new() })
    }

    /// One message. A collector that is away, or too slow, is no reason to hold up a call.
    pub fn copy(
        &mut self,
        time: Instant,
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) {
        self.buffer.clear();
        let packet = Packet { time, transport, source, destination, agent: self.agent, payload };
        if hep::encode(&packet, &mut self.buffer) {
            let _ = self.socket.send(&self.buffer);
        }
    }
}

/// How often the receiver is given a chance to write what it holds back.
const TICK: Duration = Duration::from_millis(200);

/// What happened.
pub enum Received<'a> {
    Datagram {
        source: SocketAddr,
        /// Ours.
        destination: SocketAddr,
        data: &'a [u8],
    },
    Tick,
    /// SIGHUP.
    Reload,
}

/// Receives until a signal, or until `take` breaks. Prints the ready line.
pub fn receive<E>(
    command: &str,
    bound: Vec<Bound>,
    mut take: impl FnMut(Received<'_>) -> ControlFlow<E>,
) -> Result<Option<E>, StartError> {
    let system = |error: io::Error| StartError::new(Kind::System, format!("--hep-listen: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    runtime.block_on(async move {
        let mut signals = Signals::new().map_err(system)?;
        let addresses: Vec<String> = bound.iter().map(|b| listen::describe(&b.listener)).collect();
        let locals: Vec<SocketAddr> = bound.iter().map(|b| b.listener.local).collect();
        let mut sockets = Vec::new();
        for Bound { socket, .. } in bound {
            match socket {
                Socket::Udp(socket) => {
                    sockets.push(tokio::net::UdpSocket::from_std(socket).map_err(system)?);
                }
                Socket::Tcp(_) => return Err(StartError::new(Kind::Usage, "--hep-listen: only udp:")),
            }
        }
        ready::ready(command, &addresses);
        let mut watchdog = ready::Watchdog::of_systemd();
        let mut tick = tokio::time::interval(TICK);
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            tokio::select! {
                order = signals.next() => match order {
                    Order::Stop => {
                        ready::stopping();
                        return Ok(None);
                    }
                    Order::Reload => {
                        if let ControlFlow::Break(end) = take(Received::Reload) {
                            return Ok(Some(end));
                        }
                    }
                    Order::Dump => {}
                },
                index = readable(&sockets) => {
                    // Until it is empty: what is written out costs less in batches.
                    while let (Some(socket), Some(destination)) = (sockets.get(index), locals.get(index).copied())
                        && let Ok((length, source)) = socket.try_recv_from(&mut buffer)
                    {
                        let data = buffer.get(..length).unwrap_or_default();
                        let datagram = Received::Datagram { source, destination, data };
                        if let ControlFlow::Break(end) = take(datagram) {
                            return Ok(Some(end));
                        }
                    }
                }
                _ = tick.tick() => {
                    if let ControlFlow::Break(end) = take(Received::Tick) {
                        return Ok(Some(end));
                    }
                }
                () = watchdog.due() => ready::alive(),
            }
        }
    })
}

async fn readable(sockets: &[tokio::net::UdpSocket]) -> usize {
    std::future::poll_fn(|cx| {
        for (index, socket) in sockets.iter().enumerate() {
            if socket.poll_recv_ready(cx).is_ready() {
                return std::task::Poll::Ready(index);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
