//! Debian's Kamailio 5.6, as it is packaged, with a configuration of `tests/data/kamailio`.
//!
//! It forks its workers: its main process is told to end, and waited for; whoever of its children is left then is killed by id.

use crate::harness::{Process, TempDir};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub struct Kamailio {
    process: Process,
    run: PathBuf,
}

impl Kamailio {
    /// Starts `tests/data/kamailio/CONFIG` with each `@NAME@` in it filled in (`@RUN@` by itself), with `flags` and in `zone`,
    /// a time zone; gives control back when it answers its control socket.
    pub fn start(dir: &TempDir, config: &str, fill: &[(&str, &str)], flags: &[&str], zone: &str) -> Self {
        let run = dir.join(&format!("kamailio-{config}"));
        std::fs::create_dir_all(&run).expect("a directory");
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kamailio").join(config);
        let mut text =
            std::fs::read_to_string(&template).unwrap_or_else(|e| panic!("{}: {e}", template.display()));
        for (name, value) in fill {
            assert!(text.contains(&format!("@{name}@")), "{config} has no @{name}@");
            text = text.replace(&format!("@{name}@"), value);
        }
        text = text.replace("@RUN@", &run.display().to_string());
        std::fs::write(run.join("kamailio.cfg"), text).expect("a file");
        let mut command = Command::new("kamailio");
        command.arg("-f").arg(run.join("kamailio.cfg")).args(["-DD", "-E", "-m", "32", "-M", "8"]);
        command.arg("-Y").arg(&run).arg("-w").arg(&run).arg("-P").arg(run.join("pid"));
        command.args(flags).env("TZ", zone).env("PATH", path());
        let mut kamailio = Kamailio { process: Process::start(command), run };
        let deadline = Instant::now() + Duration::from_secs(15);
        while kamailio.try_rpc(&["core.uptime"]).is_err() {
            let ended = kamailio.process.wait(Duration::ZERO);
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "Kamailio does not start ({ended:?}):\n{}",
                kamailio.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        kamailio
    }

    fn try_rpc(&self, words: &[&str]) -> Result<String, String> {
        let socket = format!("unix:{}", self.run.join("ctl").display());
        let mut command = Command::new("kamcmd");
        let output = command.args(["-s", &socket]).args(words).env("PATH", path()).output();
        let output = output.map_err(|error| format!("kamcmd: {error}; apt-get install kamailio"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // kamcmd ends with 0 whatever it was told.
        let error = text.starts_with("error:") || !output.status.success();
        if error { Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))) } else { Ok(text) }
    }

    /// What its control socket answers to a command.
    pub fn rpc(&self, words: &[&str]) -> String {
        self.try_rpc(words).unwrap_or_else(|error| panic!("{words:?}: {error}\n{}", self.log()))
    }

    /// The first line of its log with `text`, and what stands behind that.
    pub fn wait_log(&self, text: &str) -> String {
        let found = self.process.stderr.wait(0, Duration::from_secs(5), |line| {
            line.split_once(text).map(|(_, rest)| rest.trim().to_owned())
        });
        found.unwrap_or_else(|| panic!("no {text:?} in the log:\n{}", self.log()))
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        let pid = self.process.pid();
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        self.process.signal(libc::SIGTERM);
        if self.process.wait(Duration::from_secs(5)).is_some() {
            return;
        }
        self.process.kill();
        for child in children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()) {
            // SAFETY: plain system call; they were children of a process that lived until now, a moment ago.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
    }
}

/// Debian's place of servers need not be on a user's path.
pub fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
