//! The seam between the relay's control side and its media workers.
//!
//! The control side calls an [`Engine`] while it answers an ng request; `sipbox-io` implements it with sockets, ports and
//! worker threads, a test with a list. Calls for one bridge arrive at its worker in the order in which they were made.

use crate::media::bridge::BridgeStats;
use crate::media::plan::{BridgeId, LegPlan, Side};
pub use crate::rewrite::Want;
pub use crate::sdp::Family;
use std::net::{IpAddr, SocketAddr};

/// Two bound sockets, RTP on an even port and RTCP on the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// As bound; what ICE's host candidates are.
    pub rtp: SocketAddr,
    pub rtcp: SocketAddr,
    /// What the peer is told: differs from the bound one behind a 1:1 NAT (`!ADVERTISED`).
    pub advertised: IpAddr,
}

/// Why there are no ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortError {
    /// The range has no free pair.
    Exhausted,
    /// No interface of that name or family.
    NoInterface,
}

/// What media workers do for the control side.
pub trait Engine {
    /// Binds two ports for this side and gives them to the bridge's worker, which drops what comes until a plan is there.
    /// The bridge comes into being with its first side.
    fn open(&mut self, bridge: BridgeId, side: Side, want: &Want) -> Result<Ports, PortError>;
    /// What this side's leg is from now on; what did not change, goes on.
    fn apply(&mut self, bridge: BridgeId, side: Side, plan: LegPlan);
    /// What leaves the bridge's ports is marked so: IPv4's type of service, IPv6's traffic class.
    fn mark(&mut self, bridge: BridgeId, tos: u8);
    /// What was counted so far; `None` for a bridge that is not there.
    fn stats(&mut self, bridge: BridgeId) -> Option<BridgeStats>;
    /// Closes both sides; their ports are free when it returns.
    fn close(&mut self, bridge: BridgeId);
}
