//! What a site installs: units, sample environment files, `scripts/install`, and what the servers tell systemd.
//!
//! And all eight commands together, as they are installed (`tests/composition.sh`).
//! systemd itself is not run: its own tools judge the units offline, and a socket takes what it would be told.

#[path = "../harness/mod.rs"]
mod harness;

use harness::{Process, TempDir, loopback, server_command, sipbox};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SERVERS: [&str; 5] = ["registrar", "proxy", "wsgw", "relay", "presence"];
/// The most that `systemd-analyze security` may find, in tenths; wsgw keeps one capability, for port 443.
const EXPOSURE: &str = "12";
const EXPOSURE_WSGW: &str = "16";
const WITHIN: Duration = Duration::from_secs(30);

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs it to its end; its exit code, and all that it wrote.
fn done(command: Command) -> (i32, String) {
    let mut process = Process::start(command);
    let code = process.exit_code(WITHIN);
    (code, process.stdout.all().join("\n") + &process.log())
}

fn program(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(words);
    command
}

/// `scripts/install` of the binary under test into this directory.
fn install(root: &Path, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(repository("scripts/install"));
    command.args(["--binary", sipbox(), "--destdir"]).arg(root).args(more);
    done(command)
}

/// Every file, link and directory below.
fn tree(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path.clone());
            }
            found.insert(path.strip_prefix(root).expect("below").display().to_string());
        }
    }
    found
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn installed_and_uninstalled() {
    let dir = TempDir::new();
    let root = dir.join("root");
    let (code, told) = install(&root, &["--domain", "example.org", "--address", "192.0.2.77"]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("systemctl enable --now sipbox.target"), "{told}");

    // Each command by its link, with its page, and with completions that the shell takes.
    let (code, names) = done(program(sipbox(), &["--list"]));
    assert_eq!(code, 0, "{names}");
    let names: Vec<&str> = names.lines().collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names.iter().map(|name| format!("sipbox-{name}")).chain(["sipbox".to_owned()]) {
        let link = root.join("usr/local/bin").join(&name);
        let (code, version) = done(program(link.to_str().expect("a path"), &["--version"]));
        assert_eq!((code, version.ends_with(env!("CARGO_PKG_VERSION"))), (0, true), "{name}: {version}");
        let page = root.join(format!("usr/local/share/man/man1/{name}.1"));
        // Warnings of groff are faults of the page.
        let mut groff = program("groff", &["-Kutf8", "-man", "-ww", "-Tutf8"]);
        groff.arg(&page);
        let mut groff = Process::start(groff);
        assert_eq!((groff.exit_code(WITHIN), groff.log().as_str()), (0, ""), "{name}");
        let mut man = program("man", &["-l"]);
        man.arg(&page).env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8");
        let (code, text) = done(man);
        assert_eq!(code, 0, "{name}: {text}");
        // Justified text has more than one space.
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&format!(" NAME {name} - ")), "{name}: {text}");
        let script = root.join("usr/local/share/bash-completion/completions").join(&name);
        let load = format!("source '{}' && complete -p {name}", script.display());
        let (code, loaded) = done(program("bash", &["--norc", "-c", &load]));
        assert_eq!(code, 0, "{name}: {loaded}");
        assert!(loaded.ends_with(&format!(" {name}")), "{loaded}");
        for path in [format!("zsh/site-functions/_{name}"), format!("fish/vendor_completions.d/{name}.fish")]
        {
            assert!(read(root.join("usr/local/share").join(&path)).contains(&name), "{path}");
        }
    }
    // What the shell offers: flags of that command.
    let script = root.join("usr/local/share/bash-completion/completions/sipbox-proxy");
    let ask = format!(
        "source '{}'; COMP_WORDS=(sipbox-proxy --ring); COMP_CWORD=1; _sipbox__proxy sipbox-proxy --ring sipbox-proxy; echo ${{COMPREPLY[@]}}",
        script.display()
    );
    assert_eq!(done(program("bash", &["--norc", "-c", &ask])), (0, "--ring-timeout".to_owned()));

    // The files are for this domain and machine, all of them, and name nobody else's address.
    let etc = root.join("etc/sipbox");
    assert!(read(etc.join("sipbox.env")).contains("\nSIPBOX_DOMAIN=\"example.org\"\n"));
    for name in SERVERS.iter().chain(&["sipbox"]) {
        let text = read(etc.join(format!("{name}.env")));
        let left = text.lines().find(|line| !line.starts_with('#') && line.contains("192.0.2.10"));
        assert_eq!(left, None, "{name}.env");
    }
    assert!(read(etc.join("relay.env")).contains("\nSIPBOX_RELAY_INTERFACE=\"192.0.2.77\"\n"));
    // A database's password may come into any of them, and root alone reads them.
    for name in SERVERS.iter().chain(&["sipbox"]) {
        let file = etc.join(format!("{name}.env"));
        let mode = fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}.env");
    }

    // Again: an edited file stays, one that is not gets what is new, and the first answers are remembered.
    let proxy = etc.join("proxy.env");
    let edited = read(&proxy) + "SIPBOX_PROXY_FORK=\"serial\"\n";
    fs::write(&proxy, &edited).expect("written");
    let before = tree(&root);
    let (code, told) = install(&root, &[]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("kept as you edited them: proxy.env"), "{told}");
    assert_eq!(read(&proxy), edited);
    assert!(read(etc.join("relay.env")).contains("\nSIPBOX_RELAY_INTERFACE=\"192.0.2.77\"\n"));
    assert_eq!(tree(&root), before);

    // Away again: what is not ours, and what was edited, stays.
    fs::write(root.join("usr/local/bin/other"), "not ours").expect("written");
    let mut command = Command::new(repository("scripts/install"));
    command.args(["--uninstall", "--destdir"]).arg(&root);
    let (code, told) = done(command);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("etc/sipbox/proxy.env: it was edited"), "{told}");
    let left: Vec<String> = tree(&root).into_iter().collect();
    assert_eq!(
        left,
        [
            "etc",
            "etc/sipbox",
            "etc/sipbox/proxy.env",
            "usr",
            "usr/local",
            "usr/local/bin",
            "usr/local/bin/other"
        ]
    );
    assert_eq!(read(&proxy), edited);
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = TempDir::new();
    let root = dir.join("root");
    let (code, told) = install(&root, &[]);
    assert_eq!(code, 0, "{told}");
    // As installed, but for where the programs are: verify looks whether they are there.
    let bin = root.join("usr/local/bin");
    let mut units = Vec::new();
    for entry in fs::read_dir(root.join("usr/local/lib/systemd/system")).expect("units") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_owned();
        let text = read(&path).replace("/usr/local/bin", bin.to_str().expect("a path"));
        fs::write(dir.join(name.to_str().expect("a name")), text).expect("written");
        units.push(name.into_string().expect("a name"));
    }
    units.sort();
    assert_eq!(
        units,
        [
            "sipbox-presence.service",
            "sipbox-proxy.service",
            "sipbox-registrar.service",
            "sipbox-relay.service",
            "sipbox-wsgw.service",
            "sipbox.target"
        ]
    );
    let mut verify = program("systemd-analyze", &["verify", "--man=yes"]);
    verify.args(&units).current_dir(dir.path()).env("MANPATH", root.join("usr/local/share/man"));
    assert_eq!(done(verify), (0, String::new()));
    for name in SERVERS {
        let threshold = format!("--threshold={}", if name == "wsgw" { EXPOSURE_WSGW } else { EXPOSURE });
        let words = ["security", "--offline=true", "--no-pager", &threshold];
        let mut security = program("systemd-analyze", &words);
        security.arg(format!("sipbox-{name}.service")).current_dir(dir.path());
        let (code, table) = done(security);
        assert_eq!(code, 0, "{name}: {table}");
        assert!(table.contains("→ Overall exposure level"), "{table}");
    }
}

/// A word that systemd-sysusers does not take leaves the units without their users.
#[test]
fn systemd_takes_the_users() {
    let mut sysusers = program("systemd-sysusers", &["--dry-run"]);
    sysusers.arg(repository("scripts/systemd/sipbox.sysusers"));
    let (code, told) = done(sysusers);
    assert_eq!((code, told.contains("valid")), (0, false), "{told}");
    for name in SERVERS {
        let unit = read(repository(&format!("scripts/systemd/sipbox-{name}.service")));
        let user = if name == "relay" { "sipbox-relay" } else { "sipbox" };
        assert!(unit.contains(&format!("\nUser={user}\nGroup={user}\n")), "{name}");
        let users = read(repository("scripts/systemd/sipbox.sysusers"));
        assert!(users.contains(&format!("\nu {user} - ")), "{users}");
    }
}

/// A name that no command knows would be passed over in silence.
#[test]
fn every_variable_of_the_samples_is_one_of_its_commands() {
    let variables = |file: &str| -> Vec<String> {
        let text = read(repository(&format!("scripts/etc/{file}.env")));
        let lines = text.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
        let found = lines.filter_map(|line| line.strip_prefix("SIPBOX_")?.split_once('='));
        found.map(|(name, _)| format!("SIPBOX_{name}")).collect()
    };
    let known = |command: &str| -> BTreeSet<String> {
        let page = read(repository(&format!("man/sipbox-{command}.1")));
        let (_, section) = page.split_once(".SH ENVIRONMENT").expect("a section");
        section
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|word| word.starts_with("SIPBOX_"))
            .map(str::to_owned)
            .collect()
    };
    for server in SERVERS {
        let own = variables(server);
        assert!(!own.is_empty(), "{server}");
        for name in own {
            assert!(known(server).contains(&name), "{server}.env: {server} has no {name}");
        }
        let unit = read(repository(&format!("scripts/systemd/sipbox-{server}.service")));
        assert!(unit.contains(&format!("\nEnvironmentFile=/etc/sipbox/{server}.env\n")), "{server}");
        let shared = unit.contains("\nEnvironmentFile=/etc/sipbox/sipbox.env\n");
        assert_eq!(shared, server != "relay", "{server}");
    }
    for name in variables("sipbox") {
        let readers = SERVERS.iter().filter(|server| **server != "relay" && known(server).contains(&name));
        assert!(readers.count() >= 2, "sipbox.env: {name} is not shared");
    }
}

/// What comes on a notification socket within a time.
fn notices(socket: &UnixDatagram, within: Duration) -> Vec<String> {
    let (until, mut found, mut buffer) = (Instant::now() + within, Vec::new(), [0; 4096]);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left)).expect("a time-out");
        if let Ok(length) = socket.recv(&mut buffer) {
            found.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
    }
    found
}

#[test]
fn servers_tell_systemd_that_they_serve_live_and_stop() {
    let here = loopback();
    let arguments: [(&str, Vec<String>); 5] = [
        (
            "registrar",
            vec!["--listen".into(), format!("udp:{here}:0"), "--domain".into(), "example.com".into()],
        ),
        (
            "presence",
            vec!["--listen".into(), format!("udp:{here}:0"), "--domain".into(), "example.com".into()],
        ),
        // With several workers, the server speaks only where all do.
        (
            "proxy",
            ["--listen", &format!("udp:{here}:0"), "--domain", "example.com", "--workers", "2"]
                .map(str::to_owned)
                .into(),
        ),
        ("relay", vec!["--control".into(), format!("udp:{here}:0"), "--interface".into(), here.to_string()]),
        (
            "wsgw",
            vec![
                "--listen".into(),
                format!("ws:{here}:0"),
                "--upstream".into(),
                format!("tcp:{here}:9"),
                "--sip-listen".into(),
                format!("tcp:{here}:0"),
            ],
        ),
    ];
    // Side by side: most of it is waiting.
    std::thread::scope(|scope| {
        for (name, arguments) in arguments {
            scope.spawn(move || tells_systemd(name, &arguments));
        }
    });
}

fn tells_systemd(name: &str, arguments: &[String]) {
    let dir = TempDir::new();
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let mut command = server_command(&dir, name, arguments);
    // systemd would take it for dead after 400 ms.
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let mut server = Process::start(command);
    let line = server.stdout.wait(0, WITHIN, |line| Some(line.to_owned()));
    assert!(line.is_some(), "{name}:\n{}", server.log());
    let told = notices(&socket, Duration::from_millis(1300));
    assert_eq!(told.first().map(String::as_str), Some("READY=1"), "{name}: {told:?}");
    assert_eq!(told.iter().filter(|notice| *notice == "READY=1").count(), 1, "{name}: {told:?}");
    let alive = told.iter().filter(|notice| *notice == "WATCHDOG=1").count();
    assert!(alive >= 5, "{name}: {told:?}");
    // It is the server that says so, and no thread that would outlive its standstill.
    server.signal(libc::SIGSTOP);
    notices(&socket, Duration::from_millis(50));
    assert_eq!(notices(&socket, Duration::from_millis(600)), [""; 0], "{name}");
    server.signal(libc::SIGCONT);
    assert!(notices(&socket, Duration::from_millis(600)).contains(&"WATCHDOG=1".to_owned()), "{name}");
    // Reloading is no end.
    server.signal(libc::SIGHUP);
    assert!(server.wait(Duration::from_millis(300)).is_none(), "{name}:\n{}", server.log());
    server.signal(libc::SIGTERM);
    assert_eq!(server.exit_code(WITHIN), 0, "{name}");
    assert!(notices(&socket, Duration::from_millis(50)).contains(&"STOPPING=1".to_owned()), "{name}");
}

/// `tests/composition.sh` with this database: it makes calls in real time.
fn composition(more: &[&str]) {
    // Addresses that no other run beside this one has.
    let net = (std::process::id() % 250 + 1).to_string();
    let mut command = Command::new(repository("tests/composition.sh"));
    command.args(["--binary", sipbox(), "--net", &net]).args(more);
    let mut process = Process::start(command);
    if process.wait(Duration::from_secs(150)).is_none() {
        // It has processes of its own to end.
        process.signal(libc::SIGTERM);
        process.wait(WITHIN);
        panic!("still runs:\n{}", process.log());
    }
    let code = process.exit_code(WITHIN);
    assert_eq!(code, 0, "{}", process.log());
    assert!(process.log().ends_with("composition: all well"), "{}", process.log());
}

#[test]
fn composition_of_all_eight_on_sqlite() {
    composition(&[]);
}

#[test]
fn composition_of_all_eight_on_mysql() {
    let schema = harness::mariadb::MariaDb::shared().schema();
    composition(&["--db", &schema.url()]);
}

/// A capture of one INVITE with this SDP, over UDP, and half a second of RTP from port 49170.
fn capture(sdp: &str) -> Vec<u8> {
    let message = format!(
        "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK776asdhds\r\n\
         From: <sip:alice@example.com>;tag=1928301774\r\nTo: <sip:bob@example.com>\r\nCall-ID: a84b4c76e66710\r\n\
         CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    let mut packets = vec![(0, 5060u16, message.into_bytes())];
    packets.extend((0..25u8).map(|number| {
        let timestamp = (u32::from(number) * 160).to_be_bytes();
        let payload = [&[0x80, 0, 0, number][..], &timestamp, &[0, 0, 0, 7], &[0xff; 160]].concat();
        (u32::from(number) * 20_000, 49_170, payload)
    }));
    let mut file = Vec::new();
    // libpcap's magic, version 2.4, no zone, no accuracy, snap length, LINKTYPE_RAW.
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, 101] {
        file.extend(word.to_le_bytes());
    }
    for (micros, port, payload) in packets {
        let mut packet = vec![0x45, 0];
        packet.extend((payload.len() as u16 + 28).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        packet.extend([port.to_be_bytes(), port.to_be_bytes()].concat());
        packet.extend((payload.len() as u16 + 8).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(payload);
        // Time, and the length twice.
        let length = packet.len() as u32;
        for word in [1_565_592_060, micros, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

#[test]
fn the_readmes_examples_work_as_they_stand() {
    let readme = read(repository("README.md"));
    let quoted = readme.lines().filter(|line| line.starts_with("| `")).filter_map(|line| {
        let cell = line.trim_end_matches(" |").rsplit(" | ").next()?;
        cell.strip_prefix("`sipbox ")?.strip_suffix('`').map(|words| format!("sipbox {words}"))
    });
    let mut lines: Vec<String> = quoted.collect();
    let (code, names) = done(program(sipbox(), &["--list"]));
    assert_eq!(code, 0);
    let named: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    let all: BTreeSet<&str> = names.lines().filter(|name| *name != "generate").collect();
    assert_eq!(named, all, "the README's table");
    lines.extend(
        readme.lines().filter(|line| line.starts_with("sipbox ") && line.contains(" | ")).map(str::to_owned),
    );
    assert_eq!(lines.len(), all.len() + 1, "{lines:?}");

    let dir = TempDir::new();
    let bin = dir.join("bin");
    fs::create_dir(&bin).expect("a directory");
    std::os::unix::fs::symlink(sipbox(), bin.join("sipbox")).expect("a link");
    let sdp = "v=0\r\no=alice 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
               m=audio 49170 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";
    fs::write(dir.join("offer.sdp"), sdp).expect("written");
    fs::write(dir.join("call.pcap"), capture(sdp)).expect("written");
    let here = loopback().to_string();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    for line in lines {
        let name = line.split(' ').nth(1).expect("a command");
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c"]);
        // One process, that takes the signal; of a pipe there are two.
        let run = if line.contains(" | ") { "" } else { "exec " };
        command.arg(run.to_owned() + &line.replace("127.0.0.1", &here)).current_dir(dir.path());
        command.env_clear().env("PATH", &path).env("STATE_DIRECTORY", dir.path());
        let mut process = Process::start(command);
        if SERVERS.contains(&name) {
            let ready = process.stdout.wait(0, WITHIN, |line| Some(line.to_owned()));
            let ready = ready.unwrap_or_else(|| panic!("{line}:\n{}", process.log()));
            assert!(ready.contains(&format!("\"command\":\"{name}\"")), "{line}: {ready}");
            process.signal(libc::SIGTERM);
        }
        assert_eq!(process.exit_code(WITHIN), 0, "{line}:\n{}", process.log());
        let out = process.stdout.all().join("\n");
        let wanted = match name {
            "sdp-rewrite" => "a=fingerprint:sha-256",
            "siptrace" if line.contains(" | ") => "c=IN IP4 192.0.2.10",
            "siptrace" => "INVITE",
            "mos-report" => "\"codec\":\"PCMU\",\"packets\":25,\"lost\":0",
            _ => "",
        };
        assert!(out.contains(wanted), "{line}:\n{out}");
    }
}
