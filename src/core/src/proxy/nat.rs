//! Whoever sits behind a NAT: what is written into Via, and the alias in Contact.
//!
//! RFC 3261 §18.2.1 and RFC 3581 (`received`, `rport`; rport is forced, as in the seed), and the seed's NATDETECT: NAT
//! is assumed where Contact is private, or Via's host differs from the source, or (over UDP) its port does; IPv6 is
//! skipped. Seen only where we are the first hop: one Via, and a source that is none of our edges. The alias has
//! Kamailio's form, `alias=ADDRESS~PORT~PROTOCOL`; we write it for others, and follow our own token instead.

use super::media::is_private;
use crate::flow::{Flow, Transport};
use crate::sip::edit::Edit;
use crate::sip::{Message, Name, NameAddr, Rport};
use bytes::Bytes;
use std::net::SocketAddr;

/// The request with its top Via marked; `None` where nothing is to be marked.
pub(super) fn marked(message: &Message<'_>, flow: &Flow) -> Option<Bytes> {
    let via = message.top_via().ok()?;
    let same_host = crate::sip::uri::host_ip(via.host) == Some(flow.remote.ip());
    let port = via.port.unwrap_or(flow.transport.default_port());
    let received = !same_host || via.rport() != Rport::Absent || via.received().is_some();
    let rport =
        via.rport() != Rport::Absent || (flow.transport == Transport::Udp && port != flow.remote.port());
    if !received && !rport {
        return None;
    }
    let mut edit = Edit::new();
    if received {
        edit.set_received(flow.remote.ip());
    }
    if rport {
        edit.set_rport(flow.remote.port());
    }
    let mut out = Vec::with_capacity(message.as_bytes().len() + 64);
    edit.write(message, &mut out);
    Some(out.into())
}

/// The seed's test, for a request or a response that came straight from its sender.
pub(super) fn is_natted(message: &Message<'_>, flow: &Flow) -> bool {
    if flow.remote.is_ipv6() {
        return false;
    }
    let private_contact =
        message.contacts().filter_map(Result::ok).any(|contact| contact.uri.ip().is_some_and(is_private));
    if private_contact || flow.transport.is_websocket() {
        return true;
    }
    if !message.is_request() {
        return false;
    }
    message.top_via().is_ok_and(|via| {
        let host = crate::sip::uri::host_ip(via.host);
        let port = via.port.unwrap_or(flow.transport.default_port());
        host != Some(flow.remote.ip()) || (flow.transport == Transport::Udp && port != flow.remote.port())
    })
}

/// Where the sender of a request takes requests, as its own packet shows it.
///
/// RFC 3261 §18.1.1 lets a client send from any port, and some phones do: they listen at the port of their Contact. Over
/// UDP, without a NAT on the way (the Via tells the source) and where the Contact is at the very address that the packet
/// came from, its port is taken; else it is the packet's source.
pub(super) fn takes_requests_at(message: &Message<'_>, flow: &Flow) -> SocketAddr {
    let contact = || {
        let mut contacts = message.contacts();
        let (contact, more) = (contacts.next()?.ok()?, contacts.next());
        let uri = contact.uri;
        let over_udp = uri.transport().is_none_or(|transport| transport == Transport::Udp);
        (more.is_none() && uri.is_sip() && over_udp && uri.ip() == Some(flow.remote.ip()))
            .then(|| SocketAddr::new(flow.remote.ip(), uri.port.unwrap_or(Transport::Udp.default_port())))
    };
    if flow.transport != Transport::Udp || is_natted(message, flow) {
        return flow.remote;
    }
    contact().unwrap_or(flow.remote)
}

/// The Contact header with an alias in its URI; `None` where there is not exactly one, or it has one already.
pub(super) fn with_alias(message: &Message<'_>, flow: &Flow) -> Option<Vec<u8>> {
    let mut contacts = message.values(Name::Contact);
    let (contact, more) = (contacts.next()?, contacts.next());
    let parsed = NameAddr::parse(contact).ok().filter(|_| more.is_none())?;
    if !parsed.uri.is_sip() || parsed.uri.headers.is_some() || parsed.uri.params.has("alias") {
        return None;
    }
    let alias = format!(
        ";alias={}~{}~{}",
        match flow.remote.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        },
        flow.remote.port(),
        flow.transport.kamailio()
    );
    let mut out = Vec::with_capacity(contact.len() + alias.len() + 4);
    if !parsed.display.is_empty() {
        out.extend_from_slice(parsed.display);
        out.push(b' ');
    }
    out.push(b'<');
    out.extend_from_slice(parsed.uri.as_bytes());
    out.extend_from_slice(alias.as_bytes());
    out.push(b'>');
    out.extend_from_slice(parsed.params.as_bytes());
    Some(out)
}

/// A Request-URI without the alias that one of us wrote into the Contact that it was.
pub(super) fn without_alias(uri: &[u8]) -> Option<Vec<u8>> {
    let start = memchr::memmem::find(uri, b";alias=")?;
    let rest = &uri[start + 1..];
    let end = memchr::memchr2(b';', b'?', rest).unwrap_or(rest.len());
    Some([&uri[..start], &rest[end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::ListenerId;

    fn flow(transport: Transport, remote: &str) -> Flow {
        Flow {
            transport,
            listener: ListenerId(0),
            remote: remote.parse().expect("an address"),
            connection: None,
        }
    }

    fn request(via: &str, contact: &str) -> String {
        format!(
            "MESSAGE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/{via};branch=z9hG4bKa\r\n\
             From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\n\
             Contact: {contact}\r\nContent-Length: 0\r\n\r\n"
        )
    }

    #[test]
    fn detects_nat_as_the_seed() {
        let near = "<sip:alice@192.0.2.1>";
        for (via, contact, transport, remote, nat) in [
            ("UDP 192.0.2.1:5060", near, Transport::Udp, "192.0.2.1:5060", false),
            ("UDP 192.0.2.1", near, Transport::Udp, "192.0.2.1:5060", false),
            ("UDP 192.0.2.1:5062", near, Transport::Udp, "192.0.2.1:5060", true),
            ("UDP 10.0.0.1:5060", near, Transport::Udp, "192.0.2.1:5060", true),
            ("UDP 192.0.2.1:5060", "<sip:a@10.0.0.1>", Transport::Udp, "192.0.2.1:5060", true),
            // A client's own port over TCP is never its listening one.
            ("TCP 192.0.2.1:5060", near, Transport::Tcp, "192.0.2.1:40000", false),
            ("WSS x.invalid", near, Transport::Wss, "192.0.2.1:40000", true),
            ("UDP [2001:db8::9]:5060", "<sip:a@10.0.0.1>", Transport::Udp, "[2001:db8::1]:9", false),
        ] {
            let text = request(via, contact);
            let message = Message::parse(text.as_bytes()).expect("a request");
            assert_eq!(is_natted(&message, &flow(transport, remote)), nat, "{via} {contact} {remote}");
        }
    }

    #[test]
    fn a_phone_that_sends_from_another_port_is_called_at_its_contact() {
        let (udp, tcp) = (Transport::Udp, Transport::Tcp);
        for (via, contact, transport, remote, at) in [
            ("UDP 192.0.2.1:50123", "<sip:a@192.0.2.1:5070>", udp, "192.0.2.1:50123", "192.0.2.1:5070"),
            ("UDP 192.0.2.1:50123", "<sip:a@192.0.2.1>", udp, "192.0.2.1:50123", "192.0.2.1:5060"),
            ("UDP [2001:db8::1]:9", "<sip:a@[2001:db8::1]:7>", udp, "[2001:db8::1]:9", "[2001:db8::1]:7"),
            // A NAT on the way, somebody else's address, another transport, a connection, a name, a choice of two.
            ("UDP 192.0.2.1:5060", "<sip:a@192.0.2.1:5060>", udp, "192.0.2.1:50123", "192.0.2.1:50123"),
            ("UDP 192.0.2.1:50123", "<sip:a@192.0.2.9:5070>", udp, "192.0.2.1:50123", "192.0.2.1:50123"),
            ("UDP 192.0.2.1:9", "<sip:a@192.0.2.1:7;transport=tcp>", udp, "192.0.2.1:9", "192.0.2.1:9"),
            ("TCP 192.0.2.1:9", "<sip:a@192.0.2.1:7>", tcp, "192.0.2.1:40000", "192.0.2.1:40000"),
            ("UDP 192.0.2.1:9", "<sip:a@phone.example.com:7>", udp, "192.0.2.1:9", "192.0.2.1:9"),
            (
                "UDP 192.0.2.1:9",
                "<sip:a@192.0.2.1:7>, <sip:a@192.0.2.1:8>",
                udp,
                "192.0.2.1:9",
                "192.0.2.1:9",
            ),
        ] {
            let text = request(via, contact);
            let message = Message::parse(text.as_bytes()).expect("a request");
            let found = takes_requests_at(&message, &flow(transport, remote));
            assert_eq!(found.to_string(), at, "{via} {contact} {remote}");
        }
    }

    #[test]
    fn marks_the_via_that_the_source_shows() {
        let marked = |via: &str, remote: &str| {
            let text = request(via, "<sip:a@b>");
            let message = Message::parse(text.as_bytes()).expect("a request");
            let out = super::marked(&message, &flow(Transport::Udp, remote));
            let out = out.unwrap_or_else(|| Bytes::copy_from_slice(text.as_bytes()));
            String::from_utf8_lossy(&out).lines().nth(1).expect("a Via").to_owned()
        };
        assert_eq!(
            marked("UDP 192.0.2.1:5060", "192.0.2.1:5060"),
            "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa"
        );
        let natted = marked("UDP 10.0.0.1:5060;rport", "192.0.2.1:4444");
        assert!(natted.contains("received=192.0.2.1") && natted.contains("rport=4444"), "{natted}");
        let forced = marked("UDP 10.0.0.1", "192.0.2.1:4444");
        assert!(forced.contains("received=192.0.2.1") && forced.contains("rport=4444"), "{forced}");
    }

    #[test]
    fn writes_and_strips_kamailio_s_alias() {
        let text = request("UDP 192.0.2.1", "\"Alice\" <sip:alice@10.0.0.1:5060;transport=udp>;expires=60");
        let message = Message::parse(text.as_bytes()).expect("a request");
        let contact = with_alias(&message, &flow(Transport::Udp, "192.0.2.1:4444")).expect("one contact");
        let contact = String::from_utf8(contact).expect("text");
        assert_eq!(
            contact,
            "\"Alice\" <sip:alice@10.0.0.1:5060;transport=udp;alias=192.0.2.1~4444~1>;expires=60"
        );
        assert_eq!(
            without_alias(b"sip:a@10.0.0.1;alias=192.0.2.1~4444~1;ob").expect("an alias"),
            b"sip:a@10.0.0.1;ob"
        );
        assert_eq!(without_alias(b"sip:a@10.0.0.1"), None);
        let text = request("UDP 192.0.2.1", "<sip:a@10.0.0.1>, <sip:b@10.0.0.1>");
        let message = Message::parse(text.as_bytes()).expect("a request");
        assert_eq!(with_alias(&message, &flow(Transport::Udp, "192.0.2.1:1")), None);
    }
}
