//! The harness itself: a test that can't see a failure is worth nothing, so its own eyes are tested.

#[path = "../harness/mod.rs"]
mod harness;

use harness::mariadb::{self, MariaDb, Schema};
use harness::{Process, TempDir, loopback};
use mysql::prelude::Queryable;
use std::process::Command;
use std::time::Duration;

fn shell(script: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Process::start(command)
}

#[test]
fn a_child_is_read_and_reaped() {
    let mut child = shell("echo one; echo two; echo log >&2; exit 3");
    assert_eq!(child.exit_code(Duration::from_secs(5)), 3);
    let second = child.stdout.wait(0, Duration::from_secs(5), |line| (line == "two").then_some(()));
    assert!(second.is_some());
    assert_eq!(
        child.stderr.wait(0, Duration::from_secs(5), |line| Some(line.to_owned())).as_deref(),
        Some("log")
    );
    assert!(child.stdout.wait(0, Duration::from_secs(5), |line| (line == "three").then_some(())).is_none());
}

#[test]
fn a_dropped_child_is_gone() {
    let child = shell("exec sleep 600");
    let proc = format!("/proc/{}", child.pid());
    assert!(std::path::Path::new(&proc).exists());
    drop(child);
    assert!(!std::path::Path::new(&proc).exists());
}

#[test]
fn what_hangs_is_told() {
    let mut child = shell("exec sleep 600");
    assert!(child.wait(Duration::from_millis(50)).is_none());
}

#[test]
fn directories_and_addresses_are_ones_own() {
    let (one, two) = (TempDir::new(), TempDir::new());
    assert_ne!(one.path(), two.path());
    assert_ne!(loopback(), loopback());
    let path = one.path().to_owned();
    drop(one);
    assert!(!path.exists());
}

#[test]
fn a_mariadb_is_killed_comes_back_and_leaves_nothing() {
    let server = MariaDb::start();
    let (directory, first) = (server.ca().parent().unwrap().to_owned(), server.pid());
    {
        let schema = Schema::new(&server);
        schema.connect().query_drop("CREATE TABLE a (b INT)").unwrap();
        schema.connect().query_drop("INSERT INTO a VALUES (7)").unwrap();
        server.kill();
        assert!(std::net::TcpStream::connect((server.address(), server.port())).is_err());
        server.start_again();
        assert_ne!(server.pid(), first);
        assert_eq!(schema.connect().query_first("SELECT b FROM a").unwrap(), Some(7));
        // Over TCP, with a URL as sipbox and Kamailio take it.
        let mut other = mysql::Conn::new(schema.url().as_str()).unwrap();
        assert_eq!(
            other.query_first::<String, _>("SELECT CURRENT_USER()").unwrap(),
            Some(format!("{}@%", mariadb::USER))
        );
    }
    let pid = server.pid();
    drop(server);
    assert!(!directory.exists() && !std::path::Path::new(&format!("/proc/{pid}")).exists());
}
