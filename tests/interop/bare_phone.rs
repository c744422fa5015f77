//! A phone of a few lines, for what baresip can't be told to do: to say a Contact that is not where it is, as behind a NAT, to
//! use a wrong password, to publish a document and to fetch one.

use sipbox_core::auth::digest::Challenge;
use sipbox_core::sip::Message;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(5);

pub struct BarePhone {
    socket: UdpSocket,
    user: &'static str,
    domain: &'static str,
    cseq: u32,
}

impl BarePhone {
    pub fn new(address: &str, user: &'static str, domain: &'static str) -> Self {
        let socket = UdpSocket::bind((address, 0)).expect("a socket");
        socket.set_read_timeout(Some(WITHIN)).expect("a time-out");
        BarePhone { socket, user, domain, cseq: 0 }
    }

    fn text(&mut self, method: &str, uri: &str, more: &[&str], body: &str) -> String {
        self.cseq += 1;
        let (user, domain, cseq) = (self.user, self.domain, self.cseq);
        let local = self.socket.local_addr().expect("bound");
        let to = if method == "REGISTER" { format!("sip:{user}@{domain}") } else { uri.to_owned() };
        // Behind a NAT nobody knows his own address.
        let mut text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.9.9.9:5060;branch=z9hG4bK{}{cseq};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@{domain}>;tag=f\r\nTo: <{to}>\r\n\
             Call-ID: {}-{method}-{to}\r\nCSeq: {cseq} {method}\r\n",
            local.port(),
            local.port(),
        );
        for header in more {
            text += &format!("{header}\r\n");
        }
        text + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
    }

    fn exchange(&self, server: SocketAddr, text: &str) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        for _ in 0..3 {
            self.socket.send_to(text.as_bytes(), server).expect("sent");
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let message = Message::parse(&buffer[..length]);
                if message.is_ok_and(|message| !message.is_request() && message.status() >= 200) {
                    return buffer[..length].to_vec();
                }
            }
        }
        panic!("{server} does not answer\n{text}");
    }

    /// One request, and once more where it is challenged; the last status.
    fn ask(
        &mut self,
        server: SocketAddr,
        password: &str,
        method: &str,
        uri: &str,
        more: &[&str],
        body: &str,
    ) -> u16 {
        let text = self.text(method, uri, more, body);
        let first = self.exchange(server, &text);
        let message = Message::parse(&first).expect("an answer");
        let Some((name, challenge)) = Challenge::of(&message) else { return message.status() };
        let answer = challenge.answer(self.user, password, method, uri, 1, "cnonce");
        let text = self.text(method, uri, &[more, &[&format!("{name}: {answer}")]].concat(), body);
        Message::parse(&self.exchange(server, &text)).expect("an answer").status()
    }

    /// Registers this Contact for so many seconds.
    pub fn register(&mut self, server: SocketAddr, password: &str, contact: &str, expires: u32) -> u16 {
        let contact = format!("Contact: <{contact}>;expires={expires}");
        self.ask(server, password, "REGISTER", &format!("sip:{}", self.domain), &[&contact], "")
    }

    /// Publishes a document of its own presence.
    pub fn publish(&mut self, server: SocketAddr, password: &str, body: &str) -> u16 {
        let uri = format!("sip:{}@{}", self.user, self.domain);
        let more = ["Event: presence", "Expires: 600", "Content-Type: application/pidf+xml"];
        self.ask(server, password, "PUBLISH", &uri, &more, body)
    }

    /// Asks once for the presence of `uri` (RFC 6665 §4.4.3); the document in the NOTIFY.
    pub fn fetch(&mut self, server: SocketAddr, password: &str, uri: &str) -> String {
        let contact = format!("Contact: <sip:{}@{}>", self.user, self.socket.local_addr().expect("bound"));
        let more = ["Event: presence", "Expires: 0", "Accept: application/pidf+xml", &contact];
        let status = self.ask(server, password, "SUBSCRIBE", uri, &more, "");
        assert!((200..300).contains(&status), "{status}");
        let text = self.request("NOTIFY ", "200 OK").0;
        text.split_once("\r\n\r\n").expect("a header").1.to_owned()
    }

    /// Waits for a request, and answers it; itself and who sent it here.
    fn request(&self, method: &str, status: &str) -> (String, SocketAddr) {
        let deadline = Instant::now() + WITHIN;
        let mut buffer = vec![0; 65_536];
        while Instant::now() < deadline {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !text.starts_with(method) {
                continue;
            }
            let mut answer = format!("SIP/2.0 {status}\r\n");
            for line in text.lines().take_while(|line| !line.is_empty()) {
                if ["Via:", "From:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name)) {
                    answer += &format!("{line}\r\n");
                } else if line.starts_with("To:") {
                    let tag = if line.contains(";tag=") { "" } else { ";tag=here" };
                    answer += &format!("{line}{tag}\r\n");
                }
            }
            self.socket.send_to(format!("{answer}Content-Length: 0\r\n\r\n").as_bytes(), from).expect("sent");
            return (text, from);
        }
        panic!("no {method}for {}", self.user);
    }

    /// Waits for an INVITE, is busy, and gives its request-URI and who sent it here.
    pub fn is_called(&self) -> (String, SocketAddr) {
        let (text, from) = self.request("INVITE ", "486 Busy Here");
        (text.split(' ').nth(1).expect("a request-URI").to_owned(), from)
    }
}
