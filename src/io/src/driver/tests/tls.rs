//! TLS, both ways: whose certificate is shown, who has to show one, and who is believed.

use super::*;
use crate::events;
use crate::tls::{Settings, Verify};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An authority, and where its files and those of whom it vouches for are.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    directory: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("sipbox-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        std::fs::write(directory.join("ca.pem"), root.pem()).unwrap();
        Authority { root: root.der().clone(), issuer: Issuer::new(params, key), directory }
    }

    fn ca(&self) -> Option<PathBuf> {
        Some(self.directory.join("ca.pem"))
    }

    /// A certificate and its key.
    fn vouch(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// The same in files.
    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) =
            (self.directory.join(format!("{name}.crt")), self.directory.join(format!("{name}.key")));
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        std::fs::write(&cert, params.signed_by(&pair, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        (cert, key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        roots
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

type Client = StreamOwned<ClientConnection, TcpStream>;

/// A client that believes this authority, wants that name, and may show a certificate.
fn connect(
    address: SocketAddr,
    authority: &Authority,
    name: &str,
    shown: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Client {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(authority.roots());
    let config = match shown {
        Some((cert, key)) => builder.with_client_auth_cert(vec![cert], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(session, stream)
}

/// Whether it is answered.
fn echo(client: &mut Client) -> bool {
    let mut buffer = vec![0; OPTIONS.len()];
    client.write_all(OPTIONS.as_bytes()).is_ok()
        && client.read_exact(&mut buffer).is_ok()
        && buffer == OPTIONS.as_bytes()
}

fn any() -> &'static [&'static rustls::SupportedProtocolVersion] {
    rustls::DEFAULT_VERSIONS
}

/// A driver that writes its events into a file.
fn start(uris: &[&str], settings: Settings, directory: &Path) -> (Running, events::Writer, PathBuf) {
    let path = directory.join(format!("events-{}", settings.pairs.len() + uris.len()));
    let (events, writer) = events::open(&path.display().to_string()).unwrap();
    let running = Running::start_crew(1, uris, Vec::new(), |options| {
        options.tls = settings;
        options.events = Some(events);
    });
    (running, writer, path)
}

/// The first event of this name.
fn told(path: &Path, name: &str) -> serde_json::Value {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let records = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        if let Some(found) = records.into_iter().find(|record| record["event"] == name) {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "no {name} in {text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_name_has_its_certificate_and_a_new_one_drops_no_connection() {
    let (ours, other) = (Authority::new("sni"), Authority::new("sni-other"));
    let pairs = vec![ours.pair("one.example.com"), ours.pair("two.example.com")];
    let settings = Settings { pairs: pairs.clone(), ..Settings::default() };
    let (running, _writer, path) = start(&["tls:127.48.1.1:0"], settings, &ours.directory);
    let address = running.addresses[0];
    let mut standing = connect(address, &ours, "one.example.com", None, any());
    assert!(echo(&mut standing));
    assert!(echo(&mut connect(address, &ours, "two.example.com", None, &[&rustls::version::TLS12])));
    assert!(!echo(&mut connect(address, &ours, "three.example.com", None, any())));
    // Debug issue 2 of the deployment that this replaces: the client does not believe us.
    assert!(!echo(&mut connect(address, &other, "one.example.com", None, any())));
    let event = told(&path, "tls-not-verified");
    assert!(event["peer"].as_str().unwrap().starts_with("tls:127."), "{event}");
    assert!(event["mend"].as_str().unwrap().contains("--tls-cert"), "{event}");
    // One that cannot be read changes nothing.
    std::fs::write(&pairs[0].0, "nothing").unwrap();
    running.order(Order::Reload);
    std::thread::sleep(Duration::from_millis(100));
    assert!(echo(&mut connect(address, &ours, "one.example.com", None, any())));
    for (from, to) in [other.pair("one.example.com")].iter().zip(&pairs) {
        std::fs::copy(&from.0, &to.0).unwrap();
        std::fs::copy(&from.1, &to.1).unwrap();
    }
    running.order(Order::Reload);
    std::thread::sleep(Duration::from_millis(100));
    assert!(echo(&mut connect(address, &other, "one.example.com", None, any())));
    assert!(!echo(&mut connect(address, &ours, "one.example.com", None, any())));
    assert!(echo(&mut standing), "a connection from before stays");
    running.order(Order::Stop);
    running.join();
}

#[test]
fn clients_show_what_is_asked_and_speak_what_is_allowed() {
    let (ours, other) = (Authority::new("clients"), Authority::new("clients-other"));
    for (verify, nothing, strange) in
        [(Verify::None, true, true), (Verify::Optional, true, false), (Verify::Required, false, false)]
    {
        let settings = Settings {
            pairs: vec![ours.pair("one.example.com")],
            ca: ours.ca(),
            verify,
            ..Settings::default()
        };
        let (running, _writer, path) = start(&["tls:127.48.1.2:0"], settings, &ours.directory);
        let address = running.addresses[0];
        let client = |shown| echo(&mut connect(address, &ours, "one.example.com", shown, any()));
        assert_eq!(client(None), nothing, "{verify:?}");
        assert_eq!(client(Some(other.vouch("phone.example.com"))), strange, "{verify:?}");
        assert!(client(Some(ours.vouch("phone.example.com"))), "{verify:?}");
        if !strange {
            let event = told(&path, "tls-not-verified");
            assert!(event["mend"].as_str().unwrap().contains("--tls-ca"), "{event}");
        }
        running.order(Order::Stop);
        running.join();
        std::fs::remove_file(path).unwrap();
    }
    let settings =
        Settings { pairs: vec![ours.pair("one.example.com")], only_13: true, ..Settings::default() };
    let (running, _writer, path) = start(&["tls:127.48.1.2:0"], settings, &ours.directory);
    let client =
        |versions: &[_]| echo(&mut connect(running.addresses[0], &ours, "one.example.com", None, versions));
    assert!(client(&[&rustls::version::TLS13]));
    assert!(!client(&[&rustls::version::TLS12]));
    assert!(told(&path, "tls-failed")["mend"].as_str().unwrap().contains("--tls-min"));
    running.order(Order::Stop);
    running.join();
    let unnamed =
        Settings { verify: Verify::Required, pairs: vec![ours.pair("a.example.com")], ..Settings::default() };
    assert!(crate::tls::configure(&unnamed).unwrap_err().message.contains("--tls-ca"));
}

/// A TLS server of the name, that wants no certificate.
fn server(authority: &Authority, name: &str, ip: &str) -> (TcpListener, Arc<ServerConfig>) {
    let (cert, key) = authority.vouch(name);
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    (TcpListener::bind((ip, 0)).unwrap(), Arc::new(config))
}

/// What its next client says, if the handshake comes about.
fn hear(server: &(TcpListener, Arc<ServerConfig>)) -> Option<String> {
    let (stream, _) = server.0.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(server.1.clone()).unwrap(), stream);
    let mut buffer = vec![0; OPTIONS.len()];
    stream.read_exact(&mut buffer).ok()?;
    String::from_utf8(buffer).ok()
}

#[test]
fn whom_we_connect_to_has_to_be_who_was_asked_for() {
    let (ours, other) = (Authority::new("out"), Authority::new("out-other"));
    let settings =
        Settings { pairs: vec![ours.pair("one.example.com")], ca: ours.ca(), ..Settings::default() };
    let uris = ["udp:127.48.1.3:0", "tls:127.48.1.3:0"];
    let (running, _writer, path) = start(&uris, settings.clone(), &ours.directory);
    let phone = phone_at("127.48.1.4");
    let right = server(&ours, "proxy.example.com", "127.48.1.5");
    let forged = server(&other, "proxy.example.com", "127.48.1.6");
    let address = |server: &(TcpListener, _)| server.0.local_addr().unwrap();
    let secure = |running: &Running, name: &str, to: SocketAddr| {
        phone.send_to(format!("secure {name} {to}").as_bytes(), running.addresses[0]).unwrap();
    };
    let said = |wanted: &[u8]| {
        let mut buffer = [0; 64];
        while let Ok(length) = phone.recv(&mut buffer) {
            if &buffer[..length] == wanted {
                return;
            }
        }
        panic!("never {}", String::from_utf8_lossy(wanted));
    };
    secure(&running, "proxy.example.com", address(&right));
    assert_eq!(hear(&right).as_deref(), Some(OPTIONS));
    said(b"closed");
    // Another name at the same place, and the same name by another authority.
    secure(&running, "bank.example.com", address(&right));
    assert_eq!(hear(&right), None);
    said(b"failed");
    let event = told(&path, "tls-not-verified");
    assert_eq!(event["name"], "bank.example.com");
    assert_eq!(event["peer"], format!("tls:{}", address(&right)));
    assert!(event["mend"].as_str().unwrap().contains("--tls-ca"), "{event}");
    secure(&running, "proxy.example.com", address(&forged));
    assert_eq!(hear(&forged), None);
    said(b"failed");
    running.order(Order::Stop);
    running.join();
    let (running, _writer, _) = start(&uris, Settings { insecure: true, ..settings }, &other.directory);
    secure(&running, "proxy.example.com", address(&forged));
    assert_eq!(hear(&forged).as_deref(), Some(OPTIONS));
    running.order(Order::Stop);
    running.join();
}

/// RFC 5923: a peer that proved who it is, and says so in its Via, is reached by the connection that it opened.
#[test]
fn a_peer_s_own_connection_is_used_to_reach_it() {
    let ours = Authority::new("alias");
    let settings = Settings {
        pairs: vec![ours.pair("one.example.com")],
        ca: ours.ca(),
        verify: Verify::Optional,
        ..Settings::default()
    };
    let (running, _writer, _) = start(&["udp:127.48.1.7:0", "tls:127.48.1.7:0"], settings, &ours.directory);
    let phone = phone_at("127.48.1.8");
    let mut peer =
        connect(running.addresses[1], &ours, "one.example.com", Some(ours.vouch("peer.example.com")), any());
    let hello = "OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/TLS peer.example.com:5061;alias;branch=z9hG4bKp\r\n\
                 Content-Length: 0\r\n\r\n";
    peer.write_all(hello.as_bytes()).unwrap();
    let mut buffer = vec![0; hello.len()];
    peer.read_exact(&mut buffer).unwrap();
    let ip = peer.sock.local_addr().unwrap().ip();
    phone.send_to(format!("secure peer.example.com {ip}:5061").as_bytes(), running.addresses[0]).unwrap();
    let mut buffer = vec![0; OPTIONS.len()];
    peer.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, OPTIONS.as_bytes());
    // Nobody listens there, so for any other name there is no way.
    assert_eq!(
        exchange(&phone, running.addresses[0], format!("secure bank.example.com {ip}:5061").as_bytes()),
        b"failed"
    );
    running.order(Order::Stop);
    running.join();
}
