//! `--db`: where the database is.
//!
//! In: `sqlite:PATH`, or `mysql://USER:PASSWORD@HOST:PORT/DATABASE?ssl-ca=PATH&socket=PATH` (RFC 3986, with percent-escapes
//! in each part). Out: a [`Place`], or what is wrong with it; never the password. Not here: connecting.

use super::mysql::Account;
use crate::start::{Kind, StartError, state_directory};
use std::path::PathBuf;

/// Name of the file in the state directory.
const FILE: &str = "sipbox.db";
/// Where MySQL listens unless somebody says otherwise.
const PORT: u16 = 3306;

/// A database that can be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Sqlite(PathBuf),
    MySql(Box<Account>),
}

/// Without a URL: the file in the state directory.
pub(super) fn parse(url: Option<&str>) -> Result<Place, StartError> {
    let Some(url) = url else { return Ok(Place::Sqlite(state_directory()?.join(FILE))) };
    let usage = |text: &str| StartError::new(Kind::Usage, format!("--db {}: {text}", shown(url)));
    match url.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => Ok(Place::Sqlite(PathBuf::from(path))),
        Some(("mysql", rest)) => match account(rest) {
            Ok(account) => Ok(Place::MySql(Box::new(account))),
            Err(text) => Err(usage(text)),
        },
        _ => Err(usage("give it as sqlite:PATH or mysql://USER:PASSWORD@HOST:PORT/DATABASE")),
    }
}

/// The URL for people: without what may be a password, also where it was written wrongly.
pub(super) fn shown(url: &str) -> String {
    match (url.split_once(':'), url.rsplit_once('@')) {
        (Some(("sqlite", _)) | None, _) => url.to_owned(),
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://…@{place}"),
        (Some((scheme, _)), None) => format!("{scheme}:…"),
    }
}

fn account(rest: &str) -> Result<Account, &'static str> {
    const FORM: &str = "give it as mysql://USER:PASSWORD@HOST:PORT/DATABASE";
    const ESCAPE: &str = "a '/', '?' or '@' in the password must be escaped: %2F, %3F, %40";
    let rest = rest.strip_prefix("//").ok_or(FORM)?;
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    if query.contains('@') {
        return Err(ESCAPE);
    }
    let (authority, database) = rest.split_once('/').ok_or("it names no database; add /DATABASE")?;
    if database.contains(['/', '@']) {
        return Err(ESCAPE);
    }
    let (credentials, place) =
        authority.rsplit_once('@').ok_or("it names no user; give USER:PASSWORD@ before the host")?;
    let (user, password) =
        credentials.split_once(':').map_or((credentials, None), |(user, password)| (user, Some(password)));
    let mut account = Account {
        user: unescape(user)?,
        password: password.map(unescape).transpose()?,
        host: String::new(),
        port: PORT,
        database: unescape(database)?,
        socket: None,
        ssl_ca: None,
    };
    if account.user.is_empty() {
        return Err("it names no user; give USER:PASSWORD@ before the host");
    }
    if account.database.is_empty() {
        return Err("it names no database; add /DATABASE");
    }
    // An address in brackets, with or without a port behind it; else a host.
    let (host, port) = match place.strip_prefix('[') {
        Some(inside) => {
            let (host, behind) = inside.split_once(']').ok_or("a ']' is missing behind the address")?;
            (host, behind.strip_prefix(':'))
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    account.host = unescape(host)?;
    if let Some(port) = port {
        account.port =
            port.parse().ok().filter(|port| *port > 0).ok_or("the port is no number from 1 to 65535")?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let path = PathBuf::from(unescape(value)?);
        let to = match name {
            "ssl-ca" => &mut account.ssl_ca,
            "socket" => &mut account.socket,
            _ => return Err("behind '?' it takes ssl-ca=PATH and socket=PATH"),
        };
        if path.as_os_str().is_empty() {
            return Err("behind '?' it takes ssl-ca=PATH and socket=PATH");
        }
        *to = Some(path);
    }
    if account.host.is_empty() && account.socket.is_none() {
        return Err("it names no host; give HOST:PORT, or ?socket=PATH");
    }
    if account.ssl_ca.is_some() && account.socket.is_some() {
        return Err("a Unix socket has no TLS; give ssl-ca or socket");
    }
    Ok(account)
}

fn unescape(text: &str) -> Result<String, &'static str> {
    const BAD: &str = "'%' must be followed by two hexadecimal digits of UTF-8; a '%' itself is %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| (byte as char).to_digit(16)).ok_or(BAD);
        bytes.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(bytes).map_err(|_| BAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mysql(url: &str) -> Account {
        match parse(Some(url)) {
            Ok(Place::MySql(account)) => *account,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn reads_every_part() {
        let account =
            mysql("mysql://us%40er:p%2Fa%3as%25s%c3%a9@[2001:db8::1]:3307/my%20db?ssl-ca=/etc/ca%26.pem");
        assert_eq!(account.user, "us@er");
        assert_eq!(account.password.as_deref(), Some("p/a:s%sé"));
        assert_eq!((account.host.as_str(), account.port), ("2001:db8::1", 3307));
        assert_eq!(account.database, "my db");
        assert_eq!(account.ssl_ca, Some(PathBuf::from("/etc/ca&.pem")));
        let account = mysql("mysql://sipbox@db.example.com/sip");
        assert_eq!((account.password, account.host.as_str(), account.port), (None, "db.example.com", 3306));
        let account = mysql("mysql://sipbox:@/sip?socket=/run/mysqld/mysqld.sock");
        assert_eq!(account.password.as_deref(), Some(""));
        assert_eq!(account.socket, Some(PathBuf::from("/run/mysqld/mysqld.sock")));
        // What people forget to escape and can be told apart all the same.
        assert_eq!(mysql("mysql://a:b@c@db.example.com/sip").password.as_deref(), Some("b@c"));
    }

    #[test]
    fn says_what_is_wrong_and_never_the_password() {
        for (url, says) in [
            ("mysql:/a:hidden@b/c", "mysql://USER"),
            ("mysql://a:hidden@b", "no database"),
            ("mysql://a:hidden@b/", "no database"),
            ("mysql://b/c", "no user"),
            ("mysql://:hidden@b/c", "no user"),
            ("mysql://a:hidden@/c", "no host"),
            ("mysql://a:hidden@b:0/c", "port"),
            ("mysql://a:hidden@b:port/c", "port"),
            ("mysql://a:hidden%4@b/c", "%25"),
            ("mysql://a:hidden%ff@b/c", "%25"),
            ("mysql://a:hidden/x@b/c", "%2F"),
            ("mysql://a:hidden?x@b/c", "%3F"),
            ("mysql://a:hidden", "no database"),
            ("mysql://a:hidden@b/c?tls=1", "ssl-ca=PATH"),
            ("mysql://a:hidden@b/c?ssl-ca=", "ssl-ca=PATH"),
            ("mysql://a:hidden@b/c?ssl-ca=/a&socket=/b", "no TLS"),
            ("mysql://a:hidden@[::1/c", "']'"),
            ("postgres://a:hidden@b/c", "sqlite:PATH or mysql:"),
            ("sqlite:", "sqlite:PATH or mysql:"),
        ] {
            let error = parse(Some(url)).expect_err(url);
            assert_eq!(error.kind, Kind::Usage, "{url}");
            assert!(error.message.contains(says), "{url}: {error}");
            assert!(!error.message.contains("hidden"), "{url}: {error}");
            assert_eq!(error.message.lines().count(), 1, "{url}");
        }
    }
}
