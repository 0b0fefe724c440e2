//! What the core hears of the broker.

use crate::bridge::message::Message;
use crate::bridge::retained::Ticket;

/// What happens on the connection, for the core.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The broker accepted a new session and our subscriptions.
    Opened,
    /// The session is gone.
    Lost,
    /// The program stood still; its session will be lost.
    StoodStill,
    /// A message arrived.
    Message(Message),
    /// The broker has taken a message.
    Acknowledged(Ticket),
}
