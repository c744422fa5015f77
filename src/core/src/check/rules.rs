//! What can be wrong with an SDP: each rule's name, the reason why it breaks calls, where that is written, and the mend.
//!
//! Not here: how a fault is found (`session`, `media`, `firefox`).

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    NotSdp,
    UnknownLetter,
    LineOrder,
    MissingLine,
    Origin,
    EmptyName,
    NoConnection,
    Connection,
    PrivateAddress,
    ZeroAddress,
    NoRtpmap,
    BadRtpmap,
    DuplicatePayloadType,
    UnlistedPayloadType,
    MuxPayloadType,
    TwoDirections,
    FeedbackWithoutF,
    SdesAndDtls,
    SrtpWithoutKeys,
    KeysInPlain,
    BadCrypto,
    WeakFingerprint,
    BadFingerprint,
    NoFingerprint,
    NoSetup,
    SetupInAnswer,
    HoldConn,
    NoMux,
    NoMid,
    LongMid,
    DuplicateMid,
    GroupWithoutMid,
    NoIce,
    BadIce,
    BadCandidate,
    Firefox,
}

/// What is written of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its name, for `--allow` and for scripts.
    pub code: &'static str,
    /// Why a call breaks, or may.
    pub why: &'static str,
    pub rfc: &'static str,
    pub mend: &'static str,
}

impl Rule {
    pub const ALL: [Rule; 36] = [
        Rule::NotSdp,
        Rule::UnknownLetter,
        Rule::LineOrder,
        Rule::MissingLine,
        Rule::Origin,
        Rule::EmptyName,
        Rule::NoConnection,
        Rule::Connection,
        Rule::PrivateAddress,
        Rule::ZeroAddress,
        Rule::NoRtpmap,
        Rule::BadRtpmap,
        Rule::DuplicatePayloadType,
        Rule::UnlistedPayloadType,
        Rule::MuxPayloadType,
        Rule::TwoDirections,
        Rule::FeedbackWithoutF,
        Rule::SdesAndDtls,
        Rule::SrtpWithoutKeys,
        Rule::KeysInPlain,
        Rule::BadCrypto,
        Rule::WeakFingerprint,
        Rule::BadFingerprint,
        Rule::NoFingerprint,
        Rule::NoSetup,
        Rule::SetupInAnswer,
        Rule::HoldConn,
        Rule::NoMux,
        Rule::NoMid,
        Rule::LongMid,
        Rule::DuplicateMid,
        Rule::GroupWithoutMid,
        Rule::NoIce,
        Rule::BadIce,
        Rule::BadCandidate,
        Rule::Firefox,
    ];

    pub fn by_code(code: &str) -> Option<Rule> {
        Rule::ALL.into_iter().find(|rule| rule.text().code == code)
    }

    pub const fn text(self) -> Text {
        let (code, why, rfc, mend) = match self {
            Rule::NotSdp => (
                "not-sdp",
                "no parser reads past it, and the request is answered 400 or 488",
                "RFC 8866 §9",
                "write each line as a letter, '=' and a value, beginning with v=0",
            ),
            Rule::UnknownLetter => (
                "unknown-letter",
                "who does not know the letter must refuse the whole description",
                "RFC 8866 §5",
                "take the line out, or make it an a= line",
            ),
            Rule::LineOrder => (
                "line-order",
                "strict parsers refuse lines that are not in the order of the grammar",
                "RFC 8866 §9",
                "put it in the order v o s i u e p c b t r z k a, and within an m-line i c b k a",
            ),
            Rule::MissingLine => (
                "missing-line",
                "it is not optional, and browsers refuse a description without it",
                "RFC 8866 §5",
                "add it: 's=-', 't=0 0', 'o=- ID VERSION IN IP4 ADDRESS'",
            ),
            Rule::Origin => (
                "origin",
                "a peer that compares versions cannot tell whether the session changed",
                "RFC 8866 §5.2",
                "write 'o=NAME ID VERSION IN IP4|IP6 ADDRESS', with ID and VERSION as numbers below 2^64",
            ),
            Rule::EmptyName => {
                ("empty-name", "browsers refuse it: \"Expect line: s=\"", "RFC 8866 §5.3", "write 's=-'")
            }
            Rule::NoConnection => (
                "no-connection",
                "the peer does not know where to send media",
                "RFC 8866 §5.7",
                "add a c= line to the session or to this m-line",
            ),
            Rule::Connection => (
                "connection",
                "the peer cannot read the address that it should send media to",
                "RFC 8866 §5.7",
                "write 'c=IN IP4 ADDRESS' or 'c=IN IP6 ADDRESS', the address in that family",
            ),
            Rule::PrivateAddress => (
                "private-address",
                "who is outside of that network cannot send there: silence in one direction",
                "RFC 1918 §3, RFC 4193 §4, RFC 6598 §4",
                "pass it through a relay (--media-address), let the phone learn its public address, or use ICE",
            ),
            Rule::ZeroAddress => (
                "zero-address",
                "hold by c=0.0.0.0 is obsolete, and a peer without that custom sends its media nowhere",
                "RFC 3264 §8.4",
                "write the address, and a=sendonly or a=inactive",
            ),
            Rule::NoRtpmap => (
                "no-rtpmap",
                "a number without a static meaning says nothing: the peer drops the format, or the call",
                "RFC 8866 §6.6, RFC 3551 §6",
                "add its a=rtpmap line, or take the number out of the m-line",
            ),
            Rule::BadRtpmap => (
                "bad-rtpmap",
                "Firefox refuses the whole description, others drop the format",
                "RFC 8866 §6.6",
                "write 'a=rtpmap:NUMBER NAME/CLOCK' or 'NAME/CLOCK/CHANNELS'",
            ),
            Rule::DuplicatePayloadType => (
                "duplicate-payload-type",
                "a packet with that number has two meanings, and is decoded as noise",
                "RFC 3264 §5.1, RFC 9143 §9.1",
                "give each format a number of its own, and list each once",
            ),
            Rule::UnlistedPayloadType => (
                "unlisted-payload-type",
                "it describes a format that the m-line does not offer, so nobody uses it",
                "RFC 8866 §6.6",
                "add the number to the m-line, or take the line out",
            ),
            Rule::MuxPayloadType => (
                "mux-payload-type",
                "with the marker bit it cannot be told from an RTCP packet on the same port",
                "RFC 5761 §4",
                "use a number outside of 64-95, or no rtcp-mux",
            ),
            Rule::TwoDirections => (
                "two-directions",
                "peers differ in which one they take: audio in one direction only",
                "RFC 8866 §6.7",
                "keep one of sendrecv, sendonly, recvonly, inactive",
            ),
            Rule::FeedbackWithoutF => (
                "feedback-without-f",
                "the profile has no early feedback, so that a peer ignores the line or refuses the m-line",
                "RFC 4585 §4.2",
                "use a profile that ends in F, or take the line out (--flags=strip-browser)",
            ),
            Rule::SdesAndDtls => (
                "sdes-and-dtls",
                "browsers refuse it: \"SDES and DTLS-SRTP cannot be enabled at the same time\"",
                "RFC 8827 §6.5",
                "take out a=crypto for a browser (--SDES=off), a=fingerprint for a phone (--DTLS=off)",
            ),
            Rule::SrtpWithoutKeys => (
                "srtp-without-keys",
                "SRTP is wanted, but no crypto suite can be negotiated: 488, or silence",
                "RFC 4568 §5.1, RFC 5763 §5",
                "add a=crypto or a=fingerprint, or offer RTP/AVP (--transport-protocol=RTP/AVP)",
            ),
            Rule::KeysInPlain => (
                "keys-in-plain",
                "the profile is unencrypted: one peer encrypts, the other plays noise",
                "RFC 4568 §5.1, RFC 5763 §5",
                "use RTP/SAVP with a=crypto, UDP/TLS/RTP/SAVPF with a=fingerprint, or take the line out",
            ),
            Rule::BadCrypto => (
                "bad-crypto",
                "the peer cannot take the key, and refuses the m-line or plays noise",
                "RFC 4568 §9.1",
                "write 'a=crypto:TAG SUITE inline:KEY', each TAG once, KEY as long as the suite wants",
            ),
            Rule::WeakFingerprint => (
                "weak-fingerprint",
                "the hash is broken: peers that follow today's rules refuse the certificate",
                "RFC 8122 §5",
                "show the certificate's SHA-256",
            ),
            Rule::BadFingerprint => (
                "bad-fingerprint",
                "the certificate cannot be checked against it, so that the handshake fails",
                "RFC 8122 §5",
                "write 'a=fingerprint:sha-256 ' and 32 bytes in upper-case hexadecimal with colons",
            ),
            Rule::NoFingerprint => (
                "no-fingerprint",
                "browsers refuse it: \"Called with SDP without DTLS fingerprint\"",
                "RFC 8827 §6.5, RFC 5763 §5",
                "add a=fingerprint and a=setup (--to webrtc), or use a plain profile",
            ),
            Rule::NoSetup => (
                "no-setup",
                "both sides may wait for the other's handshake",
                "RFC 8842 §5.2, RFC 4145 §4",
                "add a=setup:actpass to an offer, a=setup:active or passive to an answer",
            ),
            Rule::SetupInAnswer => (
                "setup-in-answer",
                "nobody begins the handshake, since the answer has to choose",
                "RFC 4145 §4.1, RFC 5763 §5",
                "answer a=setup:active or a=setup:passive",
            ),
            Rule::HoldConn => (
                "holdconn",
                "there is no DTLS association to hold, so that none begins",
                "RFC 8842 §5.1",
                "write a=setup:actpass in an offer, active or passive in an answer",
            ),
            Rule::NoMux => (
                "no-rtcp-mux",
                "browsers refuse it: \"RTCP-MUX is not enabled when it is required\"",
                "RFC 8834 §4.5, RFC 8858 §3",
                "add a=rtcp-mux (--rtcp-mux=offer)",
            ),
            Rule::NoMid => (
                "no-mid",
                "the m-lines cannot be bundled, and trickled candidates not be assigned",
                "RFC 8829 §5.2.1, RFC 5888 §4",
                "add a=mid (--flags=generate-mid)",
            ),
            Rule::LongMid => (
                "long-mid",
                "Chromium refuses it: \"The MID attribute exceeds the maximum supported length of 16 characters\"",
                "RFC 8843 §15.2",
                "use a shorter one; 1 to 3 characters fit a header extension",
            ),
            Rule::DuplicateMid => (
                "duplicate-mid",
                "the m-lines cannot be told apart, and browsers refuse the description",
                "RFC 5888 §4",
                "give each m-line its own",
            ),
            Rule::GroupWithoutMid => (
                "bundle-without-mid",
                "the group names what is not there: browsers refuse the description",
                "RFC 5888 §6, RFC 9143 §7",
                "give each m-line of the group its a=mid, and name no others",
            ),
            Rule::NoIce => (
                "no-ice",
                "browsers refuse it: \"Called with SDP without ice-ufrag and ice-pwd\"",
                "RFC 8839 §5.4, RFC 8829 §5.2.1",
                "add ICE (--ICE=force, --to webrtc)",
            ),
            Rule::BadIce => (
                "bad-ice",
                "connectivity checks cannot be signed with it, so that no media flows",
                "RFC 8839 §5.4",
                "a=ice-ufrag of 4 to 256 and a=ice-pwd of 22 to 256 letters, digits, '+' and '/', both of them",
            ),
            Rule::BadCandidate => (
                "bad-candidate",
                "the peer ignores the candidate, or refuses the description",
                "RFC 8839 §5.1",
                "write 'a=candidate:FOUNDATION COMPONENT UDP PRIORITY ADDRESS PORT typ host|srflx|prflx|relay'",
            ),
            Rule::Firefox => (
                "firefox",
                "Firefox's own parser refuses it, and setRemoteDescription fails there",
                "RFC 8829 §5.8",
                "mend the line as the parser says",
            ),
        };
        Text { code, why, rfc, mend }
    }
}
