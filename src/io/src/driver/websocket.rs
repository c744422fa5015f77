//! A WebSocket connection of a browser: handshake, then one SIP message a WebSocket message.
//!
//! RFC 6455, RFC 7118. In: an accepted stream (plain or TLS). Out: arrivals. Pings are sent and answered here, and so
//! are CRLF keep-alives (RFC 5626 §4.4.1); a peer that is silent for two pings is gone.

use super::connections::{Arrival, Arrivals, Ids, Outbox, Queue, flow, keepalive, queue};
use super::http::{self, Request, Verdict};
use super::{HANDSHAKE, WRITE, WebSocketOptions, web};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sipbox_core::flow::{Flow, ListenerId, Target, Transport};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// Without these, 10,000 idle browsers cost 1.2 GiB.
const READ_BUFFER: usize = 4096;

/// How a refused or closed peer may still read what we said.
const LINGER: Duration = Duration::from_secs(2);

/// Serves one connection to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    transport: Transport,
    listener: ListenerId,
    remote: SocketAddr,
    ids: Ids,
    options: Rc<WebSocketOptions>,
    arrivals: Arrivals,
) {
    let shaken = match timeout(HANDSHAKE, handshake(&mut stream, &options)).await {
        Ok(shaken) => shaken,
        Err(_) => {
            let _ = timeout(LINGER, stream.write_all(http::refusal(408).as_bytes())).await;
            Err(Some("no request in time".to_owned()))
        }
    };
    let early = match shaken {
        Ok(early) => early,
        Err(reason) => {
            let _ = timeout(LINGER, stream.shutdown()).await;
            if let Some(reason) = reason {
                let _ = arrivals.send(Arrival::Refused { transport, remote, reason }).await;
            }
            return;
        }
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(options.max_message))
        .max_frame_size(Some(options.max_message));
    let socket = WebSocketStream::from_partially_read(stream, early, Role::Server, Some(config)).await;
    let flow = flow(transport, listener, remote, ids.next());
    let (queue, outbox) = queue();
    run(socket, flow, queue, outbox, options.ping, arrivals).await;
}

/// Reads the request and answers it. `Ok` has what the client sent after it; `Err` the reason of a refusal, or
/// nothing where a file was served.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    options: &WebSocketOptions,
) -> Result<Vec<u8>, Option<String>> {
    let mut head = Vec::with_capacity(1024);
    let end = loop {
        if let Some(end) = http::head_end(&head) {
            break end;
        }
        if head.len() >= http::HEAD_BYTES {
            return Err(refuse(stream, 400, "the request's head is too long").await);
        }
        match stream.read_buf(&mut head).await {
            // A port scan, or a browser that opened a connection to spare.
            Ok(0) if head.is_empty() => return Err(None),
            Ok(0) | Err(_) => return Err(Some("closed within the request".to_owned())),
            Ok(_) => {}
        }
    };
    let early = head.split_off(end);
    let Some(request) = Request::parse(&head) else {
        return Err(refuse(stream, 400, "not an HTTP/1.1 request").await);
    };
    match http::judge(&request, options) {
        Verdict::Upgrade { accept } => match stream.write_all(http::switching(&accept).as_bytes()).await {
            Ok(()) => Ok(early),
            Err(error) => Err(Some(error.to_string())),
        },
        Verdict::Refuse { status, reason } => Err(refuse(stream, status, reason).await),
        Verdict::File { path, head_only } => {
            let root = options.web_root.clone();
            let file = match root {
                Some(root) => {
                    tokio::task::spawn_blocking(move || web::respond(&root, &path, head_only)).await
                }
                None => Ok(None),
            };
            match file {
                Ok(Some(response)) => {
                    let _ = stream.write_all(&response).await;
                    Err(None)
                }
                // A browser that asks for a favicon is no news.
                Ok(None) | Err(_) => {
                    let _ = refuse(stream, 404, "no such file").await;
                    Err(None)
                }
            }
        }
    }
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, status: u16, reason: &str) -> Option<String> {
    let _ = stream.write_all(http::refusal(status).as_bytes()).await;
    Some(format!("{status} {reason}"))
}

/// What a connection has come to.
enum End {
    /// The driver closed it.
    Wanted,
    Peer(String),
    /// Something could not be written, and what.
    Unwritten(String, Option<(Target, Bytes)>),
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    flow: Flow,
    queue: Queue,
    mut outbox: Outbox,
    ping: Duration,
    arrivals: Arrivals,
) {
    if arrivals.send(Arrival::Opened { flow, queue, certificate: None }).await.is_err() {
        return;
    }
    let end = pump(&mut socket, flow, &mut outbox, ping, &arrivals).await;
    let (reason, unwritten, code) = match end {
        End::Wanted => ("closed by us".to_owned(), None, CloseCode::Away),
        End::Peer(reason) => (reason, None, CloseCode::Normal),
        End::Unwritten(reason, item) => (reason, item, CloseCode::Normal),
    };
    let frame = CloseFrame { code, reason: "".into() };
    // Best effort: it may be the peer that is gone.
    let _ = timeout(LINGER, socket.close(Some(frame))).await;
    let unsent = outbox.unsent(unwritten);
    let _ = arrivals.send(Arrival::Closed { flow, opened: true, reason, unsent }).await;
}

async fn pump<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    flow: Flow,
    outbox: &mut Outbox,
    ping: Duration,
    arrivals: &Arrivals,
) -> End {
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + ping, ping);
    let mut silent = 0;
    loop {
        let write = tokio::select! {
            message = socket.next() => {
                silent = 0;
                let data: Bytes = match message {
                    Some(Ok(Message::Text(text))) => text.into(),
                    Some(Ok(Message::Binary(data))) => data,
                    // Pongs are sent by the library when it reads on.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_))) | None => return End::Peer("closed by the peer".to_owned()),
                    Some(Err(Error::ConnectionClosed)) => return End::Peer("closed by the peer".to_owned()),
                    Some(Err(error)) => return End::Peer(error.to_string()),
                };
                match keepalive(&data) {
                    None => {
                        if arrivals.send(Arrival::Packet { flow, data }).await.is_err() {
                            return End::Wanted;
                        }
                        continue;
                    }
                    Some(false) => continue,
                    Some(true) => (Message::text("\r\n"), None),
                }
            }
            item = outbox.next() => match item {
                Some((target, data)) => (message_of(&data), Some((target, data))),
                None => return End::Wanted,
            },
            _ = pings.tick() => {
                if silent == 2 {
                    return End::Peer("no answer to two pings".to_owned());
                }
                silent += 1;
                (Message::Ping(Bytes::new()), None)
            }
        };
        let (message, item) = write;
        match timeout(WRITE, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return End::Unwritten(error.to_string(), item),
            Err(_) => return End::Unwritten("the peer reads too slowly".to_owned(), item),
        }
    }
}

/// RFC 7118 §4.2: text where it is UTF-8, as browsers' stacks like it best.
fn message_of(data: &Bytes) -> Message {
    match Utf8Bytes::try_from(data.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(data.clone()),
    }
}
