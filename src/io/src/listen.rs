//! `--listen URI[!ADVERTISED]`: parsing and binding.
//!
//! In: what stands on the command line. Out: bound sockets with their real ports, and the
//! [`Listener`]s that machines see. Everything that can be wrong is told here, at start, with the flag's name.
//! Sockets are bound without SO_REUSEPORT, which would hide that another sipbox has the port already.

use crate::start::{Kind, StartError};
use sipbox_core::cidr::Cidr;
use sipbox_core::flow::{Listener, ListenerId, Transport};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let mut passed = passed();
    for (index, spec) in specs.iter().enumerate() {
        let socket = take(&mut passed, spec).unwrap_or_else(|| open(spec));
        let socket = socket.map_err(|error| refused(spec, &error))?;
        let local = match &socket {
            Socket::Udp(socket) => socket.local_addr(),
            Socket::Tcp(socket) => socket.local_addr(),
        }
        .map_err(|error| refused(spec, &error))?;
        let (host, port) = match &spec.advertised {
            Some((host, port)) => (host.clone(), port.unwrap_or(local.port())),
            None => (advertise.map_or_else(|| of_its_own(spec, &local), str::to_owned), local.port()),
        };
        let listener = Listener {
            id: ListenerId(index as u8),
            transport: spec.transport,
            local,
            advertised_host: host,
            advertised_port: port,
            local_nets: Vec::new(),
        };
        bound.push(Bound { listener, socket });
    }
    for unused in passed {
        let at = unused.local_addr().ok().and_then(|at| at.as_socket());
        tracing::warn!(
            socket = at.map_or_else(|| "of no IP address".to_owned(), |at| at.to_string()),
            mend = "name it by --listen, or take it out of the .socket unit",
            "socket-unused: systemd passed a socket that no --listen names"
        );
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
            socket.set_tclass_v6(first.tclass_v6()?)?;
        } else {
            socket.set_tos_v4(first.tos_v4()?)?;
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

/// `--local-net`: who is told the bound addresses themselves.
pub fn set_local_nets(bound: &mut [Bound], nets: &[Cidr]) -> Result<(), StartError> {
    for Bound { listener, .. } in bound {
        if !nets.is_empty() && listener.local.ip().is_unspecified() {
            let what = format!(
                "--local-net: --listen {} has no address of its own that could be told there; give it one",
                describe(listener)
            );
            return Err(StartError::new(Kind::Usage, what));
        }
        listener.local_nets = nets.to_vec();
    }
    Ok(())
}

/// What peers are told of a listener that was given no name: its address; for one on all addresses, the one by which the
/// system reaches others, since nobody comes back to 0.0.0.0.
fn of_its_own(spec: &Spec, local: &SocketAddr) -> String {
    if !local.ip().is_unspecified() {
        return uri_host(local);
    }
    let found = facing(local.is_ipv6());
    let host = uri_host(&found.unwrap_or(*local));
    tracing::warn!(
        listen = spec.text,
        told = host,
        mend = "give --advertise HOST, or an address in --listen",
        "advertised-guess: peers are told this address of ours"
    );
    host
}

/// The address from which the system would send into the world. Nothing is sent: the addresses are for documents.
fn facing(v6: bool) -> Option<SocketAddr> {
    let (any, world) = if v6 { ("[::]:0", "[2001:db8::1]:9") } else { ("0.0.0.0:0", "192.0.2.1:9") };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(world).ok()?;
    socket.local_addr().ok().filter(|found| !found.ip().is_unspecified())
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
    let udp = spec.transport == Transport::Udp;
    let kind = if udp { socket2::Type::DGRAM } else { socket2::Type::STREAM };
    let socket = socket2::Socket::new(socket2::Domain::for_address(spec.address), kind, None)?;
    if spec.address.is_ipv6() {
        // IPv4 has a listener of its own: one socket for both would show addresses that are neither, and take its port.
        socket.set_only_v6(true)?;
    }
    if !udp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&spec.address.into())?;
    socket.set_nonblocking(true)?;
    if udp {
        let _ = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER);
        Ok(Socket::Udp(socket.into()))
    } else {
        socket.listen(BACKLOG)?;
        Ok(Socket::Tcp(socket.into()))
    }
}

/// Sockets that systemd bound for us (sd_listen_fds(3)): the ones that a `--listen` names are used in place of new ones,
/// so that the port may be below 1024, and nothing that comes while we start again is lost.
fn passed() -> Vec<socket2::Socket> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let Ok(descriptors) = sd_notify::listen_fds() else { return Vec::new() };
    descriptors
        .map(|fd| {
            // SAFETY: the service manager passed these to this process, and they are taken once.
            unsafe { socket2::Socket::from_raw_fd(fd) }
        })
        .collect()
}

/// The one among them that is bound as `spec` says.
fn take(passed: &mut Vec<socket2::Socket>, spec: &Spec) -> Option<io::Result<Socket>> {
    let kind = if spec.transport == Transport::Udp { socket2::Type::DGRAM } else { socket2::Type::STREAM };
    let fits = |socket: &socket2::Socket| {
        socket.r#type().is_ok_and(|is| is == kind)
            && socket.local_addr().is_ok_and(|at| at.as_socket() == Some(spec.address))
    };
    let socket = passed.swap_remove(passed.iter().position(fits)?);
    Some(socket.set_nonblocking(true).map(|()| match spec.transport {
        Transport::Udp => Socket::Udp(socket.into()),
        Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => Socket::Tcp(socket.into()),
    }))
}

/// `--dscp`: how routers on the way are to treat what is sent (RFC 2474); accepted connections take it from their listener.
pub fn mark(bound: &[Bound], dscp: u8) -> Result<(), StartError> {
    for Bound { listener, socket } in bound {
        let marked = match socket {
            Socket::Udp(socket) => set_dscp(&socket.into(), listener.local.is_ipv6(), dscp),
            Socket::Tcp(socket) => set_dscp(&socket.into(), listener.local.is_ipv6(), dscp),
        };
        marked.map_err(|error| {
            StartError::new(Kind::System, format!("--dscp {dscp}, {}: {error}", describe(listener)))
        })?;
    }
    Ok(())
}

pub(crate) fn set_dscp(socket: &socket2::SockRef<'_>, v6: bool, dscp: u8) -> io::Result<()> {
    // The upper six bits of the byte.
    set_tos(socket, v6, dscp << 2)
}

/// The whole byte: IPv4's type of service, IPv6's traffic class.
pub(crate) fn set_tos(socket: &socket2::SockRef<'_>, v6: bool, tos: u8) -> io::Result<()> {
    if v6 { socket.set_tclass_v6(tos.into()) } else { socket.set_tos_v4(tos.into()) }
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
    fn both_families_have_the_same_port_and_packets_their_class() {
        let any = parse("--listen", "udp:0.0.0.0:0", SIP).unwrap();
        let first = bind(&[any], None).unwrap();
        let port = first[0].listener.local.port();
        for transport in ["udp", "tcp"] {
            let spec = parse("--listen", &format!("{transport}:[::]:{port}"), SIP).unwrap();
            match bind(&[spec], None) {
                Ok(bound) => mark(&bound, 46).unwrap(),
                Err(error) if error.message.contains("no such address") => {
                    eprintln!("skipped: no IPv6 here");
                }
                // TCP's port may be another program's.
                Err(error) => assert!(transport == "tcp", "{error}"),
            }
        }
        mark(&first, 24).unwrap();
        let workers = share(first, 2).unwrap();
        for bound in workers {
            let Socket::Udp(socket) = &bound[0].socket else { panic!("no UDP") };
            assert_eq!(socket2::SockRef::from(socket).tos_v4().unwrap(), 24 << 2, "for each worker");
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
