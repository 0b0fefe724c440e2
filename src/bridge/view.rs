//! What is shown of a plug and of the whole to those who look on: the status page and the metrics. Whoever looks keeps
//! a picture of his own; he is told of each plug that changed, and the newest state wins.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::plug::mac::Mac;
use crate::plug::reading::Reading;

use super::plug::{Availability, Plug, PlugNo};
use super::tally::Tally;

/// One plug.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its identity, once that is known.
    pub mac: Option<Mac>,
    /// Its name in topics, once it has one.
    pub name: Option<String>,
    /// Where it is reached.
    pub address: String,
    /// Whether it answers.
    pub availability: Availability,
    /// Why it does not, or cannot be served.
    pub trouble: Option<String>,
    /// What went wrong last, however long ago.
    pub last_error: Option<String>,
    /// Failures to read since the program started.
    pub errors: u64,
    /// What users are shown.
    pub reading: Option<Arc<Reading>>,
    /// What is counted.
    pub tally: Tally,
}

impl View {
    /// The plug as it is now.
    pub fn of(plug: &Plug) -> View {
        View {
            mac: plug.mac,
            name: plug.name.clone(),
            address: plug.address.clone(),
            availability: plug.availability,
            trouble: plug.trouble.clone(),
            last_error: plug.last_error.clone(),
            errors: plug.errors,
            reading: plug.shown.clone(),
            tally: plug.tally,
        }
    }

    /// Its MAC; before that is known, its address.
    pub fn id(&self) -> String {
        self.mac.map_or_else(|| self.address.clone(), |mac| mac.hex())
    }

    /// Its name; before it has one, its id.
    pub fn called(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id())
    }

    /// Whether users see a difference; counters alone are none.
    pub fn differs(&self, other: &View) -> bool {
        let counters_aside = View { tally: other.tally, ..self.clone() };
        counters_aside != *other
    }
}

/// What became of a plug.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its number.
    pub no: PlugNo,
    /// How it is; `None` when it has left.
    pub view: Option<Box<View>>,
}

/// The connection to the broker, and what went over it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Whole {
    /// Whether a session is open.
    pub connected: bool,
    /// Sessions so far.
    pub sessions: u64,
    /// Messages that the broker has taken.
    pub acknowledged: u64,
    /// Answers and events that were dropped, for the broker did not take them.
    pub dropped: u64,
}

/// Plugs whose view may have changed, each once, in the order in which they changed.
#[derive(Debug, Default)]
pub struct Changed {
    queue: VecDeque<PlugNo>,
    queued: HashSet<PlugNo>,
}

impl Changed {
    /// This plug's view may have changed.
    pub fn mark(&mut self, no: PlugNo) {
        if self.queued.insert(no) {
            self.queue.push_back(no);
        }
    }

    /// The next one, no longer marked.
    pub fn pop(&mut self) -> Option<PlugNo> {
        let no = self.queue.pop_front()?;
        self.queued.remove(&no);
        Some(no)
    }

    /// Whether none is marked.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
