//! UDP sockets of a driver: read and written in batches.
//!
//! RFC 3261 §18. In: what the kernel has, and what the machine sends. Out: the datagrams; what is sent waits for
//! [`Udp::flush`], which the driver calls when it has worked on a batch and before it waits. Not here: keep-alives
//! (`keepalive`), whose datagrams the driver passes over.

use super::datagrams::{DATAGRAMS, Datagrams};
use super::overload::{Change, Overload};
use bytes::Bytes;
use sipbox_core::flow::{ListenerId, Target};
use std::future::poll_fn;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::task::Poll;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One socket.
pub(super) struct Udp {
    pub listener: ListenerId,
    socket: AsyncFd<UdpSocket>,
    queue: Vec<(Target, Bytes)>,
    pub overload: Overload,
}

impl Udp {
    pub fn new(listener: ListenerId, socket: UdpSocket) -> io::Result<Self> {
        Ok(Udp {
            listener,
            socket: for_reading(socket)?,
            queue: Vec::with_capacity(DATAGRAMS),
            overload: Overload::default(),
        })
    }

    /// Takes one batch; 0: there is none at the moment.
    pub fn receive(&self, datagrams: &mut Datagrams) -> usize {
        let mut count = 0;
        let _ = self.socket.try_io(Interest::READABLE, |socket| {
            match datagrams.receive(socket.as_raw_fd()) {
                Ok(received) => count = received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An ICMP error of something sent earlier: this call has cleared it.
                Err(_) => return Ok(()),
            }
            // A batch that is not full emptied the socket, so what comes later wakes us: saying so spares the system call
            // that would find nothing.
            if count < DATAGRAMS { Err(io::Error::from(io::ErrorKind::WouldBlock)) } else { Ok(()) }
        });
        count
    }

    /// Whether the kernel had to drop what came, after a batch of `count`.
    pub fn look(&mut self, count: usize) -> Option<Change> {
        self.overload.look(self.socket.as_raw_fd(), count)
    }

    /// Sends with the next [`flush`](Self::flush).
    pub fn send(&mut self, target: Target, data: Bytes) {
        self.queue.push((target, data));
    }

    pub fn flush(&mut self, datagrams: &mut Datagrams, failed: impl FnMut(Target, Bytes, io::Error)) {
        if !self.queue.is_empty() {
            datagrams.send(self.socket.as_raw_fd(), &mut self.queue, failed);
        }
    }
}

/// Wakes us when there is something to read, and for nothing else: a socket that is also asked whether it can be written
/// wakes us after each datagram that has left.
pub(super) fn for_reading(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    socket.set_nonblocking(true)?;
    // SAFETY: the socket owns its descriptor, and neither is exchanged while the `AsyncFd` has it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// Waits until one of the sockets has something. Cancel safe.
pub(super) async fn readable(sockets: &[Udp]) {
    poll_fn(|cx| {
        let ready = |udp: &Udp| udp.socket.poll_read_ready(cx).is_ready();
        if sockets.iter().any(ready) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
