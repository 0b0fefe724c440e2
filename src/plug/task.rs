//! One plug's task: its owner's polls and questions in their time, orders as they come. Ends when its inbox closes.
//!
//! One request is in flight at any time. An order overtakes every poll that has not begun; a poll that was begun is
//! finished first, so its result is always older than the order's.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::command::Action;
use super::error::Error;
use super::owner::{Done, Owner, Settings};
use super::reading::Reading;
use super::settings::HostPort;

/// A command on its way to a plug.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Comes back in [`Event::Done`].
    pub id: u64,
    /// What to do, in this order. Ends at the first failure.
    pub actions: Vec<Action>,
    /// Nothing of it is begun after this moment.
    pub deadline: std::time::Instant,
}

/// What a plug's task is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Post {
    /// To carry this out. In a box because a channel keeps room for 32 of them, in each of 10,000 tasks.
    Order(Box<Order>),
    /// That its plug was found there.
    Move(Box<HostPort>),
}

/// What became of a poll or an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A poll, or a question beside it, ended.
    Polled(Result<Arc<Reading>, Error>),
    /// An order ended.
    Done {
        /// [`Order::id`].
        order: u64,
        /// Whether all of it was done.
        outcome: Result<(), Error>,
        /// What the plug replied to a request of the user's own.
        reply: Option<Box<Value>>,
        /// The plug as it is known now, with what it confirmed, even when a later part failed.
        reading: Option<Arc<Reading>>,
    },
}

/// Sent to the core for every poll and every order.
#[derive(Debug, Clone, PartialEq)]
pub struct Report<P> {
    /// Which plug.
    pub plug: P,
    /// When the plug had answered, or had failed to.
    pub at: std::time::Instant,
    /// What happened.
    pub event: Event,
    /// How long the plug took to answer its poll, if it was polled and answered.
    pub took: Option<Duration>,
}

/// Runs one plug until `inbox` closes, or nobody listens to `reports` any more; returns which it was.
///
/// Nearly all of the time a task waits, and there are thousands: what it takes to talk to a plug is in a box, and there
/// only while it talks.
pub async fn run<P: Copy>(
    plug: P,
    settings: Settings,
    mut inbox: mpsc::Receiver<Post>,
    reports: mpsc::Sender<Report<P>>,
) -> P {
    let mut owner = Owner::new(&settings);
    loop {
        let event = tokio::select! {
            biased;
            post = inbox.recv() => match post {
                Some(Post::Move(to)) => {
                    owner.move_to(&to.host, to.port);
                    continue;
                }
                Some(Post::Order(order)) => {
                    let obeying = Box::pin(owner.obey(&order.actions, order.deadline));
                    let Done { outcome, reply, reading } = obeying.await;
                    Event::Done { order: order.id, outcome, reply, reading }
                }
                None => return plug,
            },
            () = sleep_until(owner.due_at()) => match Box::pin(owner.act()).await {
                Some(polled) => Event::Polled(polled),
                None => continue,
            },
        };
        let report = Report { plug, at: Instant::now().into_std(), event, took: owner.took() };
        if reports.send(report).await.is_err() {
            return plug;
        }
    }
}
