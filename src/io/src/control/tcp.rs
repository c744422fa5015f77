//! `--control tcp:`: ng over connections.
//!
//! In: a listening socket, what comes on its connections. Out: requests for the control thread, each with the way back for its
//! reply; a reply to JSON ends with a line's end, one to bencode where the dictionary does. A stream that is no ng is closed.
//! Not here: where a message ends (`sipbox_core::ng`), what is answered (`sipbox_core::relay`).

use super::{Asked, Back, Gate};
use sipbox_core::limits::NG_CONNECTIONS;
use sipbox_core::ng::Framer;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Bytes of one read.
const READ: usize = 8_192;
/// An asker that takes no reply for so long is gone.
const WRITE: Duration = Duration::from_secs(10);
/// After an error of accept(2), mostly too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes connections until the control thread ends.
pub(super) async fn accept(listener: TcpListener, queue: mpsc::Sender<Asked>, mut gate: Gate) {
    let open = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok((_, peer)) if !gate.admits(peer) => {}
            Ok((_, peer)) if open.get() >= NG_CONNECTIONS => {
                tracing::warn!(%peer, most = NG_CONNECTIONS, "control-connections");
            }
            Ok((stream, peer)) => {
                open.set(open.get() + 1);
                let (queue, open) = (queue.clone(), open.clone());
                tokio::task::spawn_local(async move {
                    if let Err(error) = serve(stream, peer, &queue).await {
                        tracing::debug!(%peer, %error, "control-closed");
                    }
                    open.set(open.get() - 1);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control-accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, peer: SocketAddr, queue: &mpsc::Sender<Asked>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let mut framer = Framer::default();
    let mut buffer = vec![0; READ];
    // One request at a time: who sends more before it reads has them wait in the kernel.
    let (back, mut replies) = mpsc::channel(1);
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        framer.push(buffer.get(..length).unwrap_or_default());
        while let Some(message) = framer.next_message() {
            let data = message.map_err(io::Error::other)?;
            let asked = Asked { back: Back::Tcp(back.clone()), source: peer, data };
            if queue.send(asked).await.is_err() {
                return Ok(());
            }
            if let Some(Some(mut reply)) = replies.recv().await {
                if reply.ends_with(b"}") {
                    reply.push(b'\n');
                }
                timeout(WRITE, stream.write_all(&reply)).await.map_err(io::Error::other)??;
            }
        }
    }
}
