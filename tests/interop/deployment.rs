//! The whole house: registrar, relay, proxy and wsgw, each on an address of its own, as a small site would run them.

use crate::harness::{Server, TempDir, ng, run_in};
use crate::namespace::{PROXY, REGISTRAR, RELAY, WSGW, udp_ports};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The domain of all users.
pub const DOMAIN: &str = "example.com";

pub struct Deployment {
    dir: Arc<TempDir>,
    /// Held, so that it runs.
    _registrar: Server,
    pub relay: Server,
    pub proxy: Server,
    pub wsgw: Server,
}

impl Deployment {
    /// Starts all four; `web_root` is what wsgw serves beside SIP.
    pub fn start(web_root: &Path) -> Self {
        let dir = Arc::new(TempDir::new());
        let db = format!("sqlite:{}", dir.join("sipbox.db").display());
        let start = |command: &str, args: &[&str]| {
            let mut all = args.to_vec();
            all.extend(["--events", "-"]);
            Server::start_in(Arc::clone(&dir), command, &all)
        };
        let listen = |address: &str, transport: &str| format!("{transport}:{address}:0");
        let edge = [format!("{PROXY}/32"), format!("{WSGW}/32")];

        let registrar = start(
            "registrar",
            &[
                "--listen",
                &listen(REGISTRAR, "udp"),
                "--domain",
                DOMAIN,
                "--db",
                &db,
                "--edge",
                &edge[0],
                "--edge",
                &edge[1],
            ],
        );
        let relay = start("relay", &["--control", &listen(RELAY, "udp"), "--interface", RELAY]);
        let proxy = start(
            "proxy",
            &[
                "--listen",
                &listen(PROXY, "udp"),
                "--listen",
                &listen(PROXY, "tcp"),
                "--domain",
                DOMAIN,
                "--db",
                &db,
                "--edge",
                &edge[0],
                "--edge",
                &edge[1],
                "--registrar",
                &format!("sip:{}", registrar.address("udp")),
                "--relay",
                &format!("udp:{}", relay.address("udp")),
            ],
        );
        let wsgw = start(
            "wsgw",
            &[
                "--listen",
                &listen(WSGW, "wss"),
                "--tls-self-signed",
                "--sip-listen",
                &listen(WSGW, "tcp"),
                "--upstream",
                &format!("sip:{};transport=tcp", proxy.address("tcp")),
                "--domain",
                DOMAIN,
                "--web-root",
                &web_root.display().to_string(),
            ],
        );
        let house = Deployment { dir, _registrar: registrar, relay, proxy, wsgw };
        for user in ["alice", "bob"] {
            house.add_user(user, &format!("{user}-password"));
        }
        house
    }

    fn add_user(&self, user: &str, password: &str) {
        let db = format!("sqlite:{}", self.dir.join("sipbox.db").display());
        let aor = format!("{user}@{DOMAIN}");
        let words = ["registrar", "user", "add", &aor, "--password-stdin", "--db", &db];
        let done = run_in(&self.dir, &words, format!("{password}\n").as_bytes());
        assert_eq!(done.code, 0, "{done:?}");
    }

    /// A directory of this test.
    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// Where browsers connect: for the page, and for SIP.
    pub fn web(&self) -> SocketAddr {
        self.wsgw.address("wss")
    }

    pub fn relay_control(&self) -> SocketAddr {
        self.relay.address("udp")
    }

    /// Call-IDs that the relay holds.
    pub fn relay_calls(&self) -> Vec<String> {
        let reply = ng(self.relay_control(), &json!({ "command": "list" }));
        assert_eq!(reply["result"], "ok", "{reply}");
        let calls = reply["calls"].as_array().unwrap_or_else(|| panic!("{reply}"));
        calls.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Media ports that the relay has open, by the kernel's account.
    pub fn relay_ports(&self) -> Vec<u16> {
        let control = self.relay_control().port();
        udp_ports(RELAY).into_iter().filter(|&port| port != control).collect()
    }

    /// The port of the relay's only call to which the peer with this transport protocol sends its RTP.
    pub fn relay_port(&self, protocol: &str) -> u64 {
        let calls = self.relay_calls();
        assert_eq!(calls.len(), 1, "{calls:?}");
        let reply = ng(self.relay_control(), &json!({ "command": "query", "call-id": calls[0] }));
        let tags = reply["tags"].as_object().unwrap_or_else(|| panic!("{reply}"));
        let media = tags.values().map(|tag| &tag["medias"][0]).find(|media| media["protocol"] == protocol);
        let port = media.and_then(|media| media["streams"][0]["local port"].as_u64());
        port.unwrap_or_else(|| panic!("no {protocol} in {reply}"))
    }

    /// Waits until the relay holds no call and no media port; both are freed by a BYE from either side.
    pub fn wait_freed(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let (calls, ports) = (self.relay_calls(), self.relay_ports());
            if calls.is_empty() && ports.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "the relay still holds calls {calls:?} and ports {ports:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The relay's record of the end of call number `index` (from 0).
    pub fn call_end(&self, index: usize) -> Value {
        let mut seen = 0;
        let found = self.relay.process.stdout.wait(1, Duration::from_secs(5), |line| {
            let record: Value = serde_json::from_str(line).ok()?;
            if record["event"] != "call-end" {
                return None;
            }
            seen += 1;
            (seen > index).then_some(record)
        });
        found.unwrap_or_else(|| panic!("no call-end record; the relay's log:\n{}", self.relay.stderr()))
    }
}
