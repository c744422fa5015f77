//! The browser: Debian's Chromium, headless, with JsSIP in a page that wsgw serves (`browser/`).

use crate::harness::Process;
use serde_json::{Value, json};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::time::Duration;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/browser")
}

/// The page of `scripts/webphone`, built by its own script. Needs the network once, too.
pub fn webphone_root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/webphone");
    run(&mut Command::new(folder.join("build")));
    folder.join("dist")
}

/// Fetches what `package-lock.json` names if it is not there, bundles the page, and gives the directory to serve.
/// Needs the network once, so it comes before [`crate::namespace::enter`].
pub fn web_root() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-web");
    std::fs::create_dir_all(&root).expect("a directory");
    // Tests are processes of their own: one of them does it, the others wait.
    let lock = std::fs::File::create(root.with_extension("lock")).expect("a lock file");
    // SAFETY: plain system call on our own descriptor.
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);
    let folder = folder();
    if !folder.join("node_modules/.package-lock.json").exists() {
        run(Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(&folder));
    }
    let bundle = root.join("page.js");
    run(Command::new("node_modules/.bin/esbuild")
        .args(["page.js", "--bundle", "--log-level=error"])
        .arg(format!("--outfile={}", bundle.display()))
        .current_dir(&folder));
    let page = "<!doctype html><meta charset=utf-8><title>sipbox</title><link rel=icon href=data:,><script src=page.js></script>\n";
    std::fs::write(root.join("index.html"), page).expect("a page");
    root
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; apt-get install nodejs npm"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub struct Chromium {
    process: Process,
    stdin: Option<ChildStdin>,
    answers: usize,
}

/// What the browser says of its call.
#[derive(Debug)]
pub struct Report {
    pub dtls: String,
    pub sent: u64,
    pub received: u64,
    /// What its decoder gave.
    pub samples: Vec<i16>,
    pub rate: u32,
}

impl Chromium {
    /// Opens `url`, which must be our page.
    pub fn open(url: &str) -> Self {
        let mut command = Command::new("node");
        command.arg("drive.mjs").current_dir(folder());
        let (process, stdin) = Process::start_piped(command);
        let mut browser = Chromium { process, stdin: Some(stdin), answers: 0 };
        browser.ask(&json!({ "open": url }));
        browser
    }

    fn ask(&mut self, command: &Value) -> Value {
        let stdin = self.stdin.as_mut().expect("open");
        writeln!(stdin, "{command}").expect("the driver listens");
        let line =
            self.process.stdout.wait(self.answers, Duration::from_secs(60), |line| Some(line.to_owned()));
        let line = line.unwrap_or_else(|| panic!("no answer to {command}:\n{}", self.process.log()));
        self.answers += 1;
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(answer.get("error").is_none(), "{command}: {answer}\n{}", self.process.log());
        answer["ok"].clone()
    }

    /// Whether a fresh connection takes this offer: the m-lines of its answer, or why not.
    pub fn take(&mut self, offer: &str) -> Result<Vec<String>, String> {
        let told = self.ask(&json!({ "offer": offer }));
        match told["media"].as_array() {
            Some(media) => Ok(media.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            None => Err(told["refused"].as_str().unwrap_or("no reason").to_owned()),
        }
    }

    /// Types into a field, as a user.
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.ask(&json!({ "fill": selector, "text": text }));
    }

    pub fn click(&mut self, selector: &str) {
        self.ask(&json!({ "click": selector }));
    }

    /// What a visible element says.
    pub fn read(&mut self, selector: &str) -> String {
        self.ask(&json!({ "read": selector })).as_str().unwrap_or_default().to_owned()
    }

    fn phone(&mut self, name: &str, argument: Value) -> Value {
        self.ask(&json!({ "phone": name, "with": argument }))
    }

    /// Registers over `server` and answers every call; `hz` is what its microphone hears.
    pub fn register(&mut self, server: &str, user: &str, domain: &str, hz: u32) {
        let uri = format!("sip:{user}@{domain}");
        let password = format!("{user}-password");
        self.phone("register", json!({ "server": server, "uri": uri, "password": password, "hz": hz }));
    }

    pub fn call(&mut self, uri: &str) {
        self.phone("call", json!({ "target": uri }));
    }

    pub fn hangup(&mut self) {
        self.phone("hangup", Value::Null);
    }

    /// Waits until JsSIP has told `event` (`confirmed`, `ended`, …) for the `count`th time.
    pub fn wait(&mut self, event: &str, count: usize) {
        for _ in 0..200 {
            let log = self.phone("log", Value::Null);
            let told = |name: &str| {
                log.as_array().map_or(0, |log| log.iter().filter(|entry| entry["event"] == name).count())
            };
            if told(event) >= count {
                return;
            }
            assert!(event == "failed" || told("failed") == 0, "the browser's call failed: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no {event} in the browser: {}", self.phone("log", Value::Null));
    }

    /// What JsSIP told with the latest `event`.
    pub fn last(&mut self, event: &str) -> Value {
        let log = self.phone("log", Value::Null);
        let found = log.as_array().and_then(|log| log.iter().rev().find(|entry| entry["event"] == event));
        found.cloned().unwrap_or_else(|| panic!("no {event} in {log}"))
    }

    /// Waits until DTLS is connected.
    pub fn wait_dtls(&mut self) {
        for _ in 0..200 {
            if self.phone("dtls", Value::Null) == "connected" {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the browser's DTLS does not connect: {}", self.phone("log", Value::Null));
    }

    /// How many packets the browser sent and received so far, and what it heard.
    pub fn report(&mut self) -> Report {
        let report = self.phone("report", Value::Null);
        let number =
            |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {}", report["log"]));
        let recording = &report["recording"];
        let bytes = recording["samples"].as_str().map(decode_base64).unwrap_or_default();
        Report {
            dtls: report["dtls"].as_str().unwrap_or_default().to_owned(),
            sent: number("sent"),
            received: number("received"),
            samples: bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect(),
            rate: recording["rate"].as_u64().unwrap_or(8000) as u32,
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The driver closes the browser at the end of its input; its death would close it too, less tidily.
        drop(self.stdin.take());
        self.process.wait(Duration::from_secs(10));
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.bytes().filter(|&byte| byte != b'=') {
        let value = ALPHABET.iter().position(|&letter| letter == byte).expect("base64") as u32;
        bits = bits << 6 | value;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}
