//! Many datagrams in one system call: `recvmmsg(2)` and `sendmmsg(2)` for whole SIP messages.
//!
//! In: a socket, or messages with their addresses. Out: datagrams in place, or what the kernel refused. The buffers are
//! as long as the longest datagram; memory that no datagram ever reached is never touched, so it costs nothing. Not
//! here: media, whose datagrams are short and are answered in place (`media::batch`).

use crate::media::batch::{from_storage, to_storage};
use bytes::Bytes;
use libc::{iovec, mmsghdr, sockaddr_storage, socklen_t};
use sipbox_core::flow::Target;
use sipbox_core::limits::SIP_MESSAGE_BYTES;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// Datagrams a system call.
pub(super) const DATAGRAMS: usize = 32;

/// What the kernel is given of a batch.
struct Headers {
    addresses: Vec<sockaddr_storage>,
    vectors: Vec<iovec>,
    headers: Vec<mmsghdr>,
}

/// Buffers and headers of one driver, for receiving and for sending.
pub(super) struct Datagrams {
    buffer: Box<[u8]>,
    /// These always point into the buffer.
    incoming: Headers,
    /// Of the headers above, so many were used by the last call, and are to be set again.
    used: usize,
    outgoing: Headers,
}

impl Headers {
    fn new() -> Self {
        // SAFETY: all-zero bytes are valid values of these plain C structures.
        let (address, header): (sockaddr_storage, mmsghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Headers {
            addresses: vec![address; DATAGRAMS],
            vectors: vec![iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; DATAGRAMS],
            headers: vec![header; DATAGRAMS],
        }
    }

    fn point(&mut self, at: usize, base: *mut u8, length: usize, name: socklen_t) {
        self.vectors[at] = iovec { iov_base: base.cast(), iov_len: length };
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = (&raw mut self.addresses[at]).cast();
        header.msg_namelen = name;
        header.msg_iov = &raw mut self.vectors[at];
        header.msg_iovlen = 1;
        header.msg_control = std::ptr::null_mut();
        header.msg_controllen = 0;
        header.msg_flags = 0;
    }
}

impl Datagrams {
    pub fn new() -> Self {
        Datagrams {
            buffer: vec![0; DATAGRAMS * SIP_MESSAGE_BYTES].into_boxed_slice(),
            incoming: Headers::new(),
            used: DATAGRAMS,
            outgoing: Headers::new(),
        }
    }

    /// Takes what is there, without waiting: how many datagrams.
    pub fn receive(&mut self, socket: RawFd) -> io::Result<usize> {
        for at in 0..self.used {
            let base = self.buffer[at * SIP_MESSAGE_BYTES..].as_mut_ptr();
            self.incoming.point(at, base, SIP_MESSAGE_BYTES, mem::size_of::<sockaddr_storage>() as socklen_t);
        }
        // SAFETY: each header points at a vector, a part of the buffer that is no other's, and an address of this object,
        // with their true sizes; none of them moves during the call.
        let count = unsafe {
            libc::recvmmsg(
                socket,
                self.incoming.headers.as_mut_ptr(),
                DATAGRAMS as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        // The kernel changes only the headers that it fills, and the one in which it found nothing more.
        self.used = DATAGRAMS.min(usize::try_from(count).unwrap_or(0) + 1);
        if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
    }

    /// A datagram of the last [`receive`](Self::receive), and its source.
    pub fn received(&self, at: usize) -> Option<(SocketAddr, &[u8])> {
        let header = self.incoming.headers.get(at)?;
        let from = from_storage(self.incoming.addresses.get(at)?)?;
        let start = at * SIP_MESSAGE_BYTES;
        Some((from, self.buffer.get(start..start + header.msg_len as usize)?))
    }

    /// Sends all of `queue`, and leaves it empty. `failed` gets what the kernel refused. A full send buffer is a loss on
    /// the way, which the timers of the transactions mend.
    pub fn send(
        &mut self,
        socket: RawFd,
        queue: &mut Vec<(Target, Bytes)>,
        mut failed: impl FnMut(Target, Bytes, io::Error),
    ) {
        let mut rest = 0;
        while let Some(chunk) = queue.get(rest..).filter(|chunk| !chunk.is_empty()) {
            let chunk = &chunk[..chunk.len().min(DATAGRAMS)];
            // sendmmsg(2) gives the processor away after each datagram, to the one whom it has just woken.
            if let [(target, data)] = chunk {
                if let Err(error) = send_one(socket, target.remote(), data) {
                    match error.kind() {
                        io::ErrorKind::Interrupted => continue,
                        io::ErrorKind::WouldBlock => break,
                        _ => send_again(socket, target, data, &mut failed),
                    }
                }
                rest += 1;
                continue;
            }
            for (at, (target, data)) in chunk.iter().enumerate() {
                let name = to_storage(target.remote(), &mut self.outgoing.addresses[at]);
                // The kernel only reads it; the type is the same for both directions.
                self.outgoing.point(at, data.as_ptr().cast_mut(), data.len(), name);
            }
            // SAFETY: each header points at a vector, a message of `queue`, and an address, with their true sizes; none
            // of them moves or ends during the call.
            let count = unsafe {
                libc::sendmmsg(
                    socket,
                    self.outgoing.headers.as_mut_ptr(),
                    chunk.len() as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if count > 0 {
                rest += count as usize;
                continue;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                // Nor does it take the others at the moment.
                io::ErrorKind::WouldBlock => break,
                _ => {
                    if let Some((target, data)) = chunk.first() {
                        send_again(socket, target, data, &mut failed);
                    }
                    rest += 1;
                }
            }
        }
        queue.clear();
    }
}

/// An error may be an earlier datagram's (ICMP), and is cleared by telling it: once more decides.
fn send_again(
    socket: RawFd,
    target: &Target,
    data: &Bytes,
    failed: &mut impl FnMut(Target, Bytes, io::Error),
) {
    if let Err(error) = send_one(socket, target.remote(), data)
        && error.kind() != io::ErrorKind::WouldBlock
    {
        failed(*target, data.clone(), error);
    }
}

fn send_one(socket: RawFd, to: SocketAddr, data: &[u8]) -> io::Result<()> {
    let to = socket2::SockAddr::from(to);
    // SAFETY: pointers and lengths are those of a slice and of an address that live through the call.
    let sent = unsafe {
        libc::sendto(
            socket,
            data.as_ptr().cast(),
            data.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            to.as_ptr().cast(),
            to.len(),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sipbox_core::flow::{ListenerId, ServerKey, Transport};
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    fn to(remote: SocketAddr) -> Target {
        Target::Address {
            listener: ListenerId(0),
            transport: Transport::Udp,
            remote,
            server: ServerKey::ADDRESS,
        }
    }

    #[test]
    fn sends_and_takes_many_whole_ones_in_order() {
        let one = UdpSocket::bind("127.48.0.1:0").unwrap();
        let other = UdpSocket::bind("127.48.0.2:0").unwrap();
        let address = other.local_addr().unwrap();
        // More than one system call takes, the longest among them, and one that cannot be sent.
        let mut queue: Vec<_> = (0..40u8).map(|n| (to(address), Bytes::from(vec![n; 100]))).collect();
        queue.insert(7, (to(address), Bytes::from(vec![0; 65_536])));
        queue[3].1 = Bytes::from(vec![3; 60_000]);
        let mut failed = Vec::new();
        let mut datagrams = Datagrams::new();
        datagrams.send(one.as_raw_fd(), &mut queue, |_, data, error| failed.push((data.len(), error)));
        assert!(queue.is_empty());
        assert_eq!(failed.iter().map(|(length, _)| *length).collect::<Vec<_>>(), [65_536]);
        let mut seen = Vec::new();
        while seen.len() < 40 {
            let count = datagrams.receive(other.as_raw_fd()).unwrap();
            for at in 0..count {
                let (from, data) = datagrams.received(at).unwrap();
                assert_eq!(from, one.local_addr().unwrap());
                assert!(data.iter().all(|byte| *byte == data[0]));
                seen.push((data[0], data.len()));
            }
        }
        let wanted: Vec<_> = (0..40u8).map(|n| (n, if n == 3 { 60_000 } else { 100 })).collect();
        assert_eq!(seen, wanted);
        assert_eq!(datagrams.receive(other.as_raw_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
