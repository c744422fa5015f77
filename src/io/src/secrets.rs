//! The keys that sign tokens and nonces (`--secret-file`).
//!
//! One key a line; the first signs, all verify, so that a key is changed by putting the new one on top. Empty
//! lines and lines that begin with `#` are passed over. The bytes of the line, as they stand, are the key.
//! Missing: made with one key and mode 0600; every host of a deployment must then be given that same file. Not here: signing (`core::auth`).

use crate::entropy;
use crate::start::{Kind, StartError, state_directory};
use base64::Engine;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Fewer characters than this can be guessed.
const KEY_CHARACTERS: usize = 16;
/// More keys than this make each verification slow, and nobody rotates through so many.
const KEYS: usize = 8;
/// Name of the file in the state directory.
const FILE: &str = "secrets";

/// Reads the keys of `file`, or of `secrets` in the state directory; the file is made where it is missing.
pub fn load(file: Option<&Path>) -> Result<Vec<Vec<u8>>, StartError> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => state_directory()?.join(FILE),
    };
    make_if_missing(&path).map_err(|error| StartError::file("--secret-file", &path, &error))?;
    let metadata =
        std::fs::metadata(&path).map_err(|error| StartError::file("--secret-file", &path, &error))?;
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(StartError::new(
            Kind::Config,
            format!("--secret-file {}: everybody can read it; chmod 600 it", path.display()),
        ));
    }
    let text = std::fs::read(&path).map_err(|error| StartError::file("--secret-file", &path, &error))?;
    parse(&text)
        .map_err(|fault| StartError::new(Kind::Data, format!("--secret-file {}{fault}", path.display())))
}

fn parse(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut keys = Vec::new();
    for (number, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if line.len() < KEY_CHARACTERS {
            return Err(format!(
                ":{}: a key of {} characters; give it at least {KEY_CHARACTERS}",
                number + 1,
                line.len()
            ));
        }
        keys.push(line.to_vec());
    }
    match keys.len() {
        0 => Err(": no key in it; put one on a line, or remove the file to have one made".to_owned()),
        1..=KEYS => Ok(keys),
        n => Err(format!(": {n} keys; keep at most {KEYS}")),
    }
}

/// Written beside and then linked, so that of several servers that start together one makes it and none reads half.
fn make_if_missing(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    let key = base64::engine::general_purpose::STANDARD_NO_PAD.encode(entropy::seed()?);
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(
        format!("# Signs tokens and nonces. Put a new key on top to change it.\n{key}\n").as_bytes(),
    )?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&beside, path);
    std::fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keys_in_order() {
        let keys = parse(b"# two\nnew-key-0123456789\n\n  old-key-0123456789\r\n").unwrap();
        assert_eq!(keys, [b"new-key-0123456789".to_vec(), b"old-key-0123456789".to_vec()]);
        assert_eq!(parse(b"\nshort\n").unwrap_err(), ":2: a key of 5 characters; give it at least 16");
        assert!(parse(b"# nothing\n").is_err());
    }

    #[test]
    fn makes_a_private_file_once() {
        let path = std::env::temp_dir().join(format!("sipbox-secrets-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        make_if_missing(&path).unwrap();
        let first = std::fs::read(&path).unwrap();
        make_if_missing(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(Some(&path)).unwrap().len(), 1);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load(Some(&path)).unwrap_err().kind, Kind::Config);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load(Some(&path)).unwrap().len(), 1);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load(Some(&path.join("no/such/directory"))).unwrap_err().kind, Kind::NoInput);
    }
}
