//! A subscriber that nobody here wrote: Debian's baresip sees a buddy come online when he registers or publishes, and go when he
//! leaves, through our proxy, registrar and presence server.

#[path = "../harness/mod.rs"]
mod harness;

use harness::{Process, Server, TempDir, loopback, run_in};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(10);

/// baresip as `user`, on an address of its own, with this line in its contacts.
fn baresip(dir: &TempDir, user: &str, proxy: &str, contact: &str) -> Process {
    let home = dir.join(&format!("baresip-{user}"));
    std::fs::create_dir_all(&home).expect("a directory");
    let address = loopback();
    let config = format!(
        "poll_method epoll\nsip_listen {address}:5060\nnet_interface {address}\naudio_source aubridge,nil\n\
         audio_player aubridge,nil\nmodule_path /usr/lib/baresip/modules\nmodule g711.so\nmodule aubridge.so\n\
         module_tmp account.so\nmodule_app contact.so\nmodule_app menu.so\nmodule_app presence.so\n"
    );
    let account =
        format!("<sip:{user}@example.com>;auth_pass={user}-password;outbound=\"sip:{proxy}\";regint=60\n");
    for (name, content) in [("config", config.as_str()), ("accounts", &account), ("contacts", contact)] {
        std::fs::write(home.join(name), content).expect("a file");
    }
    assert!(
        Path::new("/usr/lib/baresip/modules/presence.so").exists(),
        "no baresip here; apt-get install baresip-core"
    );
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "baresip", "-f"]).arg(&home);
    Process::start_piped(command).0
}

/// The next line of baresip's that tells how Bob's state changed; its colours are left out.
fn changed(process: &Process, from: &mut usize, to: &str) {
    let mut seen = *from;
    let found = process.stdout.wait(*from, WITHIN, |line| {
        seen += 1;
        let plain = line.replace(['\u{1b}'], "");
        let (_, change) = plain.split_once("sip:bob@example.com> changed status from ")?;
        let (_, new) = change.split_once(" to ")?;
        Some(new.to_owned())
    });
    *from = seen;
    let new =
        found.unwrap_or_else(|| panic!("Bob did not become {to}:\n{}", process.stdout.all().join("\n")));
    assert!(new.contains(to), "Bob became {new}, not {to}");
}

#[test]
fn baresip_sees_a_buddy_come_and_go() {
    let dir = Arc::new(TempDir::new());
    let db = format!("sqlite:{}", dir.join("sipbox.db").display());
    for user in ["alice", "bob"] {
        let aor = format!("{user}@example.com");
        let words = ["registrar", "user", "add", &aor, "--password-stdin", "--db", &db];
        let done = run_in(&dir, &words, format!("{user}-password\n").as_bytes());
        assert_eq!(done.code, 0, "{done:?}");
    }
    let proxy_ip = loopback();
    let edge = format!("{proxy_ip}/32");
    let start = |command: &str, args: &[&str]| {
        let mut all = vec!["--domain", "example.com", "--db", &db, "--events", "-"];
        all.extend(args);
        Server::start_in(Arc::clone(&dir), command, &all)
    };
    let registrar = start("registrar", &["--listen", &format!("udp:{}:0", loopback()), "--edge", &edge]);
    let presence = start("presence", &["--listen", &format!("udp:{}:0", loopback()), "--edge", &edge]);
    let (register_at, watch_at) =
        (format!("sip:{}", registrar.address("udp")), format!("sip:{}", presence.address("udp")));
    let listen = format!("udp:{proxy_ip}:0");
    let proxy = start("proxy", &["--listen", &listen, "--registrar", &register_at, "--presence", &watch_at]);
    let through = proxy.address("udp").to_string();

    let alice = baresip(&dir, "alice", &through, "\"Bob\" <sip:bob@example.com>;presence=p2p\n");
    let subscribed = presence.wait_record(WITHIN, |record| record["event"] == "subscribed");
    assert!(subscribed.is_some(), "{:?}\n{}", presence.records(), alice.stdout.all().join("\n"));
    let mut line = 0;

    // He registers, and his phone unregisters when it ends.
    let bob = baresip(&dir, "bob", &through, "\n");
    changed(&alice, &mut line, "Online");
    bob.signal(libc::SIGTERM);
    changed(&alice, &mut line, "Offline");
    drop(bob);

    // He publishes, and takes it back.
    for (words, state) in [(["open", "60"], "Online"), (["open", "0"], "Offline")] {
        let done = run_in(
            &dir,
            &["presence", "publish", "bob@example.com", words[0], "--expires", words[1], "--db", &db],
            b"",
        );
        assert_eq!(done.code, 0, "{done:?}");
        changed(&alice, &mut line, state);
    }
    assert!(!presence.records().iter().any(|record| record["event"] == "notify-failed"));
}
