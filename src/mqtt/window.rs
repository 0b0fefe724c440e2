//! Messages on their way to the broker, and which acknowledgement belongs to which.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::bridge::message::Publish;
use crate::bridge::retained::Ticket;

/// Publishes on their way to the broker at the same time. Packet ids are shared with subscriptions, so this stays well
/// below the client's own limit, which is never reached.
pub const WINDOW: usize = 50;

/// Whether nobody but us could say it again: the core keeps no answers.
pub fn is_answer(publish: &Publish) -> bool {
    !publish.retain
}

/// About as many bytes as it has on the wire.
pub fn size(publish: &Publish) -> usize {
    publish.topic.len() + publish.payload.len()
}

/// A message handed to the client.
#[derive(Debug)]
pub struct Sent {
    ticket: Ticket,
    size: usize,
    /// Kept where nobody else could say it again.
    pub answer: Option<Publish>,
}

impl Sent {
    /// What is to be remembered of a message.
    pub fn of(publish: &Publish) -> Sent {
        Sent {
            ticket: publish.ticket,
            size: size(publish),
            answer: is_answer(publish).then(|| publish.clone()),
        }
    }
}

/// Messages handed to the client. Its events name packet ids, which it assigns in the order of our requests.
#[derive(Debug, Default)]
pub struct Window {
    requested: VecDeque<Sent>,
    on_the_wire: HashMap<u16, Sent>,
    /// When the broker last acknowledged something, or had nothing to.
    progress: Option<Instant>,
    /// The size of the largest message that it has acknowledged.
    taken: usize,
}

impl Window {
    /// Whether another message may be handed to the client.
    pub fn has_room(&self) -> bool {
        self.requested.len() + self.on_the_wire.len() < WINDOW
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.requested.is_empty() && self.on_the_wire.is_empty()
    }

    /// Whether the broker owes us an acknowledgement for longer than `patience`.
    pub fn is_stuck(&self, patience: Duration) -> bool {
        !self.is_empty() && self.progress.is_some_and(|progress| progress.elapsed() > patience)
    }

    /// The client was handed a message at `now`.
    pub fn requested(&mut self, sent: Sent, now: Instant) {
        if self.is_empty() {
            self.progress = Some(now);
        }
        self.requested.push_back(sent);
    }

    /// The client gave the oldest message that it was handed this packet id.
    pub fn on_the_wire(&mut self, id: u16) {
        if let Some(sent) = self.requested.pop_front() {
            self.on_the_wire.insert(id, sent);
        }
    }

    /// The broker acknowledged a packet id at `now`; the ticket of what the core waits for.
    pub fn acknowledged(&mut self, id: u16, now: Instant) -> Option<Ticket> {
        self.progress = Some(now);
        let sent = self.on_the_wire.remove(&id)?;
        self.taken = self.taken.max(sent.size);
        sent.answer.is_none().then_some(sent.ticket)
    }

    /// The size of the largest message that the broker has not acknowledged, if it has acknowledged none as large.
    pub fn suspect(&self) -> Option<usize> {
        let sizes = self.on_the_wire.values().chain(&self.requested).map(|sent| sent.size);
        sizes.max().filter(|size| *size > self.taken)
    }

    /// Answers that the broker has not acknowledged, the oldest first.
    pub fn into_answers(self) -> impl Iterator<Item = Publish> {
        let mut on_the_wire: Vec<(u16, Sent)> = self.on_the_wire.into_iter().collect();
        on_the_wire.sort_by_key(|(id, _)| *id);
        let sent = on_the_wire.into_iter().map(|(_, sent)| sent).chain(self.requested);
        sent.filter_map(|sent| sent.answer)
    }
}
