//! The relay's control side: answers ng requests and tells media workers what to do.
//!
//! In: datagrams of the ng protocol with their source and the time. Out: replies, and calls of the [`Engine`].
//! Not here: SDP (`rewrite`), packets (`media`), sockets, ports and threads (`sipbox-io`).

mod engine;

pub use engine::{Engine, Family, PortError, PortStats, Ports, Want};
