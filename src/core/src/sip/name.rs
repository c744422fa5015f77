//! Names of header fields.
//!
//! RFC 3261 §7.3.1 (case does not matter), §7.3.3 and the IANA registry (compact forms). Goes in: the bytes before
//! the colon. Comes out: a [`Name`] that is compared by number. Not here: what a value means.

/// A header field that some part of sipbox looks at, or one of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Name {
    Via,
    From,
    To,
    CallId,
    CSeq,
    MaxForwards,
    MaxBreadth,
    Contact,
    Route,
    RecordRoute,
    Path,
    ServiceRoute,
    ContentLength,
    ContentType,
    ContentEncoding,
    ContentDisposition,
    ContentLanguage,
    Expires,
    MinExpires,
    Authorization,
    ProxyAuthorization,
    WwwAuthenticate,
    ProxyAuthenticate,
    AuthenticationInfo,
    Require,
    ProxyRequire,
    Supported,
    Unsupported,
    Allow,
    AllowEvents,
    Event,
    SubscriptionState,
    SipETag,
    SipIfMatch,
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    AcceptContact,
    RejectContact,
    RequestDisposition,
    AlertInfo,
    CallInfo,
    ErrorInfo,
    InReplyTo,
    Date,
    RetryAfter,
    UserAgent,
    Server,
    Subject,
    ReferTo,
    ReferredBy,
    Replaces,
    SessionExpires,
    MinSe,
    RSeq,
    RAck,
    Reason,
    Warning,
    Timestamp,
    Organization,
    Priority,
    MimeVersion,
    ReplyTo,
    PAssertedIdentity,
    PPreferredIdentity,
    Privacy,
    Identity,
    HistoryInfo,
    FlowTimer,
    /// Any other; [`Message::named`](super::Message::named) finds it by its text.
    Other,
}

impl Name {
    /// How many there are, with [`Name::Other`].
    pub(super) const COUNT: usize = Name::Other as usize + 1;

    /// The name in its usual writing; empty for [`Name::Other`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Name::Via => "Via",
            Name::From => "From",
            Name::To => "To",
            Name::CallId => "Call-ID",
            Name::CSeq => "CSeq",
            Name::MaxForwards => "Max-Forwards",
            Name::MaxBreadth => "Max-Breadth",
            Name::Contact => "Contact",
            Name::Route => "Route",
            Name::RecordRoute => "Record-Route",
            Name::Path => "Path",
            Name::ServiceRoute => "Service-Route",
            Name::ContentLength => "Content-Length",
            Name::ContentType => "Content-Type",
            Name::ContentEncoding => "Content-Encoding",
            Name::ContentDisposition => "Content-Disposition",
            Name::ContentLanguage => "Content-Language",
            Name::Expires => "Expires",
            Name::MinExpires => "Min-Expires",
            Name::Authorization => "Authorization",
            Name::ProxyAuthorization => "Proxy-Authorization",
            Name::WwwAuthenticate => "WWW-Authenticate",
            Name::ProxyAuthenticate => "Proxy-Authenticate",
            Name::AuthenticationInfo => "Authentication-Info",
            Name::Require => "Require",
            Name::ProxyRequire => "Proxy-Require",
            Name::Supported => "Supported",
            Name::Unsupported => "Unsupported",
            Name::Allow => "Allow",
            Name::AllowEvents => "Allow-Events",
            Name::Event => "Event",
            Name::SubscriptionState => "Subscription-State",
            Name::SipETag => "SIP-ETag",
            Name::SipIfMatch => "SIP-If-Match",
            Name::Accept => "Accept",
            Name::AcceptEncoding => "Accept-Encoding",
            Name::AcceptLanguage => "Accept-Language",
            Name::AcceptContact => "Accept-Contact",
            Name::RejectContact => "Reject-Contact",
            Name::RequestDisposition => "Request-Disposition",
            Name::AlertInfo => "Alert-Info",
            Name::CallInfo => "Call-Info",
            Name::ErrorInfo => "Error-Info",
            Name::InReplyTo => "In-Reply-To",
            Name::Date => "Date",
            Name::RetryAfter => "Retry-After",
            Name::UserAgent => "User-Agent",
            Name::Server => "Server",
            Name::Subject => "Subject",
            Name::ReferTo => "Refer-To",
            Name::ReferredBy => "Referred-By",
            Name::Replaces => "Replaces",
            Name::SessionExpires => "Session-Expires",
            Name::MinSe => "Min-SE",
            Name::RSeq => "RSeq",
            Name::RAck => "RAck",
            Name::Reason => "Reason",
            Name::Warning => "Warning",
            Name::Timestamp => "Timestamp",
            Name::Organization => "Organization",
            Name::Priority => "Priority",
            Name::MimeVersion => "MIME-Version",
            Name::ReplyTo => "Reply-To",
            Name::PAssertedIdentity => "P-Asserted-Identity",
            Name::PPreferredIdentity => "P-Preferred-Identity",
            Name::Privacy => "Privacy",
            Name::Identity => "Identity",
            Name::HistoryInfo => "History-Info",
            Name::FlowTimer => "Flow-Timer",
            Name::Other => "",
        }
    }

    /// Reads a name in any case, long or compact.
    pub fn parse(text: &[u8]) -> Name {
        if let [letter] = text {
            return match letter.to_ascii_lowercase() {
                b'v' => Name::Via,
                b'f' => Name::From,
                b't' => Name::To,
                b'i' => Name::CallId,
                b'm' => Name::Contact,
                b'l' => Name::ContentLength,
                b'c' => Name::ContentType,
                b'e' => Name::ContentEncoding,
                b'k' => Name::Supported,
                b'u' => Name::AllowEvents,
                b'o' => Name::Event,
                b'a' => Name::AcceptContact,
                b'j' => Name::RejectContact,
                b'd' => Name::RequestDisposition,
                b's' => Name::Subject,
                b'r' => Name::ReferTo,
                b'b' => Name::ReferredBy,
                b'x' => Name::SessionExpires,
                b'y' => Name::Identity,
                _ => Name::Other,
            };
        }
        let Some(first) = text.first() else { return Name::Other };
        // By length and first letter: at most three names share both.
        let candidates: &[Name] = match (text.len(), first.to_ascii_lowercase()) {
            (2, b't') => &[Name::To],
            (3, b'v') => &[Name::Via],
            (4, b'f') => &[Name::From],
            (4, b'c') => &[Name::CSeq],
            (4, b'p') => &[Name::Path],
            (4, b'd') => &[Name::Date],
            (4, b'r') => &[Name::RSeq, Name::RAck],
            (5, b'r') => &[Name::Route],
            (5, b'a') => &[Name::Allow],
            (5, b'e') => &[Name::Event],
            (6, b'a') => &[Name::Accept],
            (6, b's') => &[Name::Server],
            (6, b'm') => &[Name::MinSe],
            (6, b'r') => &[Name::Reason],
            (7, b'c') => &[Name::CallId, Name::Contact],
            (7, b'e') => &[Name::Expires],
            (7, b'r') => &[Name::Require],
            (7, b's') => &[Name::Subject],
            (7, b'w') => &[Name::Warning],
            (7, b'p') => &[Name::Privacy],
            (8, b's') => &[Name::SipETag],
            (8, b'r') => &[Name::ReferTo, Name::Replaces, Name::ReplyTo],
            (8, b'p') => &[Name::Priority],
            (8, b'i') => &[Name::Identity],
            (9, b's') => &[Name::Supported],
            (9, b'c') => &[Name::CallInfo],
            (9, b't') => &[Name::Timestamp],
            (10, b'a') => &[Name::AlertInfo],
            (10, b'e') => &[Name::ErrorInfo],
            (10, b'u') => &[Name::UserAgent],
            (10, b'f') => &[Name::FlowTimer],
            (11, b'm') => &[Name::MinExpires, Name::MaxBreadth],
            (11, b'u') => &[Name::Unsupported],
            (11, b'i') => &[Name::InReplyTo],
            (11, b'r') => &[Name::RetryAfter, Name::ReferredBy],
            (12, b'm') => &[Name::MaxForwards, Name::MimeVersion],
            (12, b'r') => &[Name::RecordRoute],
            (12, b'c') => &[Name::ContentType],
            (12, b'a') => &[Name::AllowEvents],
            (12, b's') => &[Name::SipIfMatch],
            (12, b'o') => &[Name::Organization],
            (12, b'h') => &[Name::HistoryInfo],
            (13, b's') => &[Name::ServiceRoute],
            (13, b'a') => &[Name::Authorization],
            (13, b'p') => &[Name::ProxyRequire],
            (14, b'c') => &[Name::ContentLength],
            (14, b'a') => &[Name::AcceptContact],
            (14, b'r') => &[Name::RejectContact],
            (15, b'a') => &[Name::AcceptEncoding, Name::AcceptLanguage],
            (15, b's') => &[Name::SessionExpires],
            (16, b'c') => &[Name::ContentEncoding, Name::ContentLanguage],
            (16, b'w') => &[Name::WwwAuthenticate],
            (18, b'p') => &[Name::ProxyAuthenticate],
            (18, b's') => &[Name::SubscriptionState],
            (19, b'c') => &[Name::ContentDisposition],
            (19, b'p') => &[Name::ProxyAuthorization, Name::PAssertedIdentity],
            (19, b'a') => &[Name::AuthenticationInfo],
            (19, b'r') => &[Name::RequestDisposition],
            (20, b'p') => &[Name::PPreferredIdentity],
            _ => &[],
        };
        let words = words(text);
        for &name in candidates {
            let key = &KEYS[name as usize];
            let same = (words.0 ^ key.text.0) & key.mask.0 == 0 && (words.1 ^ key.text.1) & key.mask.1 == 0;
            // Two words reach over sixteen bytes; the few names that are longer are read to the end.
            if same && (text.len() <= 16 || name.as_str().as_bytes().eq_ignore_ascii_case(text)) {
                return name;
            }
        }
        Name::Other
    }
}

/// Every name but the last, in the order of the numbers.
const ALL: [Name; Name::COUNT - 1] = [
    Name::Via,
    Name::From,
    Name::To,
    Name::CallId,
    Name::CSeq,
    Name::MaxForwards,
    Name::MaxBreadth,
    Name::Contact,
    Name::Route,
    Name::RecordRoute,
    Name::Path,
    Name::ServiceRoute,
    Name::ContentLength,
    Name::ContentType,
    Name::ContentEncoding,
    Name::ContentDisposition,
    Name::ContentLanguage,
    Name::Expires,
    Name::MinExpires,
    Name::Authorization,
    Name::ProxyAuthorization,
    Name::WwwAuthenticate,
    Name::ProxyAuthenticate,
    Name::AuthenticationInfo,
    Name::Require,
    Name::ProxyRequire,
    Name::Supported,
    Name::Unsupported,
    Name::Allow,
    Name::AllowEvents,
    Name::Event,
    Name::SubscriptionState,
    Name::SipETag,
    Name::SipIfMatch,
    Name::Accept,
    Name::AcceptEncoding,
    Name::AcceptLanguage,
    Name::AcceptContact,
    Name::RejectContact,
    Name::RequestDisposition,
    Name::AlertInfo,
    Name::CallInfo,
    Name::ErrorInfo,
    Name::InReplyTo,
    Name::Date,
    Name::RetryAfter,
    Name::UserAgent,
    Name::Server,
    Name::Subject,
    Name::ReferTo,
    Name::ReferredBy,
    Name::Replaces,
    Name::SessionExpires,
    Name::MinSe,
    Name::RSeq,
    Name::RAck,
    Name::Reason,
    Name::Warning,
    Name::Timestamp,
    Name::Organization,
    Name::Priority,
    Name::MimeVersion,
    Name::ReplyTo,
    Name::PAssertedIdentity,
    Name::PPreferredIdentity,
    Name::Privacy,
    Name::Identity,
    Name::HistoryInfo,
    Name::FlowTimer,
];

/// A name as two words, with a mask that lets the case of letters pass, and nothing else.
#[derive(Clone, Copy)]
struct Key {
    text: (u64, u64),
    mask: (u64, u64),
}

const KEYS: [Key; Name::COUNT - 1] = {
    let mut keys = [Key { text: (0, 0), mask: (0, 0) }; Name::COUNT - 1];
    let mut at = 0;
    while at < keys.len() {
        let text = words(ALL[at].as_str().as_bytes());
        keys[at] = Key { text, mask: (mask(text.0), mask(text.1)) };
        at += 1;
    }
    keys
};

const fn mask(word: u64) -> u64 {
    let bytes = word.to_le_bytes();
    let mut mask = [0xff; 8];
    let mut at = 0;
    while at < 8 {
        if bytes[at].is_ascii_alphabetic() {
            mask[at] = 0xdf;
        }
        at += 1;
    }
    u64::from_le_bytes(mask)
}

/// The first and the last eight bytes, or four; of three or two, all.
const fn words(text: &[u8]) -> (u64, u64) {
    const fn word(text: &[u8], from: usize, length: usize) -> u64 {
        let mut word = 0;
        let mut at = 0;
        while at < length {
            word |= (text[from + at] as u64) << (8 * at);
            at += 1;
        }
        word
    }
    match text.len() {
        0 => (0, 0),
        length @ 1..=3 => (word(text, 0, 1), word(text, length / 2, 1) | word(text, length - 1, 1) << 8),
        length @ 4..=7 => (word(text, 0, 4), word(text, length - 4, 4)),
        length => (word(text, 0, 8), word(text, length - 8, 8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_long_compact_and_any_case() {
        assert_eq!(Name::parse(b"Via"), Name::Via);
        assert_eq!(Name::parse(b"vIA"), Name::Via);
        assert_eq!(Name::parse(b"V"), Name::Via);
        assert_eq!(Name::parse(b"record-ROUTE"), Name::RecordRoute);
        assert_eq!(Name::parse(b"X-Unknown"), Name::Other);
        assert_eq!(Name::parse(b""), Name::Other);
    }

    #[test]
    fn every_name_is_found_by_its_own_text() {
        assert_eq!(ALL.len() + 1, Name::COUNT);
        for (nth, name) in ALL.into_iter().enumerate() {
            assert_eq!(name as usize, nth, "{name:?}");
            assert_eq!(Name::parse(name.as_str().as_bytes()), name);
            assert_eq!(Name::parse(name.as_str().to_ascii_uppercase().as_bytes()), name);
            // No byte is passed over: with any one changed to what differs in one bit, it is another name.
            for at in 0..name.as_str().len() {
                for bit in 0..8 {
                    let mut text = name.as_str().as_bytes().to_vec();
                    text[at] ^= 1 << bit;
                    let same = text.eq_ignore_ascii_case(name.as_str().as_bytes());
                    assert_eq!(Name::parse(&text) == name, same, "{}", String::from_utf8_lossy(&text));
                }
            }
        }
    }
}
