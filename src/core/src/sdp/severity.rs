//! How bad a finding about a session description is. Not here: what is found (`check`, `pair`).

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works in some places, or may be taken in another way than was meant.
    Warning,
    /// Against the RFC, refused by those that it is for, or no media flows.
    Error,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}
