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
        // By length first: at most a handful of names share one.
        let candidates: &[Name] = match text.len() {
            2 => &[Name::To],
            3 => &[Name::Via],
            4 => &[Name::From, Name::CSeq, Name::Path, Name::Date, Name::RSeq, Name::RAck],
            5 => &[Name::Route, Name::Allow, Name::Event],
            6 => &[Name::Accept, Name::Server, Name::MinSe, Name::Reason],
            7 => &[
                Name::CallId,
                Name::Contact,
                Name::Expires,
                Name::Require,
                Name::Subject,
                Name::Warning,
                Name::Privacy,
            ],
            8 => {
                &[Name::SipETag, Name::ReferTo, Name::Replaces, Name::Priority, Name::ReplyTo, Name::Identity]
            }
            9 => &[Name::Supported, Name::CallInfo, Name::Timestamp],
            10 => &[Name::AlertInfo, Name::ErrorInfo, Name::UserAgent, Name::FlowTimer],
            11 => &[
                Name::MinExpires,
                Name::Unsupported,
                Name::InReplyTo,
                Name::RetryAfter,
                Name::ReferredBy,
                Name::MaxBreadth,
            ],
            12 => &[
                Name::MaxForwards,
                Name::RecordRoute,
                Name::ContentType,
                Name::AllowEvents,
                Name::SipIfMatch,
                Name::Organization,
                Name::MimeVersion,
                Name::HistoryInfo,
            ],
            13 => &[Name::ServiceRoute, Name::Authorization, Name::ProxyRequire],
            14 => &[Name::ContentLength, Name::AcceptContact, Name::RejectContact],
            15 => &[Name::AcceptEncoding, Name::AcceptLanguage, Name::SessionExpires],
            16 => &[Name::ContentEncoding, Name::ContentLanguage, Name::WwwAuthenticate],
            18 => &[Name::ProxyAuthenticate, Name::SubscriptionState],
            19 => &[
                Name::ContentDisposition,
                Name::ProxyAuthorization,
                Name::AuthenticationInfo,
                Name::RequestDisposition,
                Name::PAssertedIdentity,
            ],
            20 => &[Name::PPreferredIdentity],
            _ => &[],
        };
        candidates
            .iter()
            .copied()
            .find(|name| name.as_str().as_bytes().eq_ignore_ascii_case(text))
            .unwrap_or(Name::Other)
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
}
