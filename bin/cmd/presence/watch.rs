//! `presence watch`: a watcher on the command line, over UDP.

use super::user_at_domain;
use crate::common::usage;
use crate::exit::{Code, Failure};
use crate::output::Output;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::json;
use sipbox_core::client::watch::{Config, News, Watcher};
use sipbox_core::flow::{Flow, ListenerId, ServerKey, Target, Transport};
use sipbox_core::limits;
use sipbox_core::presence::document;
use sipbox_core::sip::Uri;
use sipbox_core::store::presence::Package;
use sipbox_io::clock::Clock;
use sipbox_io::{entropy, listen};
use std::io::Read;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};

/// Longest password on standard input.
const PASSWORD_BYTES: u64 = 1024;

#[derive(Args, Clone, Debug)]
pub struct Watch {
    /// Whom to watch: sip:USER@DOMAIN
    #[arg(value_name = "URI")]
    uri: String,
    /// Who watches: USER@DOMAIN
    #[arg(long, value_name = "AOR")]
    user: String,
    /// Read the password from standard input, up to its first line end
    #[arg(long, required = true)]
    password_stdin: bool,
    /// The proxy or presence server, HOST[:PORT], by UDP [default: the host of the URI]
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<String>,
    /// What to watch
    #[arg(long, value_enum, default_value_t = Event::Presence)]
    event: Event,
    /// How long a subscription is asked for; it is refreshed before
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..))]
    expires: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Event {
    Presence,
    Dialog,
}

impl Watch {
    pub fn run(self) -> Result<(), Failure> {
        let user = user_at_domain(&self.user)?;
        let aor = user_at_domain(&self.uri)?;
        let remote = self.remote()?;
        let password = password()?;
        let package = match self.event {
            Event::Presence => Package::Presence,
            Event::Dialog => Package::Dialog,
        };
        let config = |local: SocketAddr, target| Config {
            user: user.user.clone(),
            domain: user.domain.clone(),
            password: password.clone(),
            uri: format!("sip:{aor}"),
            event: package.as_str(),
            accept: package.content_type(),
            target,
            sent_by: local.to_string(),
            expires: Duration::from_secs(self.expires.into()),
            agent: format!("sipbox/{}", env!("CARGO_PKG_VERSION")),
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system)?
            .block_on(watch(remote, config, package))
    }

    fn remote(&self) -> Result<SocketAddr, Failure> {
        let (flag, text) = match &self.server {
            Some(server) => ("--server ", server.as_str()),
            None => ("", self.uri.as_str()),
        };
        let fault = |what: &str| usage(format!("{flag}{text}: {what}"));
        let (host, port) = match &self.server {
            Some(server) => {
                let server = server.strip_prefix("udp:").unwrap_or(server);
                let (host, port) = listen::split_host_port(server).map_err(fault)?;
                (host.to_owned(), port)
            }
            None => {
                let uri = if text.contains(':') { text.to_owned() } else { format!("sip:{text}") };
                let uri = Uri::parse(uri.as_bytes()).map_err(|_| fault("no SIP address"))?;
                (uri.host.to_owned(), uri.port)
            }
        };
        let port = port.unwrap_or(Transport::Udp.default_port());
        let found = (host.trim_matches(['[', ']']), port).to_socket_addrs().map(|mut found| found.next());
        found.ok().flatten().ok_or_else(|| {
            Failure::new(Code::Unavailable, format!("{flag}{text}: the host has no address; give --server"))
        })
    }
}

fn system(error: std::io::Error) -> Failure {
    Failure::new(Code::System, error.to_string())
}

/// The first line of standard input.
fn password() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(PASSWORD_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(Code::NoInput, format!("--password-stdin: {error}")))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(Failure::new(Code::NoInput, "--password-stdin: standard input has no password")),
    }
}

async fn watch(
    remote: SocketAddr,
    config: impl Fn(SocketAddr, Target) -> Config,
    package: Package,
) -> Result<(), Failure> {
    let any: SocketAddr = if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(system)?;
    // Connected: its address is the one that faces the server, and nobody else is heard.
    socket.connect(remote).await.map_err(system)?;
    let local = socket.local_addr().map_err(system)?;
    let (mut stop, mut interrupt) =
        (signal(SignalKind::terminate()).map_err(system)?, signal(SignalKind::interrupt()).map_err(system)?);
    let listener = ListenerId(0);
    let flow = Flow { transport: Transport::Udp, listener, remote, connection: None };
    let target = Target::Address { listener, transport: Transport::Udp, remote, server: ServerKey::ADDRESS };
    let clock = Clock::start();
    let mut watcher = Watcher::new(config(local, target), clock.now(), entropy::rng().map_err(system)?);
    let mut out = Output::new();
    let mut buffer = vec![0; limits::SIP_MESSAGE_BYTES];
    loop {
        while let Some((_, data)) = watcher.poll_transmit() {
            // What is refused (nobody there) is as good as lost: it is sent again, or times out.
            let _ = socket.send(&data).await;
        }
        while let Some(news) = watcher.poll_news() {
            match news {
                News::Notified { state, reason, expires, content_type, body } => {
                    out.record(&json!({
                        "event": "notify",
                        "time": clock.now().rfc3339(),
                        "state": state,
                        "reason": reason,
                        "expires": expires,
                        "package": package.as_str(),
                        "basic": (package == Package::Presence).then(|| document::basic(&body)).flatten(),
                        "content_type": content_type,
                        "body": body,
                    }))?;
                    out.flush()?;
                }
                News::Refused { status, reason } => {
                    let code = if status == 408 { Code::Unavailable } else { Code::Failed };
                    return Err(Failure::new(code, format!("{remote}: SUBSCRIBE got {status} {reason}")));
                }
                News::Ended => return Ok(()),
            }
        }
        let timeout = watcher.poll_timeout().map(|at| clock.to_std(at).into());
        let sleep = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                if let Ok(length) = received {
                    let data = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                    watcher.handle_packet(clock.now(), flow, &data);
                }
            }
            () = sleep => watcher.handle_timeout(clock.now()),
            _ = stop.recv() => watcher.stop(clock.now()),
            _ = interrupt.recv() => watcher.stop(clock.now()),
        }
    }
}
