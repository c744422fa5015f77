//! HEPv3 over UDP: what a tracer receives (`--hep-listen`).
//!
//! In: bound sockets. Out: each datagram, and ticks, until SIGTERM or SIGINT. Not here: the format (`trace::hep`).

use crate::listen::{self, Bound, Socket};
use crate::ready;
use crate::signals::{Order, Signals};
use crate::start::{Kind, StartError};
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

/// How often the receiver is given a chance to write what it holds back.
const TICK: Duration = Duration::from_millis(200);

/// What happened.
pub enum Received<'a> {
    Datagram(&'a [u8]),
    Tick,
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
        let mut watchdog = ready::watchdog_interval().map(tokio::time::interval);
        let mut tick = tokio::time::interval(TICK);
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            tokio::select! {
                order = signals.next() => match order {
                    Order::Stop => {
                        ready::stopping();
                        return Ok(None);
                    }
                    Order::Reload | Order::Dump => {}
                },
                index = readable(&sockets) => {
                    // Until it is empty: what is written out costs less in batches.
                    while let Some(socket) = sockets.get(index)
                        && let Ok((length, _)) = socket.try_recv_from(&mut buffer)
                    {
                        let datagram = buffer.get(..length).unwrap_or_default();
                        if let ControlFlow::Break(end) = take(Received::Datagram(datagram)) {
                            return Ok(Some(end));
                        }
                    }
                }
                _ = tick.tick() => {
                    if let ControlFlow::Break(end) = take(Received::Tick) {
                        return Ok(Some(end));
                    }
                }
                () = watched(&mut watchdog) => ready::alive(),
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

/// Never, where systemd does not watch.
async fn watched(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}
