//! Every plug and what is known of it. A report or a command goes in; the new state, the orders to plugs and the
//! answers to commands come out.

mod naming;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::plug::error::Error;
use crate::plug::mac::Mac;
use crate::plug::reading::Reading;
use crate::plug::schedule::OFFLINE_AFTER;
use crate::plug::settings::HostPort;
use crate::plug::task::{self, Order, Report};

use super::event::Event;
use super::plug::{Availability, Entry, Outcome, Plug, PlugNo};
use super::queue::{INQUIRY, Pending};
use super::result::Failure;

/// Failures in a row before a plug may be called offline; together with [`OFFLINE_AFTER`] (homeassistant.md 6, row 18).
const OFFLINE_FAILURES: u32 = 3;

/// Failures in a row after which a plug is looked for elsewhere.
const MISSING_FAILURES: u32 = 2;

/// All plugs.
#[derive(Debug)]
pub struct Fleet {
    plugs: BTreeMap<PlugNo, Plug>,
    next: u32,
    /// Names and MACs, as they stand in command topics.
    by_name: HashMap<String, PlugNo>,
    /// Names that plugs had when an earlier bridge ran.
    remembered: HashMap<Mac, String>,
    settings: Settings,
}

/// What the fleet needs to know of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How often an unchanged state is sent again.
    pub heartbeat: Option<Duration>,
    /// How old a command may get.
    pub ttl: Duration,
    /// Whether names follow aliases that change.
    pub follow_alias: bool,
    /// Whether other bridges have plugs whose names are not known here.
    pub sharded: bool,
}

impl Fleet {
    /// No plugs yet.
    pub fn new(settings: Settings) -> Fleet {
        Fleet {
            plugs: BTreeMap::new(),
            next: 0,
            by_name: HashMap::new(),
            remembered: HashMap::new(),
            settings,
        }
    }

    /// Adds a plug.
    pub fn add(&mut self, entry: Entry) -> PlugNo {
        let no = PlugNo(self.next);
        self.next += 1;
        if let Some(mac) = entry.mac {
            self.by_name.insert(mac.hex(), no);
        }
        let plug = Plug::new(entry);
        if let Some(name) = &plug.name {
            self.by_name.insert(name.clone(), no);
        }
        self.plugs.insert(no, plug);
        no
    }

    /// Adds a plug that has no name, and is not told of, until it has said who it is.
    pub fn add_silent(&mut self, entry: Entry) -> PlugNo {
        let no = self.add(entry);
        self.silence(no);
        no
    }

    /// The same for a plug that was added, and has not answered yet.
    pub fn silence(&mut self, no: PlugNo) {
        self.by_name.retain(|_, owner| *owner != no);
        let plug = self.plug_mut(no);
        (plug.name, plug.silent) = (None, true);
    }

    /// Removes a plug; its commands are answered.
    pub fn remove(&mut self, no: PlugNo) -> Option<Plug> {
        self.by_name.retain(|_, owner| *owner != no);
        self.plugs.remove(&no)
    }

    /// The plug of a number given by [`Fleet::add`], unless it was removed.
    pub fn get(&self, no: PlugNo) -> Option<&Plug> {
        self.plugs.get(&no)
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
        self.plugs.iter().map(|(no, plug)| (*no, plug))
    }

    /// The plug that a command topic names, by name or by MAC.
    pub fn find(&self, name: &str) -> Option<PlugNo> {
        self.by_name.get(name).copied()
    }

    /// A plug was found at this address.
    pub fn moved(&mut self, no: PlugNo, address: &HostPort) -> Outcome {
        let Some(plug) = self.plugs.get_mut(&no) else { return Outcome::default() };
        let from = plug.address.clone();
        plug.move_to(address);
        info!(plug = plug.name, from, to = plug.address, "plug found at another address");
        let moved = Event::Moved { from, to: plug.address.clone() };
        Outcome { listed: true, events: vec![moved], ..Outcome::default() }
    }

    /// A command for a plug arrived.
    pub fn command(&mut self, no: PlugNo, command: Pending) -> Outcome {
        let Some(plug) = self.plugs.get_mut(&no) else { return Outcome::default() };
        let superseded = plug.queue.push(command);
        Outcome {
            ended: superseded.into_iter().map(|(command, failure)| (command, Err(failure))).collect(),
            order: self.next_order(no),
            ..Outcome::default()
        }
    }

    /// A plug's task reported.
    pub fn report(&mut self, report: Report<PlugNo>) -> Outcome {
        let Report { plug: no, at, event, took } = report;
        // The last words of a plug that was removed.
        if !self.plugs.contains_key(&no) {
            return Outcome::default();
        }
        if let Some(took) = took {
            self.plug_mut(no).tally.answered(took);
        }
        match event {
            task::Event::Polled(Ok(reading)) => self.answered(no, at, Some(reading)),
            task::Event::Polled(Err(error)) => self.failed(no, at, &error),
            task::Event::Done { order, outcome, reply, reading } => {
                let mut result = match &outcome {
                    Err(error) if error.is_contact_failure() => self.failed(no, at, error),
                    // Refusals come from the plug itself; of the others nothing can be told.
                    Err(Error::Stale | Error::Resting(_)) => Outcome::default(),
                    _ => self.answered(no, at, reading),
                };
                let plug = self.plug_mut(no);
                if let Some(error) = outcome.as_ref().err().filter(|error| !error.is_contact_failure()) {
                    plug.note(error);
                }
                if let Some(command) = plug.queue.finish(order) {
                    let outcome = outcome.map(|()| reply).map_err(|error| Failure::from(&error));
                    result.ended.push((command, outcome));
                    // Also when nothing changed: whoever switched sees it snap back.
                    result.changed = true;
                    result.again = true;
                } else if let (INQUIRY, Err(error)) = (order, &outcome) {
                    let refused = plug.queue.refuse(error).into_iter();
                    result.ended.extend(refused.map(|(command, failure)| (command, Err(failure))));
                }
                result.order = self.next_order(no);
                result
            }
        }
    }

    /// What a plug's task is to do next. A plug that may be another shard's is told nothing before it has said who it is:
    /// its owner hears the same commands.
    fn next_order(&mut self, no: PlugNo) -> Option<Order> {
        let plug = self.plugs.get_mut(&no)?;
        match self.settings.sharded && plug.mac.is_none() {
            true => plug.queue.inquire(self.settings.ttl),
            false => plug.queue.next(self.settings.ttl),
        }
    }

    /// The program ends: every command that has not ended is answered.
    pub fn drain(&mut self) -> Vec<(PlugNo, Pending, Failure)> {
        let drain = |(no, plug): (&PlugNo, &mut Plug)| {
            let no = *no;
            plug.queue
                .drain("the bridge is stopping")
                .into_iter()
                .map(move |(command, failure)| (no, command, failure))
        };
        self.plugs.iter_mut().flat_map(drain).collect()
    }

    /// Every command that waits has waited for too long.
    pub fn expire(&mut self) -> Vec<(PlugNo, Pending, Failure)> {
        let expire = |(no, plug): (&PlugNo, &mut Plug)| {
            let no = *no;
            plug.queue.refuse(&Error::Stale).into_iter().map(move |(command, failure)| (no, command, failure))
        };
        self.plugs.iter_mut().flat_map(expire).collect()
    }

    fn plug(&self, no: PlugNo) -> &Plug {
        &self.plugs[&no]
    }

    fn plug_mut(&mut self, no: PlugNo) -> &mut Plug {
        self.plugs.get_mut(&no).expect("whoever asks has looked")
    }

    fn answered(&mut self, no: PlugNo, at: Instant, reading: Option<Arc<Reading>>) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(reading) = &reading
            && !self.plug(no).met
            && !self.meet(no, reading, at, &mut outcome)
        {
            return outcome;
        }
        if let Some(reading) = &reading {
            self.follow_alias(no, reading, &mut outcome);
        }
        let heartbeat = self.settings.heartbeat;
        let plug = self.plug_mut(no);
        plug.polls += 1;
        plug.failures = 0;
        plug.failing_since = None;
        if plug.availability == Availability::Offline {
            info!(plug = plug.name, address = plug.address, "plug is back");
            outcome.events.push(Event::Online);
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

    fn failed(&mut self, no: PlugNo, at: Instant, error: &Error) -> Outcome {
        let plug = self.plug_mut(no);
        plug.note(error);
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
        (plug.polls, plug.errors) = (plug.polls + 1, plug.errors + 1);
        plug.failures = plug.failures.saturating_add(1);
        // One failure is chance, unless another plug answers there.
        let looked_for_after = if matches!(error, Error::WrongPlug { .. }) { 1 } else { MISSING_FAILURES };
        let missing = (plug.mac.is_some() && plug.failures >= looked_for_after)
            .then_some(plug.failures == looked_for_after);
        let since = *plug.failing_since.get_or_insert(at);
        debug!(plug = plug.name, address = plug.address, %error, failures = plug.failures, "plug does not answer");
        let given_up =
            plug.failures >= OFFLINE_FAILURES && at.saturating_duration_since(since) >= OFFLINE_AFTER;
        let mut outcome = Outcome { missing, ..Outcome::default() };
        let reason = error.to_string();
        if *error == Error::Auth && plug.trouble.as_ref() != Some(&reason) {
            warn!(plug = plug.name, address = plug.address, %error, "plug wants an account");
            plug.trouble = Some(reason.clone());
            outcome.listed = true;
            outcome.events.push(Event::AuthFailed(reason.clone()));
        }
        if given_up && plug.availability != Availability::Offline {
            warn!(plug = plug.name, address = plug.address, %error, "plug is offline");
            plug.availability = Availability::Offline;
            plug.trouble = Some(reason.clone());
            (outcome.changed, outcome.listed) = (true, true);
            outcome.events.push(Event::Offline(reason));
        }
        outcome
    }
}
