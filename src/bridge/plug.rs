//! One plug in the fleet: what is known of it, and what of that users are shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::plug::error::Error;
use crate::plug::mac::Mac;
use crate::plug::reading::Reading;
use crate::plug::settings::HostPort;
use crate::plug::task::Order;

use super::deadband;
use super::event::Event;
use super::queue::{Pending, Queue};
use super::result::Failure;
use super::tally::Tally;

/// Readings after which a plug is announced even though its meter never answered.
const READINGS_TO_ANNOUNCE: u32 = 3;

/// Two messages of trembling measurements are at least this far apart.
const MEASURES_APART: Duration = Duration::from_secs(1);

/// A plug's number within this program's life: its place in the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlugNo(pub u32);

/// Whether a plug answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It was never heard of, and has not failed for long enough to be given up.
    Unknown,
    /// It answered last, or has failed only for a moment.
    Online,
    /// Three failures and fifteen seconds without an answer.
    Offline,
}

/// How the bridge came to know of a plug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The configuration lists it.
    Config,
    /// A search found it.
    Scan,
}

impl Via {
    /// As `bridge/devices` says it.
    pub fn name(self) -> &'static str {
        match self {
            Via::Config => "config",
            Via::Scan => "scan",
        }
    }
}

/// What is known of a plug before it has answered.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it is reached; `None` until a search finds it.
    pub address: Option<HostPort>,
    /// Its identity, where that is known.
    pub mac: Option<Mac>,
    /// Its configured name in topics.
    pub name: Option<String>,
    /// How often it is polled, where that is its own.
    pub interval: Option<Duration>,
    /// Who told of it.
    pub via: Via,
}

/// One plug and everything known of it.
#[derive(Debug)]
pub struct Plug {
    /// What was known of it first. Its address is where it is reached now.
    pub entry: Entry,
    /// Its address in words.
    pub address: String,
    /// The address that the configuration gives, in words.
    pub configured: Option<String>,
    /// Its topic name: configured, remembered, or made of its alias or MAC at the first reading.
    pub name: Option<String>,
    /// Since when it has a name that was made of its alias; `None` for one that stays.
    pub named_at: Option<Instant>,
    /// Whether it has answered since the program started.
    pub met: bool,
    /// Another shard speaks for it until it has said who it is.
    pub silent: bool,
    /// Whether it answers.
    pub availability: Availability,
    /// What users are shown; `None` until the first complete reading.
    pub shown: Option<Arc<Reading>>,
    /// Whether its meter was ever seen to have a counter.
    pub counts_energy: bool,
    /// False once it has said that it is no plug.
    pub supported: bool,
    /// Why it does not answer, or cannot be served.
    pub trouble: Option<String>,
    /// Its identity, once it has answered.
    pub mac: Option<Mac>,
    shown_at: Option<Instant>,
    readings: u32,
    /// Readings, and failures to read, since the program started.
    pub polls: u64,
    /// Failures among them.
    pub errors: u64,
    /// What went wrong last, however long ago.
    pub last_error: Option<String>,
    /// What is counted of it.
    pub tally: Tally,
    /// Since it answered last.
    pub failures: u32,
    /// Since when it does not answer.
    pub failing_since: Option<Instant>,
    /// Its commands.
    pub queue: Queue,
}

/// How a command ended; with the plug's own reply to a request that was sent as it is.
pub type Ended = Result<Option<Box<Value>>, Failure>;

/// What came of a report or a command.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Something that users see of this plug may have changed.
    pub changed: bool,
    /// Something in the list of all plugs may have changed.
    pub listed: bool,
    /// The state is to be sent again even if it is the same.
    pub again: bool,
    /// To be sent to the plug's task.
    pub order: Option<Order>,
    /// Commands that have ended, each to be answered.
    pub ended: Vec<(Pending, Ended)>,
    /// Another entry of the same plug, which is no more.
    pub absorbed: Option<PlugNo>,
    /// It does not answer; true when it did before.
    pub missing: Option<bool>,
    /// What is worth telling.
    pub events: Vec<Event>,
    /// The name that it has from now on.
    pub named: Option<String>,
    /// Another plug that changed with it: it has another name.
    pub also: Option<(PlugNo, Event)>,
}

impl Plug {
    /// A plug that nobody has heard of yet.
    pub fn new(entry: Entry) -> Plug {
        let is_lost = entry.address.is_none();
        Plug {
            address: in_words(entry.address.as_ref()),
            configured: entry.address.as_ref().filter(|_| entry.via == Via::Config).map(HostPort::to_string),
            name: entry.name.clone(),
            named_at: None,
            met: false,
            silent: false,
            // Nobody can be asked where it is not known.
            availability: if is_lost { Availability::Offline } else { Availability::Unknown },
            shown: None,
            counts_energy: false,
            supported: true,
            trouble: is_lost.then(|| "not found on the network yet".to_string()),
            mac: entry.mac,
            shown_at: None,
            readings: 0,
            polls: 0,
            errors: 0,
            last_error: None,
            tally: Tally::default(),
            failures: 0,
            failing_since: None,
            queue: Queue::default(),
            entry,
        }
    }

    /// What it is called in topics: before it has answered, and has a name, by its MAC, where that is known.
    pub fn called(&self) -> Option<String> {
        self.name.clone().or_else(|| self.mac.map(|mac| mac.hex()))
    }

    /// It was found at this address.
    pub fn move_to(&mut self, address: &HostPort) {
        self.address = in_words(Some(address));
        self.entry.address = Some(address.clone());
    }

    /// Something came to nothing.
    pub fn note(&mut self, error: &Error) {
        if self.tally.failed(error) {
            self.last_error = Some(error.to_string());
        }
    }

    /// Whether it is a strip that has an outlet of this number.
    pub fn has_outlet(&self, number: u8) -> bool {
        let has =
            |reading: &Reading| reading.is_strip() && reading.outlets.iter().any(|one| one.number == number);
        self.shown.as_deref().is_some_and(has)
    }

    /// Takes a reading in and decides whether users see it. `heartbeat` is how often an unchanged one is sent again.
    pub fn take(
        &mut self,
        reading: Arc<Reading>,
        at: Instant,
        heartbeat: Option<Duration>,
        outcome: &mut Outcome,
    ) {
        self.readings = self.readings.saturating_add(1);
        let emeter = reading.outlets[0].emeter;
        // Every strip that meters has counters (protocol.md 4), and its outlets are asked one after the other.
        let is_strip = reading.is_strip();
        self.counts_energy |= emeter.is_some_and(|emeter| is_strip || emeter.total_wh.is_some());
        let shown_for = self.shown_at.map(|shown_at| at.saturating_duration_since(shown_at));
        let show = match (&self.shown, shown_for) {
            // Discovery is to be published once and whole, so a meter that stays silent is waited for a little.
            (None, _) | (_, None) => {
                let complete = is_strip || emeter.is_none_or(|emeter| emeter.power_mw.is_some());
                outcome.listed = true;
                complete || self.readings >= READINGS_TO_ANNOUNCE
            }
            (Some(shown), Some(shown_for)) => {
                outcome.listed |= !are_listed_alike(shown, &reading);
                let (from, to) = (shown.protocol, reading.protocol);
                if from != to {
                    outcome.events.push(Event::ProtocolChanged { from, to });
                }
                outcome.again = heartbeat.is_some_and(|heartbeat| shown_for >= heartbeat);
                outcome.again
                    || from != to
                    || deadband::is_news(shown, &reading)
                    || (shown_for >= MEASURES_APART && deadband::measures_moved(shown, &reading))
            }
        };
        if show {
            self.shown = Some(reading);
            self.shown_at = Some(at);
            outcome.changed = true;
        }
    }
}

fn in_words(address: Option<&HostPort>) -> String {
    address.map_or_else(|| "unknown".into(), HostPort::to_string)
}

/// Whether the list of all plugs shows the same of two readings.
fn are_listed_alike(one: &Reading, other: &Reading) -> bool {
    fn listed(reading: &Reading) -> impl PartialEq {
        (&reading.alias, &reading.model, &reading.hw_ver, &reading.sw_ver, reading.protocol)
    }
    fn outlets(reading: &Reading) -> impl Iterator<Item = &str> {
        reading.outlets.iter().map(|outlet| outlet.alias.as_str())
    }
    listed(one) == listed(other) && outlets(one).eq(outlets(other))
}
