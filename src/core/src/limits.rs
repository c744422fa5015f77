//! Every bound on what a peer can send or make us hold, by name, with its unit and its reason
//! (ARCHITECTURE.md, invariant 3). Grouped by who enforces it.

// --- SIP messages (sip, framing) ---

/// Bytes of one SIP message on any transport. The largest UDP datagram; a body beyond this is no signalling.
pub const SIP_MESSAGE_BYTES: usize = 65_535;
/// Header fields in one message; folding and a hostile peer cost time for each.
pub const SIP_HEADERS: usize = 256;

// --- Authentication ---

/// Parameters of one Authorization or challenge; the RFCs know a dozen.
pub const AUTH_PARAMETERS: usize = 32;
/// Authorization headers, or challenges, that are looked at in one message.
pub const AUTH_HEADERS: usize = 16;
/// Nonces whose use one worker remembers, some 60 bytes each; beyond it the oldest count as stale.
pub const NONCES: usize = 65_536;
// --- Connections (driver) ---

/// Connections that one process holds, unless a flag says otherwise; a WebSocket costs some 20 KiB.
pub const CONNECTIONS: usize = 16_384;
/// Connections from one address: an office behind NAT, or a reverse proxy in front, and no flood.
pub const CONNECTIONS_PER_ADDRESS: usize = 4_096;
/// Messages that wait to be written to one connection; its reader is too slow beyond that.
pub const QUEUED_MESSAGES: usize = 256;
/// Bytes that wait to be written to one connection.
pub const QUEUED_BYTES: usize = 1 << 20;
/// Messages that other workers may have passed to one that is busy; further ones are lost, as on a busy network.
pub const PASSED_MESSAGES: usize = 8_192;
/// Names of TLS servers that are remembered between the question for their addresses and the connection.
pub const SERVER_NAMES: usize = 16_384;

// --- Where a URI leads (resolve) ---

/// Servers that are tried for one request; a large provider lists eight.
pub const RESOLVED_HOPS: usize = 16;
/// Services of one domain's NAPTR that are looked into.
pub const RESOLVED_SERVICES: usize = 4;
/// Servers that are remembered as not answering.
pub const DEAD_HOPS: usize = 1_024;
/// Searches in DNS that may be under way in one worker; further ones find nothing at once.
pub const DNS_SEARCHES: usize = 1_024;

// --- Flooding addresses (rate) ---

/// Addresses that are counted in one window.
pub const RATE_SOURCES: usize = 65_536;
/// Addresses that are remembered as banned, or as served.
pub const RATE_STANDING: usize = 65_536;

// --- Transactions ---

/// Transactions of each kind (server, client) that one machine holds, 32 s each; beyond it a request gets 503.
pub const TRANSACTIONS: usize = 131_072;
/// Bytes of the messages that one machine's transactions hold for their retransmission; beyond it a request gets 503, and a
/// response is sent once and not kept. A whole table of usual messages, a kilobyte each way, has half of it.
pub const TRANSACTION_BYTES: usize = 512 << 20;

// --- Gateway ---

/// Bindings remembered of one WebSocket connection; a browser has one, an office's switchboard page some.
pub const BINDINGS_PER_CONNECTION: usize = 16;

// --- Proxy ---

/// Answered calls whose beginning a proxy remembers, about 100 bytes each; one that ends without a BYE stays.
pub const PROXY_CALLS: usize = 65_536;
/// Bytes of the responses and session descriptions that one proxy holds besides its transactions: what waits for the relay
/// or for the other branches, and what was rewritten. Beyond it a response that would wait is dropped, to be repeated, and
/// of a refusal only the status is kept.
pub const PROXY_BYTES: usize = 128 << 20;

// --- Presence ---

/// Requests that wait at a start until it is known who watches: some milliseconds, unless the store is away.
pub const EARLY_REQUESTS: usize = 1_024;
/// Subscriptions that one server holds, a kilobyte each; beyond it a new one gets 503.
pub const SUBSCRIPTIONS: usize = 131_072;
/// Publications of one presentity in one package; a person has a handful of devices, and each of them one.
pub const PUBLICATIONS_PER_PRESENTITY: usize = 16;
/// Bytes of one published document. A rich one of a softphone has 2 kB.
pub const PRESENCE_BYTES: usize = 8_192;
/// Bytes of what is composed of several; parts that go beyond are left out, since a NOTIFY must fit into one datagram.
pub const COMPOSED_BYTES: usize = 32_768;
/// Nesting of elements in it; the richest standard document reaches 8.
pub const XML_DEPTH: usize = 32;
/// Elements in it.
pub const XML_ELEMENTS: usize = 512;
/// Bytes of Record-Route in a SUBSCRIBE; a path of ten proxies with their tokens has 2 kB.
pub const ROUTE_BYTES: usize = 4_096;

// --- Asking (machines) ---

/// Questions that one machine may have open at a time (database, DNS, relay); beyond it a request gets 503.
pub const OPEN_TICKETS: usize = 16_384;

// --- ng protocol ---

/// Nesting of lists and dictionaries in bencode or JSON; the protocol's own answers reach 7.
pub const NG_DEPTH: usize = 16;
/// Bytes of one ng datagram.
pub const NG_MESSAGE_BYTES: usize = 65_535;
/// Connections on which ng is spoken at a time: proxies keep one or a few each.
pub const NG_CONNECTIONS: usize = 256;

// --- SDP ---

/// Bytes of a session description.
pub const SDP_BYTES: usize = 65_535;
/// Lines in a session description; a browser with two dozen video codecs sends 300.
pub const SDP_LINES: usize = 2_048;
/// m-lines in a session description.
pub const SDP_MEDIA: usize = 64;

// --- Streams of descriptions (inputs, check) ---

/// Bytes of one item in a stream: a record that carries an SDP, and whatever stands beside it.
pub const INPUT_ITEM_BYTES: usize = 1 << 20;
/// Nesting of lists and objects in a record.
pub const JSON_DEPTH: usize = 64;
/// Findings of one description; a broken one has a handful, a hostile one thousands.
pub const CHECK_FINDINGS: usize = 256;
/// Public addresses that an anonymiser tells apart, some 20 bytes each; beyond it two may become one.
pub const ANONYMISED_ADDRESSES: usize = 131_072;
/// Dialogs whose offer is remembered for the answer that follows in the stream, some kilobytes each; the oldest goes.
pub const STREAM_DIALOGS: usize = 1_024;

// --- Media ---

/// Bytes of a key identifier in each SRTP packet (RFC 4568 §6.1 allows 128; nobody uses so many).
pub const MKI_BYTES: usize = 32;
/// Keys of one direction of a leg whose use is remembered: our own is one for each of a dozen suites, and a peer that wears out more of
/// his own than this gives away nobody's bytes but his call's.
pub const SDES_KEYS: usize = 32;
/// Synchronisation sources that one leg may send with; audio has one, video with layers and repair a handful.
pub const SRTP_SOURCES: usize = 32;
/// Sources of one leg that are counted one by one; packets of more are forwarded and counted together.
pub const MEDIA_STREAMS: usize = 32;
/// Quality samples that are kept of one source, before every other one goes.
pub const MEDIA_SAMPLES: usize = 1024;
/// Candidates of a peer that are tried, and pairs with ours.
pub const ICE_CANDIDATES: usize = 64;
/// Addresses that one peer may have proved to be its own at a time.
pub const ICE_SOURCES: usize = 16;
/// Datagrams of a peer that a DTLS handshake may take; a lossy one with 40 fragments a flight needs some hundred.
pub const DTLS_HANDSHAKE_DATAGRAMS: usize = 512;
/// Bytes of the same.
pub const DTLS_HANDSHAKE_BYTES: usize = 262_144;
/// Records in one datagram before the handshake ends; a flight in small records has under ten.
pub const DTLS_RECORDS: usize = 24;
/// Datagrams after the handshake, for an association's whole life: retransmitted flights, tickets, an alert.
pub const DTLS_LATER_DATAGRAMS: usize = 4096;
/// Bytes of the largest message that DTLS hands out (a peer's certificate).
pub const DTLS_OUTPUT_BYTES: usize = 65_536;
/// New handshakes on one leg after failed ones.
pub const DTLS_ATTEMPTS: usize = 4;

// --- relay ---

/// Calls at a time; the ports run out long before.
pub const RELAY_CALLS: usize = 65_536;
/// Branches of one call: a forking proxy offers each by itself.
pub const RELAY_BRANCHES: usize = 32;
/// Tags of one side of a branch that are known: answers of a fork, of which the last has the media.
pub const RELAY_TAGS: usize = 8;
/// What a `delete-delay` may be at most, in seconds: a day.
pub const RELAY_DELETE_DELAY_SECONDS: u64 = 86_400;
/// Replies that are kept for repeated requests, and their bytes together.
pub const NG_COOKIES: usize = 16_384;
pub const NG_COOKIE_BYTES: usize = 32 << 20;
/// Bytes of a call-id, tag or branch in an ng request.
pub const NG_NAME_BYTES: usize = 1_024;
/// Calls in one reply to `list`.
pub const NG_LISTED: i64 = 1_024;
/// Records that wait to be taken by the driver.
pub const RELAY_RECORDS: usize = 65_536;

// --- Traces ---

/// TCP directions that are put together at a time; beyond it the oldest is forgotten.
pub const TRACE_STREAMS: usize = 16_384;
/// Bytes and segments of one direction that came early and wait for a missing one, before it counts as lost by the capture.
pub const TRACE_PENDING_BYTES: usize = 262_144;
pub const TRACE_PENDING_SEGMENTS: usize = 256;
/// IP datagrams that are put together of fragments at a time, and fragments of each.
pub const TRACE_FRAGMENTED: usize = 1024;
pub const TRACE_FRAGMENTS: usize = 256;
/// Calls that are remembered, half a kilobyte each; beyond it the one that was silent for longest is let go.
pub const TRACE_CALLS: usize = 262_144;
/// Bytes of messages, with what was read out of them, that are held back: for ladders, and until it is known whether a call is meant.
pub const TRACE_KEPT_BYTES: usize = 134_217_728;
/// Messages of one call that are held back; a registration that is refreshed for days has thousands.
pub const TRACE_CALL_MESSAGES: usize = 10_000;
/// Addresses of media that session descriptions named in one capture; beyond it the oldest is forgotten.
pub const TRACE_DESCRIBED: usize = 65_536;
/// Flows of RTP that are measured in one capture; further ones are passed over.
pub const TRACE_RTP_FLOWS: usize = 4096;
/// Streams of a log that wait for the line with their score, which comes with the same call's end.
pub const TRACE_LOG_STREAMS: usize = 4096;
/// Bytes of one line of a log or of events, and of one record over several lines; a call of many streams has some megabytes.
pub const REPORT_RECORD_BYTES: usize = 16 << 20;
