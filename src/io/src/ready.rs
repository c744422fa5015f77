//! Tells whoever started us that we serve: the first line on standard output, and systemd (sd_notify(3)).

use sd_notify::NotifyState;
use std::io::{self, Write};
use std::time::Duration;

/// Writes `{"event":"ready","command":…,"listen":[…]}` and tells systemd `READY=1`. `listen` has the real ports.
pub fn ready(command: &str, listen: &[String]) {
    let line = serde_json::json!({ "event": "ready", "command": command, "listen": listen });
    let mut out = io::stdout().lock();
    // Nobody reads (a closed pipe): the server serves all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    notify(NotifyState::Ready);
}

/// Tells systemd that the end has begun.
pub fn stopping() {
    notify(NotifyState::Stopping);
}

/// Tells systemd that we live; to be called each [`watchdog_interval`].
pub fn alive() {
    notify(NotifyState::Watchdog);
}

/// Half of the time after which systemd would take us for dead, where it watches.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Without systemd there is no socket to tell, and nothing is done.
fn notify(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}
