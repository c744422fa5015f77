//! The client's end of SIP over WebSocket: what a browser does before it can register.
//!
//! RFC 6455 §4.1, RFC 7118 §4: sub-protocol `sip`, one SIP message in one WebSocket message. In go a URI and whom to
//! trust, out come whole SIP messages. Not here: the server's end (`listen`), SIP.

use crate::start::{Kind, StartError};
use crate::tls;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use sipbox_core::limits;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// How long a connection with all its handshakes may take.
const CONNECT: Duration = Duration::from_secs(10);

/// `ws://HOST:PORT/PATH`, or `ws:HOST:PORT` as a server's ready line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub secure: bool,
    /// IPv6 with brackets.
    pub host: String,
    pub port: u16,
    pub path: String,
}

impl Address {
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let secure = match scheme {
            "ws" => false,
            "wss" => true,
            _ => return None,
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let bracket = authority.rfind(']').unwrap_or(0);
        let (host, port) = match authority[bracket..].find(':') {
            Some(colon) => (&authority[..bracket + colon], authority[bracket + colon + 1..].parse().ok()?),
            None => (authority, if secure { 443 } else { 80 }),
        };
        let plain = !host.is_empty() && !host.contains(['@', ' ']);
        plain.then(|| Address { secure, host: host.to_owned(), port, path: path.to_owned() })
    }

    /// Without the brackets of IPv6.
    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

/// Whose certificate is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The authorities that the system trusts.
    System,
    /// Those in this PEM file.
    File(PathBuf),
    /// Anybody's: the connection is encrypted, towards whoever it may be.
    Anybody,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An open connection.
pub struct Socket {
    stream: WebSocketStream<Box<dyn Stream>>,
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl Socket {
    /// Connects and asks for SIP.
    pub async fn connect(address: &Address, trust: &Trust) -> Result<Self, StartError> {
        match tokio::time::timeout(CONNECT, Self::dial(address, trust)).await {
            Ok(done) => done,
            Err(_) => Err(unavailable(address, "no answer within 10 s; check address and port")),
        }
    }

    async fn dial(address: &Address, trust: &Trust) -> Result<Self, StartError> {
        let tcp = TcpStream::connect((address.bare_host(), address.port))
            .await
            .map_err(|error| unavailable(address, &format!("{error}; is the server running there?")))?;
        let io = |error: std::io::Error| unavailable(address, &error.to_string());
        tcp.set_nodelay(true).map_err(io)?;
        let (local, remote) = (tcp.local_addr().map_err(io)?, tcp.peer_addr().map_err(io)?);
        let stream: Box<dyn Stream> = if address.secure {
            let name = ServerName::try_from(address.bare_host().to_owned())
                .map_err(|_| unavailable(address, "its host is no name for a certificate"))?;
            let connector = TlsConnector::from(Arc::new(client_config(trust)?));
            Box::new(connector.connect(name, tcp).await.map_err(|error| {
                unavailable(
                    address,
                    &format!("TLS: {error}; --tls-ca names its authority, --tls-insecure asks for none"),
                )
            })?)
        } else {
            Box::new(tcp)
        };
        let mut request = address
            .to_string()
            .into_client_request()
            .map_err(|error| StartError::new(Kind::Usage, format!("{address}: {error}")))?;
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", HeaderValue::from_static("sip"));
        // What a page from that very host would send.
        let scheme = if address.secure { "https" } else { "http" };
        if let Ok(origin) = HeaderValue::from_str(&format!("{scheme}://{}:{}", address.host, address.port)) {
            headers.insert("Origin", origin);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .max_message_size(Some(limits::SIP_MESSAGE_BYTES))
            .max_frame_size(Some(limits::SIP_MESSAGE_BYTES));
        let (stream, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|error| unavailable(address, &format!("WebSocket: {error}")))?;
        Ok(Socket { stream, local, remote })
    }

    /// Sends one SIP message.
    pub async fn send(&mut self, message: &Bytes) -> std::io::Result<()> {
        // Text where it is text: some proxies log and check only that (RFC 7118 §4.2 allows both).
        let message = match std::str::from_utf8(message) {
            Ok(text) => Message::text(text),
            Err(_) => Message::Binary(message.clone()),
        };
        self.stream.send(message).await.map_err(std::io::Error::other)
    }

    /// The next SIP message; `None` once the connection is gone. Pings are answered and keep-alives passed over here.
    /// May be dropped between two messages and called again.
    pub async fn receive(&mut self) -> Option<Bytes> {
        loop {
            let data = match self.stream.next().await?.ok()? {
                Message::Text(text) => Bytes::from(text),
                Message::Binary(data) => data,
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if data.iter().any(|&byte| !matches!(byte, b'\r' | b'\n')) {
                return Some(data);
            }
        }
    }

    /// Says good-bye.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.close(None)).await;
    }
}

fn unavailable(address: &Address, why: &str) -> StartError {
    StartError::new(Kind::Unavailable, format!("{address}: {why}"))
}

fn client_config(trust: &Trust) -> Result<ClientConfig, StartError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError::new(Kind::Config, format!("TLS: {error}")))?;
    let certificates = match trust {
        Trust::Anybody => {
            let verifier = Arc::new(tls::Anybody(provider));
            return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
        }
        Trust::System => tls::of_the_system(),
        Trust::File(path) => tls::authorities(path)?,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let shown = |text: &str| Address::parse(text).map(|address| address.to_string());
        assert_eq!(shown("wss://example.com").as_deref(), Some("wss://example.com:443/"));
        assert_eq!(shown("ws:127.0.0.1:8080").as_deref(), Some("ws://127.0.0.1:8080/"));
        assert_eq!(shown("wss://[2001:db8::1]:8443/sip").as_deref(), Some("wss://[2001:db8::1]:8443/sip"));
        assert_eq!(shown("ws://[::1]").as_deref(), Some("ws://[::1]:80/"));
        for bad in ["http://example.com", "wss:", "ws://example.com:70000", "ws://a b", "example.com"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
