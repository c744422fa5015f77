//! Who is who: digest authentication, signing keys, flow tokens.
//!
//! RFC 7616, RFC 2617, RFC 3261 §22; RFC 5626 §5.2. Goes in: headers and secrets. Comes out: verdicts and tokens.
//! Not here: which request is challenged (registrar, proxy), where secrets are kept (store, `sipbox-io` `secrets`).

pub mod digest;
pub mod flow_token;
pub mod keys;

pub use digest::{Checker, Credentials, NonceState, Verdict};
pub use flow_token::FlowToken;
pub use keys::{KeyId, Keys};
