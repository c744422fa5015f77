//! Tells whoever started us that we serve: the first line on standard output, and systemd (sd_notify(3)).

use sd_notify::NotifyState;
use std::io::{self, Write};

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

/// Tells systemd that we live; to be called when the [`Watchdog`] is due.
pub fn alive() {
    notify(NotifyState::Watchdog);
}

/// When systemd has to hear of us, where it watches.
pub struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    /// What the environment says of it. Needs a runtime.
    pub fn of_systemd() -> Watchdog {
        Watchdog(sd_notify::watchdog_enabled().map(|limit| tokio::time::interval(limit / 2)))
    }

    /// Comes back after each half of the time that systemd waits before it takes us for dead; never, where it does not watch.
    /// Cancel safe.
    pub async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }
}

/// Without systemd there is no socket to tell, and nothing is done.
fn notify(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}
