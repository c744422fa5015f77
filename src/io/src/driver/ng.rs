//! Asks relays in rtpengine's ng protocol over UDP.
//!
//! In: one request's dictionary. Out: the reply's dictionary, or `None` when the last retransmission had no answer.
//! On the wire a cookie and a space stand before the dictionary; retransmissions carry the same cookie, so that the
//! relay answers them from its cache. Not here: what is in the dictionaries (`core::ng`).

use crate::services::ReplyTo;
use bytes::Bytes;
use sipbox_core::limits::NG_MESSAGE_BYTES;
use sipbox_core::machine::Reply;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::oneshot;

/// Pauses after the first sending and each retransmission; 3 seconds in all, after which the relay is taken for dead.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(900),
    Duration::from_millis(1200),
];

/// Who waits for which cookie, and from whom.
type Pending = Rc<RefCell<HashMap<Vec<u8>, (SocketAddr, oneshot::Sender<Bytes>)>>>;

/// The relays that one driver may ask.
pub(super) struct Relays {
    addresses: Vec<SocketAddr>,
    v4: Option<Rc<UdpSocket>>,
    v6: Option<Rc<UdpSocket>>,
    pending: Pending,
    /// Keeps the cookies of processes that share a relay apart.
    prefix: String,
    next: u64,
}

impl Relays {
    /// Must be called within a `LocalSet`.
    pub fn new(addresses: Vec<SocketAddr>) -> io::Result<Self> {
        let pending = Pending::default();
        let prefix = crate::entropy::rng()?.token(8);
        let mut relays = Relays { addresses, v4: None, v6: None, pending, prefix, next: 0 };
        if relays.addresses.iter().any(SocketAddr::is_ipv4) {
            relays.v4 = Some(open((Ipv4Addr::UNSPECIFIED, 0).into(), &relays.pending)?);
        }
        if relays.addresses.iter().any(SocketAddr::is_ipv6) {
            relays.v6 = Some(open((Ipv6Addr::UNSPECIFIED, 0).into(), &relays.pending)?);
        }
        Ok(relays)
    }

    pub fn ask(&mut self, relay: u16, request: Bytes, to: ReplyTo) {
        let address = self.addresses.get(usize::from(relay)).copied();
        let socket = address.and_then(|a| if a.is_ipv4() { self.v4.clone() } else { self.v6.clone() });
        let (Some(address), Some(socket)) = (address, socket) else {
            to.send(Reply::Relay(None));
            return;
        };
        self.next += 1;
        let cookie = format!("{}_{}", self.prefix, self.next).into_bytes();
        let packet = [&cookie, b" ".as_slice(), &request].concat();
        let (sender, mut receiver) = oneshot::channel();
        self.pending.borrow_mut().insert(cookie.clone(), (address, sender));
        let pending = self.pending.clone();
        tokio::task::spawn_local(async move {
            let mut reply = None;
            for pause in PAUSES {
                // A refusal is a loss: the relay may be starting.
                let _ = socket.send_to(&packet, address);
                if let Ok(answer) = tokio::time::timeout(pause, &mut receiver).await {
                    reply = answer.ok();
                    break;
                }
            }
            pending.borrow_mut().remove(&cookie);
            to.send(Reply::Relay(reply));
        });
    }
}

/// A socket, and the task that hands out what arrives on it.
fn open(address: SocketAddr, pending: &Pending) -> io::Result<Rc<UdpSocket>> {
    let socket = UdpSocket::bind(address)?;
    let reader = super::udp::for_reading(socket.try_clone()?)?;
    let pending = pending.clone();
    tokio::task::spawn_local(async move {
        let mut buffer = vec![0; NG_MESSAGE_BYTES];
        loop {
            // Errors are ICMP's about an earlier request, whose retransmissions go on.
            let received = reader.async_io(Interest::READABLE, |socket| socket.recv_from(&mut buffer)).await;
            let Ok((length, source)) = received else { continue };
            let data = buffer.get(..length).unwrap_or_default();
            let Some(space) = data.iter().position(|byte| *byte == b' ') else { continue };
            let (cookie, rest) = data.split_at(space);
            let mut pending = pending.borrow_mut();
            // An answer counts only from whom it was asked.
            if pending.get(cookie).is_some_and(|(address, _)| *address == source)
                && let Some((_, waiting)) = pending.remove(cookie)
            {
                let _ = waiting.send(Bytes::copy_from_slice(rest.get(1..).unwrap_or_default()));
            }
        }
    });
    Ok(Rc::new(socket))
}
