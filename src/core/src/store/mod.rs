//! What sipbox asks of a database, as values.
//!
//! A [`Query`] is carried out by `sipbox-io` on SQLite or MySQL, and by [`memory`] in tests; all three must give
//! the same [`Reply`]. A change carries its preconditions and is checked inside the transaction; one that fails
//! rolls back alone. No reply to a change before it is durable (ARCHITECTURE.md, invariant 5).
//! Tables and columns are Kamailio 5.6's (`subscriber`, `location`, `domain`); what is ours is in `sipbox_*`.

/// A question or a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {}

/// What the database said.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {}

/// Why it could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Away, locked or over its deadline: the client is told 503 and may try again.
    Unavailable(String),
}
