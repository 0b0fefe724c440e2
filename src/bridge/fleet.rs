//! Every plug and what is known of it. A report or a command goes in; the new state, the orders to plugs and the
//! answers to commands come out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::plug::error::Error;
use crate::plug::reading::Reading;
use crate::plug::schedule::OFFLINE_AFTER;
use crate::plug::task::{Event, Report};

use super::names;
use super::plug::{Availability, Outcome, Plug, PlugNo};
use super::queue::Pending;
use super::result::Failure;

/// Failures in a row before a plug may be called offline; together with [`OFFLINE_AFTER`] (homeassistant.md 6, row 18).
const OFFLINE_FAILURES: u32 = 3;

/// All plugs.
#[derive(Debug)]
pub struct Fleet {
    plugs: Vec<Plug>,
    /// Names and MACs, as they stand in command topics.
    by_name: HashMap<String, PlugNo>,
    heartbeat: Option<Duration>,
    ttl: Duration,
}

impl Fleet {
    /// No plugs yet. `heartbeat` is how often an unchanged state is sent again; `ttl` how old a command may get.
    pub fn new(heartbeat: Option<Duration>, ttl: Duration) -> Fleet {
        Fleet { plugs: Vec::new(), by_name: HashMap::new(), heartbeat, ttl }
    }

    /// Adds a plug that is to be reached at `address`, with a configured name or none.
    pub fn add(&mut self, address: String, name: Option<String>) -> PlugNo {
        let no = PlugNo(u32::try_from(self.plugs.len()).expect("fewer than 4 billion plugs"));
        if let Some(name) = &name {
            self.by_name.insert(name.clone(), no);
        }
        self.plugs.push(Plug::new(address, name));
        no
    }

    /// The plug of a number given by [`Fleet::add`].
    pub fn plug(&self, no: PlugNo) -> &Plug {
        &self.plugs[no.0 as usize]
    }

    /// How many plugs there are.
    pub fn len(&self) -> usize {
        self.plugs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.plugs.is_empty()
    }

    /// All plugs with their numbers.
    pub fn plugs(&self) -> impl Iterator<Item = (PlugNo, &Plug)> {
        (0..).map(PlugNo).zip(&self.plugs)
    }

    /// The plug that a command topic names, by name or by MAC.
    pub fn find(&self, name: &str) -> Option<PlugNo> {
        self.by_name.get(name).copied()
    }

    /// A command for a plug arrived.
    pub fn command(&mut self, no: PlugNo, command: Pending) -> Outcome {
        let ttl = self.ttl;
        let plug = self.plug_mut(no);
        let superseded = plug.queue.push(command);
        Outcome {
            ended: superseded.into_iter().map(|(command, failure)| (command, Err(failure))).collect(),
            order: plug.queue.next(ttl),
            ..Outcome::default()
        }
    }

    /// A plug's task reported.
    pub fn report(&mut self, report: Report<PlugNo>) -> Outcome {
        let Report { plug: no, at, event } = report;
        let ttl = self.ttl;
        match event {
            Event::Polled(Ok(reading)) => self.answered(no, at, Some(reading)),
            Event::Polled(Err(error)) => self.failed(no, at, &error),
            Event::Done { order, outcome, reply, reading } => {
                let mut result = match &outcome {
                    Err(error) if error.is_contact_failure() => self.failed(no, at, error),
                    // Refusals come from the plug itself; of the others nothing can be told.
                    Err(Error::Stale | Error::Resting(_)) => Outcome::default(),
                    _ => self.answered(no, at, reading),
                };
                let plug = self.plug_mut(no);
                if let Some(command) = plug.queue.finish(order) {
                    let outcome = outcome.map(|()| reply).map_err(|error| Failure::from(&error));
                    result.ended.push((command, outcome));
                    // Also when nothing changed: whoever switched sees it snap back.
                    result.changed = true;
                    result.again = true;
                }
                result.order = plug.queue.next(ttl);
                result
            }
        }
    }

    /// The program ends: every command that has not ended is answered.
    pub fn drain(&mut self) -> Vec<(PlugNo, Pending, Failure)> {
        let plugs = (0..).map(PlugNo).zip(&mut self.plugs);
        let drain = |(no, plug): (PlugNo, &mut Plug)| {
            plug.queue.drain().into_iter().map(move |(command, failure)| (no, command, failure))
        };
        plugs.flat_map(drain).collect()
    }

    fn plug_mut(&mut self, no: PlugNo) -> &mut Plug {
        &mut self.plugs[no.0 as usize]
    }

    fn answered(&mut self, no: PlugNo, at: Instant, reading: Option<Arc<Reading>>) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(reading) = &reading
            && self.plug(no).mac.is_none()
            && !self.meet(no, reading)
        {
            return outcome;
        }
        let heartbeat = self.heartbeat;
        let plug = self.plug_mut(no);
        plug.failures = 0;
        plug.failing_since = None;
        if plug.availability == Availability::Offline {
            info!(plug = plug.name, address = plug.address, "plug is back");
        }
        if plug.availability != Availability::Online || plug.trouble.is_some() {
            plug.availability = Availability::Online;
            plug.trouble = None;
            plug.supported = true;
            outcome.changed = true;
            outcome.listed = true;
        }
        if let Some(reading) = reading {
            plug.take(reading, at, heartbeat, &mut outcome);
        }
        outcome
    }

    /// The first reading of a plug: learns its identity and gives it a name. False for a plug that another entry owns.
    fn meet(&mut self, no: PlugNo, reading: &Reading) -> bool {
        let id = reading.mac.hex();
        if let Some(owner) = self.find(&id).filter(|owner| *owner != no) {
            let owner = self.plug(owner).address.clone();
            let plug = self.plug_mut(no);
            let trouble = format!("it is the same plug as {owner}");
            if plug.trouble.as_ref() != Some(&trouble) {
                warn!(address = plug.address, mac = %reading.mac, "plug ignored: {trouble}");
                plug.trouble = Some(trouble);
            }
            return false;
        }
        let name = self.plug(no).name.clone().unwrap_or_else(|| self.free_name(reading));
        let plug = self.plug_mut(no);
        plug.mac = Some(reading.mac);
        plug.name = Some(name.clone());
        info!(plug = name, address = plug.address, mac = %reading.mac, model = reading.model, "plug found");
        self.by_name.insert(id, no);
        self.by_name.insert(name, no);
        true
    }

    fn free_name(&self, reading: &Reading) -> String {
        let id = reading.mac.hex();
        let slug = names::slug(&reading.alias).unwrap_or_else(|| id.clone());
        match self.find(&slug) {
            None => slug,
            Some(_) => {
                Some(format!("{slug}-{}", &id[8..])).filter(|name| self.find(name).is_none()).unwrap_or(id)
            }
        }
    }

    fn failed(&mut self, no: PlugNo, at: Instant, error: &Error) -> Outcome {
        let plug = self.plug_mut(no);
        if let Error::Unsupported(_) = error {
            let trouble = Some(error.to_string());
            let listed = plug.trouble != trouble;
            if listed {
                warn!(address = plug.address, %error, "device is left alone");
                plug.trouble = trouble;
                plug.supported = false;
            }
            return Outcome { listed, ..Outcome::default() };
        }
        plug.failures = plug.failures.saturating_add(1);
        let since = *plug.failing_since.get_or_insert(at);
        debug!(plug = plug.name, address = plug.address, %error, failures = plug.failures, "plug does not answer");
        let given_up =
            plug.failures >= OFFLINE_FAILURES && at.saturating_duration_since(since) >= OFFLINE_AFTER;
        if !given_up || plug.availability == Availability::Offline {
            return Outcome::default();
        }
        warn!(plug = plug.name, address = plug.address, %error, "plug is offline");
        plug.availability = Availability::Offline;
        plug.trouble = Some(error.to_string());
        Outcome { changed: true, listed: true, ..Outcome::default() }
    }
}
