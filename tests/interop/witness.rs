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

    /// Ends the capture, and gives the RTP packets into and out of these ports of `relay`, by SSRC.
    pub fn count(mut self, relay: IpAddr, ports: std::ops::RangeInclusive<u16>) -> BTreeMap<u32, Seen> {
        // What the kernel has, dumpcap still has to take.
        std::thread::sleep(Duration::from_millis(500));
        self.process.signal(libc::SIGINT);
        self.process.exit_code(Duration::from_secs(15));
        let fields = ["ip.src", "udp.srcport", "ip.dst", "udp.dstport", "rtp.ssrc"];
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.file).args([
            "--enable-heuristic",
            "rtp_udp",
            "-Y",
            "rtp",
            "-T",
            "fields",
        ]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = command.output().expect("tshark");
        let mut seen: BTreeMap<u32, Seen> = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let words: Vec<&str> = line.split('\t').collect();
            let [from_host, from, to, to_port, ssrc] = words[..] else { panic!("tshark printed {line:?}") };
            let port = |text: &str| text.parse::<u16>().unwrap_or_else(|_| panic!("tshark printed {line:?}"));
            let ssrc = ssrc.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
            let entry = seen.entry(ssrc.unwrap_or_else(|| panic!("tshark printed {line:?}"))).or_default();
            if to.parse() == Ok(relay) && ports.contains(&port(to_port)) {
                entry.into += 1;
            } else if from_host.parse() == Ok(relay) && ports.contains(&port(from)) {
                entry.out += 1;
            }
        }
        // A packet or two that only look like RTP are no stream.
        seen.retain(|_, seen| seen.into + seen.out > 10);
        seen
    }
}
