//! What the RFCs say of messages, as tables; and the seeds of fuzzing.

#[path = "../fuzz/replay.rs"]
mod fuzz;
mod torture;
