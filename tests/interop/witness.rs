//! A count of RTP by a party that neither sends nor forwards any: tshark on the loopback interface of the test's own network.

use crate::harness::{Process, TempDir};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub struct Witness {
    process: Process,
    file: PathBuf,
}

/// Packets of one source (SSRC) that reached the relay, and that left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub into: u64,
    pub out: u64,
    /// RTCP that came to the same port.
    pub rtcp: u64,
}

impl Witness {
    /// Everything in UDP from here on.
    pub fn start(dir: &TempDir) -> Self {
        let file = dir.join("witness.pcapng");
        let mut command = Command::new("tshark");
        command.args(["-i", "lo", "-f", "udp", "-s", "160", "-w"]).arg(&file);
        let process = Process::start(command);
        let started = process
            .stderr
            .wait(0, Duration::from_secs(15), |line| line.contains("Capture started").then_some(()));
        assert!(started.is_some(), "tshark does not capture:\n{}", process.log());
        Witness { process, file }
    }

    /// Ends the capture, and gives what went into and out of these ports of `relay`, by SSRC.
    pub fn count(mut self, relay: IpAddr, ports: std::ops::RangeInclusive<u16>) -> BTreeMap<u32, Seen> {
        // What the kernel has, dumpcap still has to take.
        std::thread::sleep(Duration::from_millis(500));
        self.process.signal(libc::SIGINT);
        self.process.exit_code(Duration::from_secs(15));
        let mut seen: BTreeMap<u32, Seen> = BTreeMap::new();
        let mut at: BTreeMap<u16, u32> = BTreeMap::new();
        let ours = |host: &str, port: u16| host.parse() == Ok(relay) && ports.contains(&port);
        for [from, from_port, to, to_port, ssrc] in self.read("rtp", "rtp.ssrc") {
            let (from_port, to_port) = (port(&from_port), port(&to_port));
            let ssrc =
                ssrc.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok()).expect("an SSRC");
            let entry = seen.entry(ssrc).or_default();
            if ours(&to, to_port) {
                entry.into += 1;
                at.insert(to_port, ssrc);
            } else if ours(&from, from_port) {
                entry.out += 1;
            }
        }
        for [_, _, to, to_port, _] in self.read("rtcp", "rtcp.pt") {
            let to_port = port(&to_port);
            if let Some(entry) =
                at.get(&to_port).filter(|_| ours(&to, to_port)).and_then(|ssrc| seen.get_mut(ssrc))
            {
                entry.rtcp += 1;
            }
        }
        // A packet or two that only look like RTP are no stream.
        seen.retain(|_, seen| seen.into + seen.out > 10);
        seen
    }

    /// Source, destination and one more field of each packet that tshark takes for this.
    fn read(&self, what: &str, field: &str) -> Vec<[String; 5]> {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.file).args([
            "--enable-heuristic",
            "rtp_udp",
            "--enable-heuristic",
            "rtcp_udp",
        ]);
        command.args(["-Y", what, "-T", "fields"]);
        for field in ["ip.src", "udp.srcport", "ip.dst", "udp.dstport", field] {
            command.args(["-e", field]);
        }
        let output = command.output().expect("tshark");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let cut = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into();
        lines.lines().map(|line| cut(line).unwrap_or_else(|_| panic!("tshark printed {line:?}"))).collect()
    }
}

fn port(text: &str) -> u16 {
    text.parse().unwrap_or_else(|_| panic!("tshark printed {text:?} for a port"))
}
