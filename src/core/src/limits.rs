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

// --- Transactions ---

/// Transactions of each kind (server, client) that one machine holds, 32 s each; beyond it a request gets 503.
pub const TRANSACTIONS: usize = 131_072;

// --- Asking (machines) ---

/// Questions that one machine may have open at a time (database, DNS, relay); beyond it a request gets 503.
pub const OPEN_TICKETS: usize = 16_384;

// --- ng protocol ---

/// Nesting of lists and dictionaries in bencode or JSON; the protocol's own answers reach 7.
pub const NG_DEPTH: usize = 16;
/// Bytes of one ng datagram.
pub const NG_MESSAGE_BYTES: usize = 65_535;

// --- SDP ---

/// Bytes of a session description.
pub const SDP_BYTES: usize = 65_535;
/// Lines in a session description; a browser with two dozen video codecs sends 300.
pub const SDP_LINES: usize = 2_048;
/// m-lines in a session description.
pub const SDP_MEDIA: usize = 64;
