//! UDP sockets of a driver: drained in batches, written directly.
//!
//! RFC 3261 §18, RFC 5626 §4.4.2 (STUN keep-alives, answered here). A datagram of nothing but line breaks and NULs is
//! a keep-alive too, that many phones send and that wants no answer.

use super::keepalive;
use bytes::Bytes;
use sipbox_core::flow::{Flow, ListenerId, Transport};
use sipbox_core::limits::SIP_MESSAGE_BYTES;
use sipbox_core::machine::Input;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::task::Poll;

/// One socket.
pub(super) struct Udp {
    pub listener: ListenerId,
    /// Waits for datagrams.
    reader: tokio::net::UdpSocket,
    /// The same socket; tokio's own would refuse to write until it has seen that it may.
    writer: UdpSocket,
    buffer: Box<[u8]>,
}

impl Udp {
    pub fn new(listener: ListenerId, socket: UdpSocket) -> io::Result<Self> {
        let writer = socket.try_clone()?;
        let reader = tokio::net::UdpSocket::from_std(socket)?;
        Ok(Udp { listener, reader, writer, buffer: vec![0; SIP_MESSAGE_BYTES].into_boxed_slice() })
    }

    /// The next datagram for the machine, `None` when there is none at the moment.
    pub fn receive(&mut self) -> Option<Input> {
        loop {
            let (length, remote) = match self.reader.try_recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // An ICMP error of something sent earlier: this call has cleared it.
                Err(_) => continue,
            };
            let data = self.buffer.get(..length).unwrap_or_default();
            if keepalive::is_line_breaks(data) {
                continue;
            }
            if let Some(answer) = keepalive::binding_response(data, remote) {
                let _ = self.writer.send_to(&answer, remote);
                continue;
            }
            let flow = Flow { transport: Transport::Udp, listener: self.listener, remote, connection: None };
            return Some(Input::Packet { flow, data: Bytes::copy_from_slice(data) });
        }
    }

    pub fn send(&self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        match self.writer.send_to(data, to) {
            Ok(_) => Ok(()),
            // The send buffer is full: the same as a loss on the way, which timers A and E mend.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // The error belongs to an earlier datagram (ICMP), and is cleared by telling it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.writer.send_to(data, to).map(drop)
            }
            Err(error) => Err(error),
        }
    }
}

/// Waits until one of the sockets has something. Cancel safe.
pub(super) async fn readable(sockets: &[Udp]) -> usize {
    poll_fn(|cx| {
        for (index, udp) in sockets.iter().enumerate() {
            if udp.reader.poll_recv_ready(cx).is_ready() {
                return Poll::Ready(index);
            }
        }
        Poll::Pending
    })
    .await
}
