//! `wsgw probe`: flags of the scripted browser.

use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::probe::{self, Plan, Role};
use clap::Args;
use sipbox_core::sip::Aor;
use sipbox_io::websocket::{Address, Trust};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// Be a scripted browser: register over WebSocket, call or answer, send a tone, and tell what was heard
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("role").required(true).args(["call", "answer"]))]
pub struct Probe {
    /// The gateway: wss://HOST:PORT/PATH or ws://HOST:PORT/PATH
    #[arg(value_name = "URI")]
    pub uri: String,
    /// Who to register as: USER@DOMAIN
    #[arg(long, value_name = "AOR")]
    pub user: String,
    /// Read the password from standard input, up to its first line end
    #[arg(long, required = true)]
    pub password_stdin: bool,
    /// Call USER@DOMAIN, or a SIP URI
    #[arg(long, value_name = "AOR")]
    pub call: Option<String>,
    /// Wait for a call and answer it
    #[arg(long)]
    pub answer: bool,
    /// How long to talk
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// How long to wait for a call, or for the answer to ours
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub wait: u64,
    /// The tone that is sent
    #[arg(long, value_name = "HZ", default_value_t = 440, value_parser = clap::value_parser!(u32).range(100..=3400))]
    pub tone: u32,
    /// The authority that signed the gateway's certificate, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", conflicts_with = "tls_insecure")]
    pub tls_ca: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    pub tls_insecure: bool,
}

impl Probe {
    fn plan(&self) -> Result<Plan, Failure> {
        let usage = |message: String| Failure::new(Code::Usage, message);
        let server = Address::parse(&self.uri).ok_or_else(|| {
            usage(format!("{}: not the address of a gateway; wss://HOST:PORT/ is one", self.uri))
        })?;
        let user = Aor::parse(self.user.strip_prefix("sip:").unwrap_or(&self.user))
            .ok_or_else(|| usage(format!("--user {}: not a user; alice@example.com is one", self.user)))?;
        let patience = Duration::from_secs(self.wait);
        let role = match &self.call {
            Some(uri) if uri.starts_with("sip:") || uri.starts_with("tel:") => {
                Role::Call { uri: uri.clone(), patience }
            }
            Some(aor) => Role::Call { uri: format!("sip:{aor}"), patience },
            None => Role::Answer { patience },
        };
        let trust = match (&self.tls_ca, self.tls_insecure) {
            (_, true) => Trust::Anybody,
            (Some(path), false) => Trust::File(path.clone()),
            (None, false) => Trust::System,
        };
        let password = password()?;
        let talk = Duration::from_secs(self.seconds);
        Ok(Plan { server, trust, user, password, role, talk, tone_hz: self.tone.into() })
    }

    /// Runs it; fails with 1 when media did not flow both ways.
    pub fn run(&self) -> Result<(), Failure> {
        let plan = self.plan()?;
        if plan.trust == Trust::Anybody && plan.server.secure {
            eprintln!("wsgw probe: --tls-insecure: the gateway's certificate is not checked");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Code::System, format!("no runtime: {error}")))?;
        let outcome = runtime.block_on(probe::run(&plan))?;
        let mut out = Output::new();
        out.record(&outcome.record)?;
        out.flush()?;
        if outcome.flowed { Ok(()) } else { Err(Failure::new(Code::Failed, outcome.why)) }
    }
}

/// The first line of standard input.
fn password() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(4096)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(Code::NoInput, format!("--password-stdin: {error}")))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(Failure::new(Code::NoInput, "--password-stdin: standard input has no password")),
    }
}
