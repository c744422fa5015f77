//! Exit codes of sysexits.h, and the one line that goes with them.

use sipbox_io::start::{Kind, StartError};
use std::io;

/// Why a command ends with another code than 0. Numbers are those of sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The check or request that was asked for failed.
    Failed = 1,
    Usage = 64,
    Data = 65,
    NoInput = 66,
    Unavailable = 69,
    System = 71,
    Io = 74,
    Config = 78,
}

/// A failure. The message is one line: what, where, and the mend; an empty one is not printed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure { code: code as u8, message: message.into() }
    }

    /// Whoever read our output has enough: ends quietly, and well.
    pub fn closed_pipe() -> Self {
        Failure { code: 0, message: String::new() }
    }

    /// Whether it is [`closed_pipe`](Self::closed_pipe).
    pub fn is_closed_pipe(&self) -> bool {
        self.code == 0
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let code = match error.kind {
            Kind::Usage => Code::Usage,
            Kind::Data => Code::Data,
            Kind::NoInput => Code::NoInput,
            Kind::Unavailable => Code::Unavailable,
            Kind::System => Code::System,
            Kind::Io => Code::Io,
            Kind::Config => Code::Config,
        };
        Failure::new(code, error.message)
    }
}

/// Writing to standard output failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::closed_pipe(),
            _ => Failure::new(Code::Io, format!("standard output: {error}")),
        }
    }
}
