//! The SIP phone that nobody here wrote: Debian's baresip 1.0 with PCMU, a WAV file as microphone, and its sndfile
//! module that records what its own decoder heard.
//!
//! Traps: its `ausine` knows 48 kHz only and its `aufile` can't play, hence file in, `aubridge` out. Told what to do, and
//! telling what happened, by its ctrl_tcp module (JSON in netstrings).

use crate::ear;
use crate::harness::{Process, TempDir};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const CONTROL_PORT: u16 = 4444;

pub struct Baresip {
    process: Process,
    control: TcpStream,
    unread: Vec<u8>,
    dir: PathBuf,
}

/// RTP packets, as baresip counted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub sent: u64,
    pub received: u64,
}

impl Baresip {
    /// A phone at `address` that registers `user` through `proxy`, answers every call, and plays `hz`.
    pub fn start(dir: &TempDir, address: &str, user: &str, domain: &str, proxy: SocketAddr, hz: u32) -> Self {
        let dir = dir.join(&format!("baresip-{user}"));
        std::fs::create_dir_all(dir.join("heard")).expect("a directory");
        let tone = dir.join("tone.wav");
        std::fs::write(&tone, ear::tone_wav(hz, 120)).expect("a WAV file");
        let show = |path: &Path| path.display().to_string();
        let config = format!(
            "poll_method epoll\nsip_listen {address}:5060\nnet_interface {address}\n\
             audio_source aufile,{tone}\naudio_player aubridge,nil\naudio_alert aubridge,nil\n\
             ausrc_srate 8000\nauplay_srate 8000\nausrc_channels 1\nauplay_channels 1\n\
             audio_txmode thread\naudio_buffer 20-160\nrtp_stats yes\nstatmode_default off\nrtcp_mux no\n\
             module_path {modules}\nmodule g711.so\nmodule aufile.so\nmodule aubridge.so\nmodule sndfile.so\n\
             module_tmp account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n\
             ctrl_tcp_listen {address}:{CONTROL_PORT}\nsndfile_path {heard}\nsnd_path {heard}\n",
            tone = show(&tone),
            modules = "/usr/lib/baresip/modules",
            heard = show(&dir.join("heard")),
        );
        let account = format!(
            "<sip:{user}@{domain}>;auth_pass={user}-password;outbound=\"sip:{proxy}\";regint=60;\
             audio_codecs=PCMU/8000/1;answermode=auto\n"
        );
        for (name, content) in [("config", config.as_str()), ("accounts", &account), ("contacts", "")] {
            std::fs::write(dir.join(name), content).expect("a file");
        }
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "baresip", "-f"]).arg(&dir);
        let process = Process::start(command);
        let control = format!("{address}:{CONTROL_PORT}").parse::<SocketAddr>().expect("an address");
        let deadline = Instant::now() + Duration::from_secs(10);
        let control = loop {
            match TcpStream::connect(control) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    panic!(
                        "baresip at {control}: {error}; is baresip-core installed? its log:\n{}",
                        process.log()
                    )
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        // It may be registered before its control connection is there, so this event is read off its output.
        let registered =
            process.stdout.wait(0, Duration::from_secs(15), |line| line.contains("} 200 OK (").then_some(()));
        let phone = Baresip { process, control, unread: Vec::new(), dir };
        assert!(registered.is_some(), "baresip does not register:\n{}", phone.output());
        phone
    }

    fn command(&mut self, command: &str, params: &str) {
        let message = json!({ "command": command, "params": params }).to_string();
        let netstring = format!("{}:{message},", message.len());
        self.control.write_all(netstring.as_bytes()).expect("baresip listens");
    }

    pub fn dial(&mut self, uri: &str) {
        self.command("dial", uri);
    }

    pub fn hangup(&mut self) {
        self.command("hangup", "");
    }

    /// Waits for an event of this type (`CALL_ESTABLISHED`, `CALL_CLOSED`, …) and gives it.
    pub fn wait(&mut self, kind: &str, within: Duration) -> Value {
        let deadline = Instant::now() + within;
        let mut seen = Vec::new();
        loop {
            while let Some(message) = self.next_message() {
                if message["event"] == true && message["type"] == kind {
                    return message;
                }
                seen.push(message.to_string());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {kind} within {within:?}, but {seen:?}; stdout:\n{}", self.output());
            self.control.set_read_timeout(Some(left)).expect("a time-out");
            let mut buffer = [0; 4096];
            match self.control.read(&mut buffer) {
                Ok(0) => panic!("baresip is gone; stdout:\n{}", self.output()),
                Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
                Err(_) => {}
            }
        }
    }

    /// Cuts one netstring off what was read.
    fn next_message(&mut self) -> Option<Value> {
        let colon = self.unread.iter().position(|&byte| byte == b':')?;
        let length: usize = std::str::from_utf8(&self.unread[..colon]).ok()?.parse().expect("a netstring");
        let end = colon + 1 + length;
        if self.unread.len() <= end {
            return None;
        }
        let message = serde_json::from_slice(&self.unread[colon + 1..end]).expect("JSON");
        self.unread.drain(..=end);
        Some(message)
    }

    fn output(&self) -> String {
        self.process.stdout.all().join("\n")
    }

    /// The counts that baresip printed when call number `index` (from 0) ended.
    pub fn counts(&self, index: usize) -> Counts {
        let mut seen = 0;
        let found = self.process.stdout.wait(0, Duration::from_secs(5), |line| {
            let numbers = line.trim().strip_prefix("packets:")?;
            seen += 1;
            (seen > index)
                .then(|| numbers.split_whitespace().map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>())
        });
        match found.flatten().as_deref() {
            Some(&[sent, received]) => Counts { sent, received },
            _ => panic!("baresip printed no statistics:\n{}", self.output()),
        }
    }

    /// What its decoder heard in call number `index` (from 0), which must be the latest: samples at 8 kHz.
    pub fn heard(&self, index: usize) -> Vec<i16> {
        let mut files: Vec<_> = std::fs::read_dir(self.dir.join("heard"))
            .expect("the recordings")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().ends_with("-dec.wav"))
            .collect();
        files.sort();
        // Their names begin with the time. A recording of an earlier call proves nothing of this one.
        assert_eq!(files.len(), index + 1, "recordings {files:?}:\n{}", self.output());
        let latest = files.last().expect("at least one");
        ear::read_wav(&std::fs::read(latest).expect("a recording"))
    }
}
