//! What counts and what does not.

use super::diff;
use crate::sdp::Sdp;

const A: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\na=sendonly\r\n\
a=fingerprint:sha-256 00:01\r\nm=audio 4000 UDP/TLS/RTP/SAVPF 111 0\r\na=rtpmap:111 opus/48000/2\r\n\
a=fmtp:111 minptime=10;useinbandfec=1\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\n\
a=candidate:1 1 UDP 2130706431 192.0.2.1 4000 typ host\r\na=rtcp-mux\r\na=mid:0\r\na=ssrc:1 cname:a\r\n";

fn found(a: &str, b: &str) -> Vec<(Option<usize>, String, String, String)> {
    let (a, b) = (Sdp::parse(a.as_bytes()).unwrap(), Sdp::parse(b.as_bytes()).unwrap());
    let pair = |d: super::Difference| (d.media, d.what, d.a.join(" | "), d.b.join(" | "));
    diff(&a, &b).into_iter().map(pair).collect()
}

#[test]
fn order_and_what_is_drawn_anew_do_not_count() {
    // Another order, the session's attributes in the m-line, other secrets and ports, a static format with its rtpmap.
    let b = "v=0\no=x 7 9 IN IP6 ::1\ns= \nt=0 0\nm=audio 5000 UDP/TLS/RTP/SAVPF 111 0\nc=IN IP4 192.0.2.1\n\
a=mid:0\na=rtpmap:0 pcmu/8000\na=rtpmap:111 OPUS/48000/2\na=rtcp-mux\na=fingerprint:SHA-256 FF:FE\na=sendonly\n\
a=ice-pwd:9876543210987654321098\na=ice-ufrag:wxyz\na=candidate:7 1 udp 99 192.0.2.1 5000 typ host\n\
a=fmtp:111 useinbandfec=1; minptime=10\na=setup:actpass\na=ssrc:2 cname:b\na=rtcp:5000\n";
    assert_eq!(found(A, b), []);
    assert_eq!(found(A, A), []);
}

#[test]
fn each_difference_is_named() {
    for (old, new, media, what, a, b) in [
        ("c=IN IP4 192.0.2.1", "c=IN IP4 192.0.2.9", Some(0), "address", "IP4 192.0.2.1", "IP4 192.0.2.9"),
        ("a=sendonly\r\n", "", Some(0), "direction", "sendonly", "sendrecv"),
        ("sha-256 00:01", "sha-1 00:01", Some(0), "keys", "DTLS, sha-256", "DTLS, sha-1"),
        ("a=setup:actpass", "a=setup:active", Some(0), "setup", "actpass", "active"),
        ("a=rtcp-mux\r\n", "", Some(0), "rtcp", "on the same port", "on its own port"),
        (
            "minptime=10;",
            "",
            Some(0),
            "parameters of opus/48000/2 (111)",
            "minptime=10; useinbandfec=1",
            "useinbandfec=1",
        ),
        (
            "SAVPF 111 0",
            "SAVPF 0 111",
            Some(0),
            "preference",
            "opus/48000/2, pcmu/8000",
            "pcmu/8000, opus/48000/2",
        ),
        ("a=mid:0", "a=mid:1", Some(0), "a=mid", "0", "1"),
        ("t=0 0\r\n", "t=0 0\r\na=tool:x\r\n", None, "a=tool", "", "x"),
        ("s=-", "s=call", None, "s=", "", "call"),
        (
            "m=audio 4000 UDP/TLS/RTP/SAVPF",
            "m=audio 4000 RTP/SAVPF",
            Some(0),
            "protocol",
            "UDP/TLS/RTP/SAVPF",
            "RTP/SAVPF",
        ),
        (
            "192.0.2.1 4000 typ host",
            "192.0.2.1 4000 typ srflx",
            Some(0),
            "candidates",
            "component 1 udp host 192.0.2.1",
            "component 1 udp srflx 192.0.2.1",
        ),
    ] {
        assert!(A.contains(old), "{old}");
        let changed = found(A, &A.replace(old, new));
        assert_eq!(changed, [(media, what.to_owned(), a.to_owned(), b.to_owned())], "{old} {new}");
    }
    let refused = found(A, &A.replace("audio 4000", "audio 0"));
    assert!(refused.contains(&(Some(0), "use".into(), "offered".into(), "refused (port 0)".into())));
    let more = A.to_owned() + "m=video 0 RTP/AVP 31\r\n";
    assert_eq!(found(A, &more), [(Some(1), "m-line".to_owned(), String::new(), "video".to_owned())]);
    // The number of a codec counts, since packets carry it.
    let numbers = found(A, &A.replace("111", "96"));
    assert!(numbers.iter().any(|(_, what, a, b)| {
        what == "codec opus/48000/2" && a == "payload type 111" && b == "payload type 96"
    }));
}
