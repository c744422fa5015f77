//! Many datagrams in one system call: `recvmmsg(2)` and `sendmmsg(2)` over buffers that are made once.
//!
//! In: a socket. Out: datagrams in place, each with its source and room behind it for SRTP's tag.
//! This file holds the unsafe code of media: what the kernel is given are pointers into vectors that neither move nor
//! shrink while a [`Batch`] lives.

use libc::{c_int, iovec, mmsghdr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

/// Datagrams a system call.
pub const DATAGRAMS: usize = 32;
/// Bytes of one buffer, with the room for a tag.
pub const BUFFER: usize = 2048;
/// The longest datagram that is taken; a longer one is cut by the kernel, told by a flag, and dropped.
pub const RECEIVE: usize = BUFFER - sipbox_core::media::srtp::OVERHEAD;

/// One datagram that is to go out: which buffer, how much of it, and where to.
#[derive(Clone, Copy)]
pub struct Outgoing {
    pub buffer: usize,
    pub length: usize,
    pub to: SocketAddr,
}

/// Buffers and headers of one thread.
pub struct Batch {
    buffers: Vec<[u8; BUFFER]>,
    addresses: Vec<sockaddr_storage>,
    vectors: Vec<iovec>,
    headers: Vec<mmsghdr>,
    outgoing: Vec<Outgoing>,
}

// SAFETY: the raw pointers point into this object's own vectors, and are written anew before each system call.
unsafe impl Send for Batch {}

impl Batch {
    pub fn new() -> Batch {
        // SAFETY: all-zero bytes are valid values of these plain C structures.
        let (address, header): (sockaddr_storage, mmsghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Batch {
            buffers: vec![[0; BUFFER]; DATAGRAMS],
            addresses: vec![address; DATAGRAMS],
            vectors: vec![iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; DATAGRAMS],
            headers: vec![header; DATAGRAMS],
            outgoing: Vec::with_capacity(DATAGRAMS),
        }
    }

    /// Takes what is there, without waiting: how many datagrams.
    pub fn receive(&mut self, socket: RawFd) -> io::Result<usize> {
        for at in 0..DATAGRAMS {
            self.vectors[at] = iovec { iov_base: self.buffers[at].as_mut_ptr().cast(), iov_len: RECEIVE };
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = (&raw mut self.addresses[at]).cast();
            header.msg_namelen = mem::size_of::<sockaddr_storage>() as socklen_t;
            header.msg_iov = &raw mut self.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            header.msg_flags = 0;
        }
        // SAFETY: each header points at a vector, a buffer and an address of this object, with their true sizes.
        let count = unsafe {
            libc::recvmmsg(
                socket,
                self.headers.as_mut_ptr(),
                DATAGRAMS as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
    }

    /// A datagram of the last [`receive`](Self::receive): its source and its length; `None` where it was cut.
    pub fn received(&self, at: usize) -> Option<(SocketAddr, usize)> {
        let header = self.headers.get(at)?;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        Some((from_storage(&self.addresses[at])?, header.msg_len as usize))
    }

    /// Its buffer, with the room behind it.
    pub fn buffer(&mut self, at: usize) -> &mut [u8] {
        &mut self.buffers[at]
    }

    /// Puts a datagram among those that the next [`flush`](Self::flush) sends.
    pub fn queue(&mut self, outgoing: Outgoing) {
        if self.outgoing.len() < DATAGRAMS && outgoing.length <= BUFFER && outgoing.buffer < DATAGRAMS {
            self.outgoing.push(outgoing);
        }
    }

    /// Sends what is queued on one socket; how many the kernel did not take.
    pub fn flush(&mut self, socket: RawFd) -> usize {
        let total = self.outgoing.len();
        for (at, outgoing) in self.outgoing.iter().enumerate() {
            let length = to_storage(outgoing.to, &mut self.addresses[at]);
            self.vectors[at] = iovec {
                iov_base: self.buffers[outgoing.buffer].as_mut_ptr().cast(),
                iov_len: outgoing.length,
            };
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = (&raw mut self.addresses[at]).cast();
            header.msg_namelen = length;
            header.msg_iov = &raw mut self.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            header.msg_flags = 0;
        }
        let (mut sent, mut failed) = (0, 0);
        while sent + failed < total {
            let at = sent + failed;
            // SAFETY: as in `receive`; `at` is below `total`, which is at most `DATAGRAMS`.
            let count = unsafe {
                libc::sendmmsg(
                    socket,
                    self.headers.as_mut_ptr().add(at),
                    (total - at) as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if count > 0 {
                sent += count as usize;
            } else if count == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                // This one is lost, as any datagram may be; the next may go elsewhere.
                failed += 1;
            }
        }
        self.outgoing.clear();
        failed
    }
}

/// The address that the kernel wrote; `None` where it is none of IP.
pub(crate) fn from_storage(storage: &sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this storage holds a `sockaddr_in`, which is smaller and no more aligned.
            let v4 = unsafe { &*(&raw const *storage).cast::<sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: likewise for a `sockaddr_in6`.
            let v6 = unsafe { &*(&raw const *storage).cast::<sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

/// Writes it for the kernel; its length.
pub(crate) fn to_storage(address: SocketAddr, storage: &mut sockaddr_storage) -> socklen_t {
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: the storage is large and aligned enough for every socket address.
            let out = unsafe { &mut *(&raw mut *storage).cast::<sockaddr_in>() };
            out.sin_family = libc::AF_INET as libc::sa_family_t;
            out.sin_port = v4.port().to_be();
            out.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            mem::size_of::<sockaddr_in>() as socklen_t
        }
        SocketAddr::V6(v6) => {
            // SAFETY: likewise.
            let out = unsafe { &mut *(&raw mut *storage).cast::<sockaddr_in6>() };
            out.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            out.sin6_port = v6.port().to_be();
            out.sin6_flowinfo = 0;
            out.sin6_addr.s6_addr = v6.ip().octets();
            out.sin6_scope_id = v6.scope_id();
            mem::size_of::<sockaddr_in6>() as socklen_t
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    #[test]
    fn takes_and_sends_many_at_once() {
        for host in ["127.0.4.9:0", "[::1]:0"] {
            let (Ok(one), Ok(other)) = (UdpSocket::bind(host), UdpSocket::bind(host)) else {
                eprintln!("skipped: no {host} here");
                continue;
            };
            for n in 0..5u8 {
                one.send_to(&[n; 100], other.local_addr().unwrap()).unwrap();
            }
            one.send_to(&[9; 4000], other.local_addr().unwrap()).unwrap();
            let mut batch = Batch::new();
            assert_eq!(batch.receive(other.as_raw_fd()).unwrap(), 6);
            for at in 0..5 {
                assert_eq!(batch.received(at), Some((one.local_addr().unwrap(), 100)));
                assert_eq!(batch.buffer(at)[..100], [at as u8; 100]);
                batch.queue(Outgoing { buffer: at, length: 50 + at, to: one.local_addr().unwrap() });
            }
            assert_eq!(batch.received(5), None, "cut");
            assert_eq!(batch.flush(other.as_raw_fd()), 0);
            for at in 0..5 {
                let mut buffer = [0; 200];
                assert_eq!(one.recv_from(&mut buffer).unwrap(), (50 + at, other.local_addr().unwrap()));
            }
            assert_eq!(batch.receive(other.as_raw_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }
}
