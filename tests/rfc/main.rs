//! What the RFCs say of messages, as tables; whole calls over a bad network; and the seeds of fuzzing.

#[macro_use]
#[allow(unused_macros)]
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../fuzz/replay.rs"]
mod fuzz;
#[path = "../sim/mod.rs"]
mod sim;
mod torture;
