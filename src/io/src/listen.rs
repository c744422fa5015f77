//! `--listen URI[!ADVERTISED]`: parsing and binding.
//!
//! In: what stands on the command line. Out: bound sockets with their real ports, and the
//! [`Listener`]s that machines see. Everything that can be wrong is told here, at start, with the flag's name.
//! Sockets are bound without SO_REUSEPORT, which would hide that another sipbox has the port already.

use crate::start::{Kind, StartError};
use sipbox_core::flow::{Listener, ListenerId, Transport};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};

/// Listeners that one process may have: [`ListenerId`] has eight bits, and tokens carry it.
const LISTENERS: usize = 64;
/// UDP receive buffer: some thousand messages may wait while a batch is worked on. The system may grant less.
const UDP_RECEIVE_BUFFER: usize = 4 << 20;
/// Connections that may wait to be accepted; the system may grant less.
const BACKLOG: i32 = 4096;

/// One `--listen`, checked but not bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The flag that it came from, for messages.
    pub flag: &'static str,
    pub text: String,
    pub transport: Transport,
    pub address: SocketAddr,
    /// HOST (IPv6 in brackets) and PORT that peers are told.
    pub advertised: Option<(String, Option<u16>)>,
}

/// A bound socket.
#[derive(Debug)]
pub enum Socket {
    Udp(UdpSocket),
    /// Also under TLS and WebSocket.
    Tcp(TcpListener),
}

/// A listener with its socket.
#[derive(Debug)]
pub struct Bound {
    pub listener: Listener,
    pub socket: Socket,
}

/// Checks one URI. `allowed` are the transports that the command has.
pub fn parse(flag: &'static str, text: &str, allowed: &[Transport]) -> Result<Spec, StartError> {
    let fault = |what: String| Err(StartError::new(Kind::Usage, format!("{flag} {text}: {what}")));
    let kinds = || allowed.iter().map(|t| format!("{t}:")).collect::<Vec<_>>().join(" ");
    let (uri, advertised) = match text.split_once('!') {
        Some((uri, advertised)) => (uri, Some(advertised)),
        None => (text, None),
    };
    let Some((scheme, host_port)) = uri.split_once(':') else {
        return fault(format!("no transport; write one of {} before HOST:PORT", kinds()));
    };
    let Some(transport) = allowed.iter().copied().find(|t| t.to_string() == scheme.to_ascii_lowercase())
    else {
        return fault(format!("transport '{scheme}' is not one of {}", kinds()));
    };
    let (host, port) = match split_host_port(host_port) {
        Ok((host, port)) => (host, port.unwrap_or(transport.default_port())),
        Err(what) => return fault(what.to_owned()),
    };
    let address = match (host.trim_start_matches('[').trim_end_matches(']'), port).to_socket_addrs() {
        Ok(mut addresses) => match addresses.next() {
            Some(address) => address,
            None => return fault(format!("host '{host}' has no address; give an address of this machine")),
        },
        Err(error) => return fault(format!("host '{host}': {error}; give an address of this machine")),
    };
    let advertised = match advertised.map(split_host_port) {
        Some(Ok((host, port))) => Some((host.to_owned(), port)),
        Some(Err(what)) => return fault(format!("after '!': {what}")),
        None => None,
    };
    Ok(Spec { flag, text: text.to_owned(), transport, address, advertised })
}

/// HOST, HOST:PORT, [IPv6] or [IPv6]:PORT; the host keeps its brackets.
pub fn split_host_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or("'[' without ']'")?;
        let (host, rest) = text.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err("after ']' there may only be :PORT"),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("put an IPv6 address in brackets"),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() || host == "[]" {
        return Err("no host");
    }
    match port {
        None => Ok((host, None)),
        Some(port) => {
            port.parse().map(|port| (host, Some(port))).map_err(|_| "the port is not a number up to 65535")
        }
    }
}

/// An IP address as a SIP URI or Via has it.
pub fn uri_host(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

/// Binds all, in order; ids are the positions. `advertise` is the host for those that have none of their own.
pub fn bind(specs: &[Spec], advertise: Option<&str>) -> Result<Vec<Bound>, StartError> {
    if specs.len() > LISTENERS {
        return Err(StartError::new(
            Kind::Usage,
            format!("--listen: {} of them; at most {LISTENERS}", specs.len()),
        ));
    }
    let mut bound = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let socket = open(spec).map_err(|error| refused(spec, &error))?;
        let local = match &socket {
            Socket::Udp(socket) => socket.local_addr(),
            Socket::Tcp(socket) => socket.local_addr(),
        }
        .map_err(|error| refused(spec, &error))?;
        let (host, port) = match &spec.advertised {
            Some((host, port)) => (host.clone(), port.unwrap_or(local.port())),
            None => (advertise.map_or_else(|| uri_host(&local), str::to_owned), local.port()),
        };
        let listener = Listener {
            id: ListenerId(index as u8),
            transport: spec.transport,
            local,
            advertised_host: host,
            advertised_port: port,
        };
        bound.push(Bound { listener, socket });
    }
    Ok(bound)
}

/// The sockets of `count` workers: the same addresses, each with sockets of its own, among which the kernel shares out what
/// comes. The first ones were bound alone, so that a taken port was noticed; only then may others join.
pub fn share(bound: Vec<Bound>, count: usize) -> Result<Vec<Vec<Bound>>, StartError> {
    let mut workers: Vec<Vec<Bound>> = Vec::with_capacity(count);
    workers.push(Vec::new());
    for _ in 1..count {
        let mut more = Vec::with_capacity(bound.len());
        for first in &bound {
            let socket = beside(&first.socket, first.listener.local).map_err(|error| {
                StartError::new(Kind::System, format!("--workers, {}: {error}", describe(&first.listener)))
            })?;
            more.push(Bound { listener: first.listener.clone(), socket });
        }
        workers.push(more);
    }
    workers[0] = bound;
    Ok(workers)
}

/// Another socket on the same address. Where the first one may not be joined (systemd bound it), both are the same one.
fn beside(first: &Socket, address: SocketAddr) -> io::Result<Socket> {
    let join = |kind: socket2::Type, first: socket2::SockRef<'_>| {
        first.set_reuse_port(true)?;
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind, None)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(first.only_v6()?)?;
        }
        if kind == socket2::Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        Ok::<_, io::Error>(socket)
    };
    match first {
        Socket::Udp(first) => match join(socket2::Type::DGRAM, first.into()) {
            Ok(socket) => {
                let _ = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER);
                Ok(Socket::Udp(socket.into()))
            }
            Err(_) => Ok(Socket::Udp(first.try_clone()?)),
        },
        Socket::Tcp(first) => match join(socket2::Type::STREAM, first.into()) {
            Ok(socket) => {
                socket.listen(BACKLOG)?;
                Ok(Socket::Tcp(socket.into()))
            }
            Err(_) => Ok(Socket::Tcp(first.try_clone()?)),
        },
    }
}

/// What machines are given.
pub fn listeners(bound: &[Bound]) -> Vec<Listener> {
    bound.iter().map(|b| b.listener.clone()).collect()
}

/// `udp:127.0.0.1:5060` for the ready line.
pub fn describe(listener: &Listener) -> String {
    format!("{}:{}", listener.transport, listener.local)
}

fn open(spec: &Spec) -> io::Result<Socket> {
    match spec.transport {
        Transport::Udp => {
            let socket = UdpSocket::bind(spec.address)?;
            socket.set_nonblocking(true)?;
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(UDP_RECEIVE_BUFFER);
            Ok(Socket::Udp(socket))
        }
        Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
            let socket = TcpListener::bind(spec.address)?;
            socket.set_nonblocking(true)?;
            Ok(Socket::Tcp(socket))
        }
    }
}

fn refused(spec: &Spec, error: &io::Error) -> StartError {
    let what = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the address is in use, by another program or another sipbox; stop that one or choose another port"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; see `ip address`".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "no permission; ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    };
    StartError::new(Kind::System, format!("{} {}: {what}", spec.flag, spec.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    const SIP: &[Transport] = &[Transport::Udp, Transport::Tcp, Transport::Tls];

    fn message(text: &str) -> String {
        let error = parse("--listen", text, SIP).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        error.message
    }

    #[test]
    fn parses_addresses_and_what_peers_are_told() {
        let spec = parse("--listen", "udp:127.0.0.1:5060", SIP).unwrap();
        assert_eq!((spec.transport, spec.address), (Transport::Udp, "127.0.0.1:5060".parse().unwrap()));
        let spec = parse("--listen", "tls:[2001:db8::1]:0!sip.example.com:5061", SIP).unwrap();
        assert_eq!((spec.transport, spec.address), (Transport::Tls, "[2001:db8::1]:0".parse().unwrap()));
        assert_eq!(spec.advertised, Some(("sip.example.com".into(), Some(5061))));
        assert_eq!(parse("--listen", "tcp:127.0.0.1", SIP).unwrap().address.port(), 5060);
    }

    #[test]
    fn says_what_is_wrong_with_the_flags_name() {
        assert_eq!(
            message("127.0.0.1:5060"),
            "--listen 127.0.0.1:5060: transport '127.0.0.1' is not one of udp: tcp: tls:"
        );
        assert!(message("ws:127.0.0.1:80").contains("not one of"));
        assert!(message("udp:::1:5060").contains("brackets"));
        assert!(message("udp:127.0.0.1:65536").contains("not a number up to 65535"));
        assert!(message("udp::5060").contains("no host"));
        assert!(message("udp:127.0.0.1:5060!").contains("after '!': no host"));
    }

    #[test]
    fn workers_share_an_address_and_a_stranger_still_finds_it_taken() {
        for transport in ["udp", "tcp"] {
            let spec = parse("--listen", &format!("{transport}:127.48.0.3:0"), SIP).unwrap();
            let workers = share(bind(std::slice::from_ref(&spec), None).unwrap(), 3).unwrap();
            let address = workers[0][0].listener.local;
            let mut inodes: Vec<_> = workers
                .iter()
                .map(|bound| {
                    let fd = match &bound[0].socket {
                        Socket::Udp(socket) => socket.as_raw_fd(),
                        Socket::Tcp(socket) => socket.as_raw_fd(),
                    };
                    std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap()
                })
                .collect();
            inodes.sort();
            inodes.dedup();
            assert_eq!(inodes.len(), 3, "a socket for each");
            let error = bind(&[Spec { address, ..spec }], None).unwrap_err();
            assert!(error.message.contains("in use"), "{error}");
        }
    }

    #[test]
    fn notices_a_taken_port() {
        for transport in ["udp", "tcp"] {
            let spec = parse("--listen", &format!("{transport}:127.0.3.1:0"), SIP).unwrap();
            let first = bind(std::slice::from_ref(&spec), Some("sip.example.com")).unwrap();
            assert_eq!(first[0].listener.advertised_host, "sip.example.com");
            let again = Spec { address: first[0].listener.local, ..spec };
            let error = bind(&[again], None).unwrap_err();
            assert_eq!(error.kind, Kind::System);
            assert!(error.message.contains("--listen") && error.message.contains("in use"), "{error}");
        }
    }
}
