//! Accepts connections of one listener: a place, TLS where the transport has it, then the connection's task.
//!
//! Each handshake is a task of its own with a time limit, so that a silent peer holds up nobody.

use super::connections::{self, Arrival, Arrivals, Ids, Places};
use super::flood::Flood;
use super::{HANDSHAKE, WebSocketOptions, stream, websocket};
use crate::clock::Clock;
use crate::tls;
use rustls::pki_types::CertificateDer;
use sipbox_core::flow::{ListenerId, Transport};
use sipbox_core::machine::{Event, Level};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// After a failed accept (no file descriptors left): lets connections end before the next try.
const PAUSE: Duration = Duration::from_millis(100);

/// The certificates in use, for all workers; replaced on SIGHUP, for connections that come after it.
pub(super) type Certificates = Arc<Mutex<Option<tls::Configured>>>;

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Door {
    /// Who floods gets no connection.
    pub flood: Option<(Rc<RefCell<Flood>>, Clock)>,
    pub ids: Ids,
    pub places: Places,
    pub certificates: Certificates,
    pub websocket: Rc<WebSocketOptions>,
    pub arrivals: Arrivals,
}

/// Accepts until it is dropped.
pub(super) async fn run(socket: TcpListener, transport: Transport, listener: ListenerId, door: Door) {
    loop {
        let (stream, remote) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%transport, %error, "accept-failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Before the handshake, which costs us more than him.
        if let Some((flood, clock)) = &door.flood
            && flood.borrow().is_banned(clock.now(), remote.ip())
        {
            continue;
        }
        match door.places.take(remote.ip()) {
            Ok(place) => {
                let door = door.clone();
                tokio::task::spawn_local(async move {
                    connection(stream, transport, listener, remote, door).await;
                    drop(place);
                });
            }
            // Dropping the stream closes it. A report that finds no room is one of many: the log has the others.
            Err(reason) => {
                let _ =
                    door.arrivals.try_send(Arrival::Refused { transport, remote, reason: reason.to_owned() });
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    transport: Transport,
    listener: ListenerId,
    remote: SocketAddr,
    door: Door,
) {
    let _ = stream.set_nodelay(true);
    match transport {
        Transport::Udp | Transport::Tcp | Transport::Ws => {
            dispatch(stream, transport, listener, remote, None, door).await;
        }
        Transport::Tls | Transport::Wss => {
            let config = door.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(config) = config else { return };
            let refused = match timeout(HANDSHAKE, TlsAcceptor::from(config.server).accept(stream)).await {
                Ok(Ok(stream)) => {
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let shown = shown.map(|certificate| Box::new(certificate.clone().into_owned()));
                    return dispatch(stream, transport, listener, remote, shown, door).await;
                }
                // A port scan, or a health check: nothing was said.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => "TLS: closed".to_owned(),
                Ok(Err(error)) => {
                    let (name, mend) = tls::mend(&error, false);
                    let event = Event::new(Level::Warn, name)
                        .with("peer", format!("{transport}:{remote}"))
                        .with("reason", error)
                        .with("mend", mend);
                    let _ = door.arrivals.send(Arrival::NotSecured(Box::new(event))).await;
                    return;
                }
                Err(_) => "TLS: no handshake in time".to_owned(),
            };
            let _ = door.arrivals.send(Arrival::Refused { transport, remote, reason: refused }).await;
        }
    }
}

async fn dispatch<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    transport: Transport,
    listener: ListenerId,
    remote: SocketAddr,
    certificate: Option<Box<CertificateDer<'static>>>,
    door: Door,
) {
    match transport {
        Transport::Ws | Transport::Wss => {
            let Door { ids, websocket, arrivals, .. } = door;
            websocket::serve(stream, transport, listener, remote, ids, websocket, arrivals).await;
        }
        Transport::Udp | Transport::Tcp | Transport::Tls => {
            let flow = connections::flow(transport, listener, remote, door.ids.next());
            stream::accepted(stream, flow, certificate, door.arrivals).await;
        }
    }
}
