//! A TCP or TLS connection: reads bytes, cuts messages, writes what is queued.
//!
//! RFC 3261 §18.3 (Content-Length frames a stream), RFC 5626 §4.4.1 (a ping of two line breaks is answered with one).
//! In: an accepted stream, or an address to connect to. Out: arrivals, whole messages only. A stream that cannot be cut
//! is closed: after a wrong length nothing on it means anything.

use super::connections::{self, Arrival, Arrivals, Ids, Outbox, queue};
use super::{HANDSHAKE, WRITE};
use bytes::Bytes;
use sipbox_core::flow::{Flow, ListenerId, Target, Transport};
use sipbox_core::framing::{End, Frame, Framer};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep_until, timeout};

/// A message must be whole this long after its first byte, and a new peer must have sent one.
const MESSAGE: Duration = Duration::from_secs(30);
/// Silence after which a connection is closed: longer than a phone's longest registration.
const IDLE: Duration = Duration::from_secs(3900);
/// Bytes that are read at a time.
const READ: usize = 4096;

/// Serves an accepted connection to its end.
pub(super) async fn accepted<S: AsyncRead + AsyncWrite>(
    stream: S,
    transport: Transport,
    listener: ListenerId,
    remote: SocketAddr,
    ids: Ids,
    arrivals: Arrivals,
) {
    let flow = connections::flow(transport, listener, remote, ids.next());
    let (queue, outbox) = queue();
    if arrivals.send(Arrival::Opened { flow, queue }).await.is_ok() {
        // It came to say something.
        run(stream, flow, outbox, arrivals, End::Server, MESSAGE).await;
    }
}

/// Connects from `local`, and serves the connection to its end.
pub(super) async fn opened(local: IpAddr, flow: Flow, outbox: Outbox, arrivals: Arrivals) {
    let connecting = async {
        let socket = match flow.remote {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // The listener's address, so that the peer's view of us is one; any port.
        if !local.is_unspecified() && local.is_ipv4() == flow.remote.is_ipv4() {
            socket.bind((local, 0).into())?;
        }
        let stream = socket.connect(flow.remote).await?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    };
    let reason = match timeout(HANDSHAKE, connecting).await {
        Ok(Ok(stream)) => {
            if arrivals.send(Arrival::Established { flow }).await.is_ok() {
                run(stream, flow, outbox, arrivals, End::Client, IDLE).await;
            }
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no connection in time".to_owned(),
    };
    let unsent = outbox.unsent(None);
    let _ = arrivals.send(Arrival::Closed { flow, opened: false, reason, unsent }).await;
}

async fn run<S: AsyncRead + AsyncWrite>(
    stream: S,
    flow: Flow,
    mut outbox: Outbox,
    arrivals: Arrivals,
    end: End,
    first: Duration,
) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut framer = Framer::new(end);
    let (reason, unwritten) =
        pump(reader, &mut writer, flow, &mut outbox, &arrivals, (&mut framer, first)).await;
    let _ = timeout(WRITE, writer.shutdown()).await;
    let unsent = outbox.unsent(unwritten);
    let _ = arrivals.send(Arrival::Closed { flow, opened: true, reason, unsent }).await;
}

/// Until its end; why, and what could not be written.
async fn pump<S: AsyncRead + AsyncWrite>(
    mut reader: ReadHalf<S>,
    writer: &mut WriteHalf<S>,
    flow: Flow,
    outbox: &mut Outbox,
    arrivals: &Arrivals,
    (framer, first): (&mut Framer, Duration),
) -> (String, Option<(Target, Bytes)>) {
    let mut deadline = Instant::now() + first;
    loop {
        framer.buffer_mut().reserve(READ);
        tokio::select! {
            // Cancel safe: bytes that were read are in the buffer.
            read = reader.read_buf(framer.buffer_mut()) => {
                match read {
                    Ok(0) => return ("closed by the peer".to_owned(), None),
                    Ok(_) => {}
                    Err(error) => return (error.to_string(), None),
                }
                let mut whole = false;
                loop {
                    match framer.next() {
                        Ok(Some(Frame::Message(data))) => {
                            whole = true;
                            if arrivals.send(Arrival::Packet { flow, data }).await.is_err() {
                                return ("closed by us".to_owned(), None);
                            }
                        }
                        Ok(Some(Frame::Ping)) => {
                            whole = true;
                            if let Err(reason) = write(writer, b"\r\n").await {
                                return (reason, None);
                            }
                        }
                        Ok(Some(Frame::Pong)) => whole = true,
                        Ok(None) => break,
                        Err(error) => return (format!("framing: {error}"), None),
                    }
                }
                let now = Instant::now();
                deadline = match (framer.is_partial(), whole) {
                    (false, _) => now + IDLE,
                    // A part of a message: it has until then from its first byte.
                    (true, true) => now + MESSAGE,
                    (true, false) => deadline.min(now + MESSAGE),
                };
            }
            item = outbox.next() => match item {
                Some((target, data)) => {
                    if let Err(reason) = write(writer, &data).await {
                        return (reason, Some((target, data)));
                    }
                    if !framer.is_partial() {
                        deadline = Instant::now() + IDLE;
                    }
                }
                None => return ("closed by us".to_owned(), None),
            },
            () = sleep_until(deadline) => return ("nothing whole came in time".to_owned(), None),
        }
    }
}

async fn write<S: AsyncWrite>(writer: &mut WriteHalf<S>, data: &[u8]) -> Result<(), String> {
    let writing = async {
        writer.write_all(data).await?;
        writer.flush().await
    };
    match timeout(WRITE, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the peer reads too slowly".to_owned()),
    }
}
