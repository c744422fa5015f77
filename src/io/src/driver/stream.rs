//! A TCP or TLS connection: reads bytes, cuts messages, writes what is queued.
//!
//! RFC 3261 §18.3 (Content-Length frames a stream), RFC 5626 §4.4.1 (a ping of two line breaks is answered with one).
//! In: an accepted stream, or an address to connect to. Out: arrivals, whole messages only. A stream that cannot be cut
//! is closed: after a wrong length nothing on it means anything.

use super::connections::{Arrival, Arrivals, Outbox, queue};
use super::{HANDSHAKE, WRITE};
use crate::listen::set_dscp;
use crate::tls;
use bytes::Bytes;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use sipbox_core::flow::{Flow, Target};
use sipbox_core::framing::{End, Frame, Framer};
use sipbox_core::machine::{Event, Level};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

/// A message must be whole this long after its first byte, and a new peer must have sent one.
const MESSAGE: Duration = Duration::from_secs(30);
/// Silence after which a connection is closed: longer than a phone's longest registration.
const IDLE: Duration = Duration::from_secs(3900);
/// Bytes that are read at a time.
const READ: usize = 4096;
/// Bytes from which on no further message is written together with those before.
const BATCH_BYTES: usize = 16_384;

/// Serves an accepted connection to its end.
pub(super) async fn accepted<S: AsyncRead + AsyncWrite>(
    stream: S,
    flow: Flow,
    certificate: Option<Box<CertificateDer<'static>>>,
    arrivals: Arrivals,
) {
    let (queue, outbox) = queue();
    if arrivals.send(Arrival::Opened { flow, queue, certificate }).await.is_ok() {
        // It came to say something.
        run(stream, flow, outbox, arrivals, End::Server, MESSAGE).await;
    }
}

/// How a TLS connection that we open is secured.
pub(super) struct Secure {
    pub config: Arc<ClientConfig>,
    /// Who the peer has to be.
    pub name: ServerName<'static>,
}

/// Connects from `local`, marked by `dscp`, and serves the connection to its end.
pub(super) async fn opened(
    (local, dscp): (IpAddr, u8),
    flow: Flow,
    secure: Option<Secure>,
    outbox: Outbox,
    arrivals: Arrivals,
) {
    let reason = match timeout(HANDSHAKE, connect(local, dscp, flow.remote)).await {
        Ok(Ok(stream)) => match secure {
            None => return established(stream, flow, outbox, arrivals).await,
            Some(Secure { config, name }) => {
                let wanted = name.to_str().into_owned();
                match timeout(HANDSHAKE, TlsConnector::from(config).connect(name, stream)).await {
                    Ok(Ok(stream)) => return established(stream, flow, outbox, arrivals).await,
                    Ok(Err(error)) => {
                        let (event, mend) = tls::mend(&error, true);
                        let event = Event::new(Level::Warn, event)
                            .with("peer", flow)
                            .with("name", wanted)
                            .with("reason", &error)
                            .with("mend", mend);
                        let _ = arrivals.send(Arrival::NotSecured(Box::new(event))).await;
                        format!("TLS: {error}")
                    }
                    Err(_) => "TLS: no handshake in time".to_owned(),
                }
            }
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no connection in time".to_owned(),
    };
    let unsent = outbox.unsent(None);
    let _ = arrivals.send(Arrival::Closed { flow, opened: false, reason, unsent }).await;
}

async fn connect(local: IpAddr, dscp: u8, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = match remote {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The listener's address, so that the peer's view of us is one; any port.
    if !local.is_unspecified() && local.is_ipv4() == remote.is_ipv4() {
        socket.bind((local, 0).into())?;
    }
    if dscp != 0 {
        set_dscp(&(&socket).into(), remote.is_ipv6(), dscp)?;
    }
    let stream = socket.connect(remote).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn established<S: AsyncRead + AsyncWrite>(stream: S, flow: Flow, outbox: Outbox, arrivals: Arrivals) {
    if arrivals.send(Arrival::Established { flow }).await.is_ok() {
        run(stream, flow, outbox, arrivals, End::Client, IDLE).await;
    }
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
) -> (String, Vec<(Target, Bytes)>) {
    let mut deadline = Instant::now() + first;
    let mut batch = Vec::new();
    loop {
        framer.buffer_mut().reserve(READ);
        tokio::select! {
            // Cancel safe: bytes that were read are in the buffer.
            read = reader.read_buf(framer.buffer_mut()) => {
                match read {
                    Ok(0) => return ("closed by the peer".to_owned(), Vec::new()),
                    Ok(_) => {}
                    Err(error) => return (error.to_string(), Vec::new()),
                }
                let mut whole = false;
                loop {
                    match framer.next() {
                        Ok(Some(Frame::Message(data))) => {
                            whole = true;
                            if arrivals.send(Arrival::Packet { flow, data }).await.is_err() {
                                return ("closed by us".to_owned(), Vec::new());
                            }
                        }
                        Ok(Some(Frame::Ping)) => {
                            whole = true;
                            if let Err((reason, _)) = write(writer, b"\r\n").await {
                                return (reason, Vec::new());
                            }
                        }
                        Ok(Some(Frame::Pong)) => whole = true,
                        Ok(None) => break,
                        Err(error) => return (format!("framing: {error}"), Vec::new()),
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
                Some(item) => {
                    gather(item, outbox, &mut batch);
                    if let Err(reason) = write_batch(writer, &mut batch).await {
                        return (reason, batch);
                    }
                    if !framer.is_partial() {
                        deadline = Instant::now() + IDLE;
                    }
                }
                None => return ("closed by us".to_owned(), Vec::new()),
            },
            () = sleep_until(deadline) => return ("nothing whole came in time".to_owned(), Vec::new()),
        }
    }
}

/// What waits goes out together, in one system call and under TLS in few records.
fn gather(first: (Target, Bytes), outbox: &mut Outbox, batch: &mut Vec<(Target, Bytes)>) {
    let mut length = first.1.len();
    batch.push(first);
    while length < BATCH_BYTES
        && let Some(item) = outbox.try_next()
    {
        length += item.1.len();
        batch.push(item);
    }
}

/// Empties it, or leaves what could not be written, the one that was begun with it.
async fn write_batch<S: AsyncWrite>(
    writer: &mut WriteHalf<S>,
    batch: &mut Vec<(Target, Bytes)>,
) -> Result<(), String> {
    let done = match &batch[..] {
        [(_, data)] => write(writer, data).await,
        all => {
            let parts: Vec<&[u8]> = all.iter().map(|(_, data)| &data[..]).collect();
            write(writer, &parts.concat()).await
        }
    };
    let Err((reason, mut written)) = done else {
        batch.clear();
        return Ok(());
    };
    batch.retain(|(_, data)| {
        let whole = written >= data.len();
        written = if whole { written - data.len() } else { 0 };
        !whole
    });
    Err(reason)
}

/// Why it failed, and how many bytes had gone.
async fn write<S: AsyncWrite>(writer: &mut WriteHalf<S>, data: &[u8]) -> Result<(), (String, usize)> {
    let mut written = 0;
    let writing = async {
        while written < data.len() {
            match writer.write(&data[written..]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                length => written += length,
            }
        }
        writer.flush().await
    };
    match timeout(WRITE, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err((error.to_string(), written)),
        Err(_) => Err(("the peer reads too slowly".to_owned(), written)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sipbox_core::flow::{ListenerId, Transport};

    fn item(byte: u8) -> (Target, Bytes) {
        let remote = ([192, 0, 2, 1], 5060).into();
        let flow = Flow { transport: Transport::Tcp, listener: ListenerId(0), remote, connection: None };
        (Target::Flow(flow), vec![byte; 50].into())
    }

    /// Seventy bytes are taken of three messages of fifty: the first one went, the second was begun.
    #[tokio::test]
    async fn what_was_not_wholly_written_together_is_left() {
        let (ours, theirs) = tokio::io::duplex(70);
        let (_reader, mut writer) = tokio::io::split(ours);
        let mut batch: Vec<_> = (0..3).map(item).collect();
        let gone = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(theirs);
        };
        let (done, ()) = tokio::join!(write_batch(&mut writer, &mut batch), gone);
        assert!(done.is_err());
        assert_eq!(batch, [item(1), item(2)]);
        let (ours, mut theirs) = tokio::io::duplex(200);
        let (_reader, mut writer) = tokio::io::split(ours);
        batch.insert(0, item(0));
        write_batch(&mut writer, &mut batch).await.unwrap();
        let mut heard = [0; 150];
        theirs.read_exact(&mut heard).await.unwrap();
        assert!(batch.is_empty() && heard == [[0; 50], [1; 50], [2; 50]].concat()[..]);
    }

    /// What waits goes together, up to a bound; the rest waits for its turn.
    #[tokio::test]
    async fn a_batch_has_an_end() {
        let (queue, mut outbox) = queue();
        let long = |byte| (item(byte).0, Bytes::from(vec![byte; 9_000]));
        for byte in 0..4 {
            assert!(queue.push(long(byte).0, long(byte).1).is_ok());
        }
        let mut batch = Vec::new();
        let first = outbox.next().await.unwrap();
        gather(first, &mut outbox, &mut batch);
        assert_eq!(batch, [long(0), long(1)]);
        assert_eq!(outbox.unsent(None), [long(2), long(3)]);
    }
}
