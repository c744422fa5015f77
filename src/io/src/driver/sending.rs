//! How a machine's messages leave: a UDP socket's batch, a connection's queue, a new connection, another worker's.
//!
//! RFC 3261 §18.1 and §18.2.2. In: a target and a message. Out: the message on its way, or, put aside for the machine, as
//! failed. Not here: what the sockets and connections do with it (`udp`, `stream`, `websocket`).

use super::connections::{self, NotSent};
use super::stream::Secure;
use super::workers::Passed;
use super::{Driver, stream};
use crate::tls;
use bytes::Bytes;
use sipbox_core::flow::{Flow, ListenerId, ServerKey, Target, Transport};
use sipbox_core::machine::Machine;
use std::net::SocketAddr;
use std::sync::PoisonError;

impl<M: Machine> Driver<M> {
    pub(super) fn transmit(&mut self, target: Target, data: Bytes) {
        self.options.metrics.sent(target.transport());
        if let Some(flood) = &self.flood {
            flood.borrow_mut().answered(self.options.clock.now(), target.remote().ip(), &data);
        }
        if self.options.hep.is_some() {
            // Also of what then cannot be sent: it is what we said.
            self.copy(listener_of(&target), target.transport(), target.remote(), false, &data);
        }
        self.send(target, data);
    }

    /// For `--hep`. Our end is the listener's address, also on a connection that we opened from another port.
    pub(super) fn copy(
        &mut self,
        listener: ListenerId,
        transport: Transport,
        remote: SocketAddr,
        received: bool,
        data: &[u8],
    ) {
        let local = self.listeners.iter().find(|l| l.id == listener).map(|l| l.local);
        if let (Some(hep), Some(local)) = (&mut self.options.hep, local) {
            let (source, destination) = if received { (remote, local) } else { (local, remote) };
            hep.copy(self.options.clock.now(), transport, source, destination, data);
        }
    }

    pub(super) fn send(&mut self, target: Target, data: Bytes) {
        match target.transport() {
            Transport::Udp => {
                let listener = listener_of(&target);
                match self.udp.iter_mut().find(|udp| udp.listener == listener) {
                    Some(udp) => udp.send(target, data),
                    None => self.not_sent(target, data, "no such listener"),
                }
            }
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                if let Some(owner) = self.connections.elsewhere(&target) {
                    return self.crew.pass(owner, Passed::Transmit { target, data });
                }
                match self.connections.send(target, data) {
                    Ok(()) => {}
                    Err(NotSent::Gone(target, data)) => self.open(target, data),
                    Err(NotSent::Full(target, data)) => {
                        self.not_sent(target, data, "the peer reads too slowly");
                    }
                }
            }
        }
    }

    /// Put aside, to be told to the machine when it has said all.
    fn not_sent(&mut self, target: Target, data: Bytes, error: &str) {
        tracing::debug!(peer = %format_args!("{}:{}", target.transport(), target.remote()), error, "send-failed");
        self.failed.push_back((target, data));
    }

    /// Sends what waits on the UDP sockets.
    pub(super) fn flush(&mut self) {
        let Driver { udp, datagrams, failed, .. } = self;
        for udp in udp {
            udp.flush(datagrams, |target, data, error| {
                tracing::debug!(peer = %format_args!("udp:{}", target.remote()), %error, "send-failed");
                failed.push_back((target, data));
            });
        }
    }

    /// Opens a connection to an address, with a first message.
    fn open(&mut self, target: Target, data: Bytes) {
        let Target::Address { listener, transport, remote, server } = target else {
            return self.not_sent(target, data, "the connection is gone");
        };
        let secure = match transport {
            Transport::Tcp => None,
            Transport::Tls => {
                let config = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let name = self.servers.get(&server).map(|name| &**name);
                match config {
                    Some(config) if name.is_some() || server == ServerKey::ADDRESS => {
                        Some(Secure { config: config.client, name: tls::server_name(name, remote.ip()) })
                    }
                    _ => return self.not_sent(target, data, "nobody knows who that server has to be"),
                }
            }
            Transport::Udp | Transport::Ws | Transport::Wss => {
                return self.not_sent(target, data, "connections of this kind are not opened by us");
            }
        };
        let Some(local) = self.listeners.iter().find(|l| l.id == listener).map(|l| l.local.ip()) else {
            return self.not_sent(target, data, "no such listener");
        };
        let place = match self.connections.places.take(remote.ip()) {
            Ok(place) => place,
            Err(reason) => return self.not_sent(target, data, reason),
        };
        let flow = connections::flow(transport, listener, remote, self.connections.ids.next());
        let (queue, outbox) = connections::queue();
        self.connections.opening(flow, queue, server);
        let (arrivals, dscp) = (self.arrivals.clone(), self.options.dscp);
        tokio::task::spawn_local(async move {
            stream::opened((local, dscp), flow, secure, outbox, arrivals).await;
            drop(place);
        });
        if let Err(NotSent::Gone(target, data) | NotSent::Full(target, data)) =
            self.connections.send(target, data)
        {
            self.not_sent(target, data, "the message is too long");
        }
    }

    pub(super) fn close_websockets(&mut self) {
        let open: Vec<Flow> =
            self.connections.flows().filter(|f| f.transport.is_websocket()).copied().collect();
        for flow in open {
            self.connections.remove(&flow);
        }
    }
}

fn listener_of(target: &Target) -> ListenerId {
    match target {
        Target::Flow(flow) => flow.listener,
        Target::Address { listener, .. } => *listener,
    }
}
