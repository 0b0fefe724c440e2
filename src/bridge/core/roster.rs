//! Who is in the fleet: what an earlier bridge left, what a search finds, what somebody removes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracing::{info, warn};

use crate::bridge::event::Event;
use crate::bridge::memory::{Memory, Past};
use crate::bridge::message::Message;
use crate::bridge::names;
use crate::bridge::overview;
use crate::bridge::plug::{Availability, Entry, Outcome, PlugNo, Via};
use crate::bridge::retained::{Owner, Role};
use crate::bridge::topics::Own;
use crate::plug::mac::Mac;
use crate::plug::scan::NOBODY;
use crate::plug::scan::found::{Found, Protocol};
use crate::plug::scan::settings::Adopt;
use crate::plug::settings::HostPort;

use super::Core;

/// A device leaves Home Assistant first, and its topics so much later (homeassistant.md 1.4).
const LEAVES_BEFORE_TOPICS: Duration = Duration::from_secs(2);

/// Something that the core wants of the world.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// A task for this plug.
    Run {
        /// Its number.
        no: PlugNo,
        /// Where it is reached.
        address: HostPort,
        /// Whose address it is, where that is sure.
        mac: Option<Mac>,
        /// How often it is polled, where that is its own.
        interval: Option<Duration>,
    },
    /// Its task is to go there.
    Move(PlugNo, HostPort),
    /// Its task is to end.
    End(PlugNo),
    /// A search of the network.
    Search,
}

impl Core {
    /// Adds a plug that the configuration lists.
    pub fn add_plug(&mut self, entry: Entry) {
        if self.takes(&entry) {
            let no = self.add_unknown(entry);
            self.run(no);
        }
    }

    /// The next thing that is wanted.
    pub fn next_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    pub(super) fn run(&mut self, no: PlugNo) {
        self.show(no);
        let Some(entry) = self.fleet.get(no).map(|plug| &plug.entry) else { return };
        if let Some(address) = entry.address.clone() {
            let (mac, interval) = (entry.mac, entry.interval);
            self.wishes.push_back(Wish::Run { no, address, mac, interval });
        }
    }

    /// Something that an earlier bridge left with the broker. Only what comes before the first session is opened counts:
    /// afterwards what is there is ours.
    pub(super) fn remember(&mut self, message: &Message) {
        if let Some(memory) = &mut self.memory {
            memory.take(&self.settings.topics, &message.topic, &message.payload);
        }
    }

    /// The first session is open, and everything that was left has come.
    pub(super) fn recall(&mut self, now: Instant) {
        let Some(memory) = self.memory.take() else { return };
        let Memory { plugs, topics, components } = memory;
        let is_ours = |topic: &str| match self.settings.topics.own(topic) {
            Some(Own::Discovery(mac)) => self.owns(mac),
            _ => true,
        };
        for (topic, components) in
            components.into_iter().filter(|(topic, _)| is_ours(topic)).collect::<Vec<_>>()
        {
            self.retirement.remember(&topic, components);
        }
        let mut names: HashMap<String, PlugNo> = HashMap::new();
        let mut gone = Vec::new();
        let (plugs, others): (Vec<Past>, Vec<Past>) = plugs.into_iter().partition(|past| self.owns(past.mac));
        for other in others {
            // Its shard speaks for it, and hears what we hear.
            if let Some(no) = self.configured_at(other.address.as_ref()) {
                self.fleet.silence(no);
            }
        }
        for past in plugs {
            self.fleet.remember(past.mac, &past.name);
            if self.is_aside(past.mac) {
                continue;
            }
            let no = match self.fleet.find(&past.mac.hex()) {
                Some(no) => no,
                None => match self.configured_at(past.address.as_ref()).filter(|_| past.via == Via::Config) {
                    Some(no) => no,
                    None => {
                        let stays = past.via == Via::Scan && self.adopts();
                        let address = past.address.filter(|_| stays);
                        let (mac, via) = (Some(past.mac), Via::Scan);
                        let no = self.fleet.add(Entry { address, mac, name: None, interval: None, via });
                        self.run(no);
                        if !stays {
                            gone.push(no);
                        }
                        no
                    }
                },
            };
            self.fleet.believe(no, past.mac);
            self.fleet.recall_name(no);
            names.insert(past.name, no);
        }
        for topic in topics {
            let owner = match self.settings.topics.own(&topic) {
                Some(Own::State(name) | Own::Availability(name)) => {
                    names.get(name).copied().or_else(|| self.fleet.find(name))
                }
                Some(Own::Discovery(mac)) => self.fleet.find(&mac.hex()),
                None => None,
            };
            let role = match self.settings.topics.own(&topic) {
                Some(Own::State(_)) => Role::State,
                Some(Own::Availability(_)) => Role::Availability,
                _ => Role::Discovery,
            };
            if let Some(no) = owner {
                self.projection.adopt(Owner::Plug(no), role, topic);
            }
        }
        let left = |no: &PlugNo| self.fleet.get(*no).and_then(|plug| plug.mac);
        let strangers: Vec<Mac> = gone.iter().filter_map(left).collect();
        self.reconsider(now);
        self.forget_aside(&strangers);
        for no in gone {
            info!(plug = self.fleet.get(no).and_then(|plug| plug.name.clone()), "no longer listed: removed");
            self.remove(no, now);
        }
    }

    /// The plug that is listed with this address and has not answered yet.
    fn configured_at(&self, address: Option<&HostPort>) -> Option<PlugNo> {
        let is_there = |entry: &Entry| {
            entry.via == Via::Config && entry.mac.is_none() && entry.address.as_ref() == address
        };
        let mut plugs = self.fleet.plugs().filter(|_| address.is_some());
        plugs.find(|(_, plug)| !plug.met && is_there(&plug.entry)).map(|(no, _)| no)
    }

    fn adopts(&self) -> bool {
        self.search.is_enabled() && self.settings.adopt == Adopt::All
    }

    /// A search has found a plug, or somebody who says to be one.
    pub fn found(&mut self, now: Instant, found: &Found) {
        let Some(mac) = found.mac else { return };
        if found.protocol != Protocol::Unsupported && self.found.insert(mac) {
            self.list(now);
        }
        if found.protocol == Protocol::Unsupported {
            let what = format!("{} {mac} at {}", found.model, found.address);
            self.warn_once(&what, "found and not served: it speaks neither XOR nor KLAP");
            return;
        }
        let address = found.home();
        let Some(no) = self.fleet.find(&mac.hex()) else {
            let is_listed = self.fleet.plugs().any(|(_, plug)| plug.entry.address.as_ref() == Some(&address));
            let (address, mac) = (Some(address), Some(mac));
            let entry = Entry { address, mac, name: None, interval: None, via: Via::Scan };
            let is_wanted =
                !is_listed && self.adopts() && !mac.is_some_and(|mac| self.removed.contains(&mac));
            if is_wanted && self.takes(&entry) {
                let no = self.fleet.add(entry);
                self.run(no);
                let outcome = Outcome { listed: true, events: vec![Event::Added], ..Outcome::default() };
                self.follow(now, no, outcome);
            }
            return;
        };
        let Some(plug) = self.fleet.get(no) else { return };
        let is_lost = plug.failures > 0 || plug.availability == Availability::Offline;
        if plug.entry.address.as_ref() == Some(&address) || !is_lost {
            return;
        }
        let has_task = plug.entry.address.is_some();
        let outcome = self.fleet.moved(no, &address);
        match has_task {
            true => self.wishes.push_back(Wish::Move(no, address)),
            false => self.run(no),
        }
        self.follow(now, no, outcome);
    }

    /// A search has ended.
    pub fn searched(&mut self, now: Instant) {
        self.search.ended(now);
        if self.found.is_empty() && !std::mem::replace(&mut self.explained, true) {
            match self.fleet.is_empty() {
                true => warn!("{NOBODY} (scan.targets)"),
                false => info!("{NOBODY} (scan.targets)"),
            }
        }
        let devices: Vec<Value> = self.found.iter().map(|mac| mac.hex().into()).collect();
        for transaction in std::mem::take(&mut self.searchers) {
            self.respond("response/scan", Ok(json!({"found": devices})), transaction.as_ref());
        }
        self.list(now);
    }

    /// The plug leaves the fleet, Home Assistant and the broker.
    pub(super) fn remove(&mut self, no: PlugNo, now: Instant) {
        let Some(mut plug) = self.fleet.remove(no) else { return };
        for (command, failure) in plug.queue.drain("the plug was removed") {
            self.finish_for(now, plug.called().as_deref(), &command, Err(failure));
        }
        self.wishes.push_back(Wish::End(no));
        self.show(no);
        self.tell(&Event::Removed, plug.mac, plug.name.as_deref());
        self.formerly.extend(plug.name.map(|name| (name, no)));
        for topic in self.projection.topics(Owner::Plug(no), Role::Discovery) {
            self.retirement.forget(&topic);
        }
        self.leaving.push_back((now + LEAVES_BEFORE_TOPICS, no));
        self.projection.mark(Owner::Plug(no), false);
        self.list(now);
    }

    /// Removes a plug because somebody asked for it. One that the configuration lists would be back at the next start.
    pub(super) fn remove_by_name(&mut self, name: &str, now: Instant) -> Result<Value, String> {
        let no = self.fleet.find(name).ok_or("no such device")?;
        let plug = self.fleet.get(no).ok_or("no such device")?;
        if plug.entry.via == Via::Config {
            return Err(format!("{name} is listed in the configuration: remove it there"));
        }
        let removed = json!({"id": plug.name, "mac": plug.mac.map(|mac| mac.hex())});
        self.removed.extend(plug.mac);
        self.remove(no, now);
        Ok(removed)
    }

    /// Gives a plug another name in topics because somebody asked for it.
    pub(super) fn rename_by_name(&mut self, name: &str, to: &str, now: Instant) -> Result<Value, String> {
        let no = self.fleet.find(name).ok_or("no such device")?;
        let plug = self.fleet.get(no).ok_or("no such device")?;
        if plug.entry.name.is_some() {
            return Err(format!("the name of {name} is configured: change it there"));
        }
        if !names::is_name(to) || to.parse::<Mac>().is_ok() {
            return Err("expected a name of a-z 0-9 _ - that is neither \"bridge\" nor a MAC".into());
        }
        if self.fleet.find(to).is_some_and(|other| other != no) {
            return Err(format!("{to} is the name of another device"));
        }
        let from = plug.name.clone();
        let outcome = self.fleet.rename(no, to);
        self.follow(now, no, outcome);
        self.devices_at = Some(now);
        Ok(json!({"from": from, "to": to}))
    }

    /// The list of all plugs is to be told again.
    pub(super) fn list(&mut self, now: Instant) {
        if self.devices_at.is_none() {
            let hundreds = u32::try_from(self.fleet.len() / 100).unwrap_or(u32::MAX);
            self.devices_at = Some(now + super::DEVICES_APART.saturating_mul(hundreds.saturating_add(1)));
        }
    }

    /// Tells of an event of a plug.
    pub(super) fn tell(&mut self, event: &Event, mac: Option<Mac>, name: Option<&str>) {
        self.tell_of(event.render(mac.map(|mac| mac.hex()).as_deref(), name));
    }

    /// Tells of an event. Who does not listen misses it.
    pub(super) fn tell_of(&mut self, event: Value) {
        match self.events.len() < super::EVENTS {
            true => self.events.push_back(event),
            false => self.vitals.dropped += 1,
        }
    }

    /// Tells of what happened to a plug of the fleet.
    pub(super) fn tell_all(&mut self, no: PlugNo, events: Vec<Event>) {
        let is_silent = self.fleet.get(no).is_some_and(|plug| plug.silent);
        for event in events.into_iter().filter(|_| !is_silent) {
            if let Event::Renamed { from, .. } = &event {
                self.formerly.insert(from.clone(), no);
            }
            let plug = self.fleet.get(no);
            let (mac, name) = (plug.and_then(|plug| plug.mac), plug.and_then(|plug| plug.name.clone()));
            self.tell(&event, mac, name.as_deref());
        }
    }

    /// A plug has this name from now on. What is left of whoever had it before is its own: the other would clear it.
    pub(super) fn take_name(&mut self, no: PlugNo, name: &str) {
        if let Some(before) = self.formerly.remove(name).filter(|before| *before != no) {
            let is_meant = |topic: &str| self.settings.topics.is_of(topic, name);
            self.projection.hand_over(Owner::Plug(before), Owner::Plug(no), is_meant);
        }
    }

    /// What the program knows of itself, now and then.
    pub fn vitals(&mut self, uptime: Duration, memory: Option<u64>) {
        self.vitals.uptime = uptime.as_secs();
        self.vitals.memory = memory;
        self.health = Some(self.health());
        self.projection.mark(Owner::Bridge, false);
    }

    /// What is known of the whole, for `bridge/health`.
    fn health_of_all(&self) -> overview::Health<'_> {
        overview::health(&self.fleet, self.found.len(), &self.vitals)
    }

    /// The same as it is sent.
    pub(super) fn health(&self) -> Vec<u8> {
        serde_json::to_vec(&self.health_of_all()).expect("health is plain data")
    }

    /// The same as an answer.
    pub(super) fn health_check(&self) -> Value {
        serde_json::to_value(self.health_of_all()).expect("health is plain data")
    }
}
