//! A network of its own for one test: a thread's network namespace with one interface.
//!
//! Chromium gathers candidates only on the interface of the default route, and never on loopback; so there is a
//! pair of veth devices with 192.0.2.0/24 (RFC 5737) on one end. What the test starts from this thread lives in it, and
//! it ends with the last of them: loss and cuts put on it touch nobody else, and ports collide with nobody.

use std::process::Command;

/// The address that Chromium finds, and the first of those below.
pub const BROWSER: &str = "192.0.2.1";
pub const REGISTRAR: &str = "192.0.2.11";
pub const PROXY: &str = "192.0.2.12";
pub const RELAY: &str = "192.0.2.13";
pub const WSGW: &str = "192.0.2.14";
pub const PHONE: &str = "192.0.2.21";

/// Moves this thread, and what it starts from now on, into a new network.
pub fn enter() {
    // SAFETY: plain system call; it concerns this thread only.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    let error = std::io::Error::last_os_error();
    assert!(result == 0, "a network namespace of its own: {error}; these tests run as root");
    ip("link set lo up");
    ip("link add outside type veth peer name inside");
    for address in [BROWSER, REGISTRAR, PROXY, RELAY, WSGW, PHONE] {
        ip(&format!("address add {address}/24 dev outside"));
    }
    ip("link set outside up");
    ip("link set inside up");
    ip("route add default via 192.0.2.254");
}

fn ip(words: &str) {
    run("ip", words, "iproute2");
}

/// `iptables WORDS` in this network.
pub fn iptables(words: &str) {
    run("iptables", words, "iptables");
}

fn run(program: &str, words: &str, package: &str) {
    let output = Command::new(program).args(words.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; apt-get install {package}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {told}");
}

/// UDP sockets bound to this address, by the kernel's own table.
pub fn udp_ports(address: &str) -> Vec<u16> {
    let octets: Vec<u8> = address.split('.').map(|part| part.parse().expect("IPv4")).collect();
    let hex: String = octets.iter().rev().map(|octet| format!("{octet:02X}")).collect();
    // Not /proc/net: that is the network of the process's first thread.
    let table = std::fs::read_to_string("/proc/thread-self/net/udp").expect("/proc");
    table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1)?.strip_prefix(&hex)?.strip_prefix(':'))
        .filter_map(|port| u16::from_str_radix(port, 16).ok())
        .collect()
}
