//! Why a command cannot start, and where it keeps its state.
//!
//! One line: what, where (the flag and its value, or the file), and the mend. `bin` turns the kind into an exit
//! code of sysexits.h.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What kind of fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong (64).
    Usage,
    /// A file's content is wrong (65).
    Data,
    /// A file that was named is not there (66).
    NoInput,
    /// A service that is needed does not answer (69).
    Unavailable,
    /// The system refused: address in use, no permission (71).
    System,
    /// Reading or writing failed (74).
    Io,
    /// The configuration contradicts itself (78).
    Config,
}

/// A fault at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    pub kind: Kind,
    pub message: String,
}

impl StartError {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        StartError { kind, message: message.into() }
    }

    /// A file that could not be read or written; `what` names the flag or the purpose.
    pub fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::NotFound => StartError::new(
                Kind::NoInput,
                format!("{what} {path}: there is no such file; check the path"),
            ),
            io::ErrorKind::PermissionDenied => StartError::new(
                Kind::System,
                format!(
                    "{what} {path}: no permission; check the owner and the mode of it and its directories"
                ),
            ),
            _ => StartError::new(Kind::Io, format!("{what} {path}: {error}")),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

/// Lets the process have as many files (so connections) open as the system grants it; many systems begin with 1024.
pub fn raise_open_files() {
    // SAFETY: both calls read or write one structure that lives on this stack.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// The directory of what outlives the process, made (0700) if missing: the first of `$STATE_DIRECTORY` (systemd
/// may list several), else `$XDG_STATE_HOME/sipbox`, else `~/.local/state/sipbox`.
pub fn state_directory() -> Result<PathBuf, StartError> {
    let path = state_path(|name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
        .ok_or_else(|| {
            StartError::new(
                Kind::Config,
                "no directory for state: set STATE_DIRECTORY, XDG_STATE_HOME or HOME, or name the files by flag",
            )
        })?;
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(|error| StartError::file("state directory", &path, &error))?;
    Ok(path)
}

fn state_path(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(list) = variable("STATE_DIRECTORY") {
        let list = list.into_os_string().into_string().ok()?;
        return list.split(':').next().map(PathBuf::from);
    }
    variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("sipbox"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_then_xdg_then_home() {
        let with = |set: &'static [(&'static str, &'static str)]| {
            state_path(move |name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v)))
        };
        assert_eq!(with(&[("STATE_DIRECTORY", "/s/a:/s/b"), ("HOME", "/h")]), Some("/s/a".into()));
        assert_eq!(with(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]), Some("/x/sipbox".into()));
        assert_eq!(with(&[("HOME", "/h")]), Some("/h/.local/state/sipbox".into()));
        assert_eq!(with(&[]), None);
    }
}
