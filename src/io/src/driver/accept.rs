//! Accepts connections of one listener: a place, TLS where the transport has it, then the connection's task.
//!
//! Each handshake is a task of its own with a time limit, so that a silent peer holds up nobody.

use super::connections::{Arrival, Arrivals, Ids, Places};
use super::{HANDSHAKE, WebSocketOptions, stream, websocket};
use rustls::ServerConfig;
use sipbox_core::flow::{ListenerId, Transport};
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
pub(super) type Certificates = Arc<Mutex<Option<Arc<ServerConfig>>>>;

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Door {
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
            dispatch(stream, transport, listener, remote, door).await;
        }
        Transport::Tls | Transport::Wss => {
            let config = door.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(config) = config else { return };
            let refused = match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
                Ok(Ok(stream)) => return dispatch(stream, transport, listener, remote, door).await,
                Ok(Err(error)) => format!("TLS: {error}"),
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
    door: Door,
) {
    match transport {
        Transport::Ws | Transport::Wss => {
            let Door { ids, websocket, arrivals, .. } = door;
            websocket::serve(stream, transport, listener, remote, ids, websocket, arrivals).await;
        }
        Transport::Udp | Transport::Tcp | Transport::Tls => {
            stream::accepted(stream, transport, listener, remote, door.ids, door.arrivals).await;
        }
    }
}
