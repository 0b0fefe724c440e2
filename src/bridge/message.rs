//! What passes between the core and the broker's session.

use std::time::Instant;

use super::retained::Ticket;

/// A message for the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// To be given to [`Core::acknowledged`](super::core::Core::acknowledged).
    pub ticket: Ticket,
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it.
    pub retain: bool,
}

/// A message from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// The broker had kept it: it is old, and nobody asks for it now.
    pub retain: bool,
    /// When it came off the wire.
    pub received: Instant,
}
