//! Static files on a WebSocket port (`--web-root`): the web phone.
//!
//! In: the path of a GET or HEAD. Out: the whole response, after which the connection is closed. Nothing outside the
//! directory is read, also not by a symbolic link.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Bytes of one file; a bundled web phone has under one million.
const FILE_BYTES: u64 = 16 << 20;

/// The response, or `None` for 404. Blocks: to be called on a thread of its own.
pub(super) fn respond(root: &Path, path: &str, head_only: bool) -> Option<Vec<u8>> {
    let (path, content) = read(root, path).ok()?;
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-cache\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        content_type(&path),
        content.len()
    )
    .into_bytes();
    if !head_only {
        response.extend_from_slice(&content);
    }
    Some(response)
}

fn read(root: &Path, path: &str) -> io::Result<(PathBuf, Vec<u8>)> {
    let root = root.canonicalize()?;
    let decoded = percent_decode(path).ok_or(io::ErrorKind::InvalidInput)?;
    let relative = Path::new(decoded.trim_start_matches('/'));
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut file = root.join(relative).canonicalize()?;
    if file.is_dir() {
        file = file.join("index.html").canonicalize()?;
    }
    let metadata = file.metadata()?;
    if !file.starts_with(&root) || !metadata.is_file() || metadata.len() > FILE_BYTES {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let content = std::fs::read(&file)?;
    Ok((file, content))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                decoded.push((high * 16 + low) as u8);
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok().filter(|text| !text.contains('\0'))
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_only_what_is_below_the_root() {
        let base = std::env::temp_dir().join(format!("sipbox-web-{}", std::process::id()));
        let root = base.join("root");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("index.html"), "<p>phone</p>").unwrap();
        std::fs::write(root.join("a b.js"), "1").unwrap();
        std::fs::write(base.join("secret"), "key").unwrap();
        std::os::unix::fs::symlink(base.join("secret"), root.join("link")).unwrap();
        let text = |path| respond(&root, path, false).map(|r| String::from_utf8(r).unwrap());
        assert!(text("/").unwrap().ends_with("\r\n\r\n<p>phone</p>"));
        assert!(text("/a%20b.js").unwrap().contains("text/javascript"));
        for bad in ["/../secret", "/%2e%2e/secret", "/link", "/none", "/%00", "/%zz", "//../secret"] {
            assert_eq!(text(bad), None, "{bad}");
        }
        let head = String::from_utf8(respond(&root, "/index.html", true).unwrap()).unwrap();
        assert!(head.contains("Content-Length: 12\r\n") && head.ends_with("\r\n\r\n"));
        std::fs::remove_dir_all(&base).unwrap();
    }
}
