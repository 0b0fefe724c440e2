//! The core: the fleet, what the broker holds of it, and the answers that are due. Everything that happens goes in
//! through one of its methods; orders to plugs and messages to the broker are pulled out. Each step is O(1) in the
//! number of plugs, but for a new session and a birth, which mark them all.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::plug::task::{Order, Report};

use super::birth::{Birth, Step};
use super::command::{self, Rejected};
use super::fleet::Fleet;
use super::message::{Message, Publish};
use super::overview;
use super::plug::{Outcome, PlugNo};
use super::queue::Pending;
use super::render::{self, Settings};
use super::request;
use super::result::{self, Failure};
use super::retained::{Owner, Projection, Retained, Role, Ticket};
use super::spacing::Spacing;
use super::topics::Incoming;

/// Answers kept for a broker that is away or slow; beyond it the oldest go.
const ANSWERS: usize = 4096;

/// Command topics remembered for warning once.
const WARNED_TOPICS: usize = 256;

/// The list of all plugs is rendered at most once in this time for every hundred plugs.
const DEVICES_APART: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    fleet: Fleet,
    projection: Projection,
    connected: bool,
    stopping: bool,
    restart_requested: bool,
    /// Handed out next, in this order.
    ready: VecDeque<Publish>,
    answers: VecDeque<Publish>,
    orders: VecDeque<(PlugNo, Order)>,
    spacing: Spacing,
    birth: Birth,
    /// The list of all plugs has changed, and is to be sent then.
    devices_at: Option<Instant>,
    devices: Option<Vec<u8>>,
    last_command: u64,
    warned: HashSet<String>,
}

impl Core {
    /// A core without plugs or broker.
    pub fn new(settings: Settings) -> Core {
        Core {
            fleet: Fleet::new(settings.heartbeat, settings.command_ttl),
            settings,
            projection: Projection::default(),
            connected: false,
            stopping: false,
            restart_requested: false,
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            orders: VecDeque::new(),
            spacing: Spacing::default(),
            birth: Birth::None,
            devices_at: None,
            devices: None,
            last_command: 0,
            warned: HashSet::new(),
        }
    }

    /// Adds a plug.
    pub fn add_plug(&mut self, address: String, name: Option<String>) -> PlugNo {
        self.fleet.add(address, name)
    }

    /// All plugs.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Whether somebody asked for a restart.
    pub fn restart_requested(&self) -> bool {
        self.restart_requested
    }

    /// Orders that are to be sent to plugs' tasks; at most one is on its way to each.
    pub fn next_order(&mut self) -> Option<(PlugNo, Order)> {
        self.orders.pop_front()
    }

    /// The broker accepted a new session and our subscriptions: it holds nothing of ours.
    pub fn session_opened(&mut self, now: Instant) {
        self.connected = true;
        self.ready.clear();
        self.projection.forget_all();
        self.spacing = Spacing::default();
        self.birth = Birth::None;
        self.devices_at = Some(now);
        self.mark_all();
    }

    /// The broker is gone. Polling goes on; what changes meanwhile is a mark, not a queue.
    pub fn session_lost(&mut self) {
        self.connected = false;
        self.ready.clear();
    }

    /// The broker has taken a message.
    pub fn acknowledged(&mut self, ticket: Ticket) {
        self.projection.acknowledged(ticket);
    }

    /// A plug's task reported.
    pub fn report(&mut self, now: Instant, report: Report<PlugNo>) {
        let no = report.plug;
        let outcome = self.fleet.report(report);
        self.follow(now, no, outcome);
    }

    /// A message arrived on one of [`filters`](crate::bridge::topics::Topics::filters). `delay` is how long to let
    /// Home Assistant settle after a birth.
    pub fn message(&mut self, now: Instant, message: Message, delay: Duration) {
        match self.settings.topics.parse(&message.topic) {
            // Its retained birth may be a year old, and a new session has announced everything anyway.
            Some(Incoming::HomeAssistant) if !message.retain && message.payload == b"online" => {
                info!("Home Assistant started; everything is announced again in {delay:?}");
                self.birth = Birth::heard(now, delay);
            }
            Some(Incoming::HomeAssistant) | None => {}
            Some(_) if message.retain => self.refuse_retained(&message),
            Some(Incoming::Request(request)) => self.request(request, &message.payload),
            Some(Incoming::Command { plug, verb }) => match self.fleet.find(plug) {
                None => self.warn_once(&message.topic, "command for a plug that is not known here"),
                Some(no) => match command::parse(verb, &message.payload) {
                    Ok(None) => {}
                    Ok(Some(command)) => {
                        self.last_command += 1;
                        let pending = Pending {
                            id: self.last_command,
                            verb: verb.text(),
                            actions: command.actions,
                            received: message.received,
                            transaction: command.transaction,
                        };
                        let outcome = self.fleet.command(no, pending);
                        self.follow(now, no, outcome);
                    }
                    Err(Rejected { failure, transaction }) => {
                        debug!(topic = message.topic, error = failure.message, "command refused");
                        let took = now.saturating_duration_since(message.received);
                        self.answer(
                            no,
                            result::render(&verb.text(), Some(&failure), took, transaction.as_ref()),
                        );
                        // Whoever believes to have switched sees it snap back.
                        self.projection.forget(Owner::Plug(no), Role::State);
                        self.projection.mark(Owner::Plug(no), true);
                    }
                },
            },
        }
    }

    /// The program ends: commands are answered, and the bridge goes offline last.
    pub fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.birth = Birth::None;
        // What is ready was promised to the projection, and is one owner's at most.
        self.projection.unmark_all();
        for (no, command, failure) in self.fleet.drain() {
            self.finish(now, no, &command, Some(&failure));
        }
        self.projection.mark(Owner::Bridge, false);
    }

    /// Whether a message would come from [`Core::next_publish`], as far as can be told without rendering.
    pub fn has_something_to_say(&self) -> bool {
        let quiet = self.ready.is_empty() && self.answers.is_empty() && self.projection.is_clean();
        self.connected && (!quiet || self.birth.is_announcing())
    }

    /// Whether, after [`Core::stop`], the broker has everything that it is to have.
    pub fn has_said_all(&self) -> bool {
        !self.connected || !(self.has_something_to_say() || self.projection.is_on_its_way(Owner::Bridge))
    }

    /// When [`Core::wake`] is to be called, if nothing happens before.
    pub fn wake_at(&self) -> Option<Instant> {
        [self.birth.due_at(), self.spacing.due_at(), self.devices_at]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| self.connected)
    }

    /// Does what is due at `now`.
    pub fn wake(&mut self, now: Instant) {
        while let Some(no) = self.spacing.step(now) {
            self.projection.mark(Owner::Plug(no), false);
        }
        match self.birth.step(now) {
            Some(Step::Announce) => {
                self.forget_everywhere(&[Role::Discovery]);
                self.projection.forget(Owner::Bridge, Role::Availability);
            }
            Some(Step::States) => self.forget_everywhere(&[Role::Availability, Role::State]),
            None => {}
        }
        if self.devices_at.is_some_and(|at| at <= now) {
            self.devices_at = None;
            let devices = overview::devices(&self.fleet);
            self.devices = Some(devices.to_string().into_bytes());
            self.projection.mark(Owner::Bridge, false);
        }
    }

    /// The next message for the broker: answers first, then what changed for somebody who waits, then the rest.
    pub fn next_publish(&mut self, now: Instant) -> Option<Publish> {
        if !self.connected {
            return None;
        }
        loop {
            if let Some(publish) = self.answers.pop_front().or_else(|| self.ready.pop_front()) {
                return Some(publish);
            }
            let Some(owner) = self.projection.next_dirty() else {
                self.birth.announced(now);
                return None;
            };
            let wanted = match owner {
                Owner::Bridge => render::bridge(&self.settings, self.devices.as_deref(), self.stopping),
                Owner::Plug(no) => render::plug(&self.settings, self.fleet.plug(no)),
            };
            let hold_back = matches!(owner, Owner::Plug(no) if self.spacing.holds(no));
            for (ticket, retained) in
                self.projection.diff(owner, wanted, hold_back.then_some(Role::Discovery))
            {
                if let (Owner::Plug(no), Role::Discovery) = (owner, retained.role) {
                    self.spacing.announced(no, now);
                }
                let Retained { topic, payload, .. } = retained;
                self.ready.push_back(Publish { ticket, topic, payload, retain: true });
            }
        }
    }

    fn follow(&mut self, now: Instant, no: PlugNo, outcome: Outcome) {
        let commanded = !outcome.ended.is_empty();
        for (command, result) in outcome.ended {
            self.finish(now, no, &command, result.as_ref().err());
        }
        self.orders.extend(outcome.order.map(|order| (no, order)));
        if outcome.again {
            self.projection.forget(Owner::Plug(no), Role::State);
        }
        if outcome.changed {
            self.projection.mark(Owner::Plug(no), commanded);
        }
        if outcome.listed && self.devices_at.is_none() {
            let hundreds = u32::try_from(self.fleet.len() / 100).unwrap_or(u32::MAX);
            self.devices_at = Some(now + DEVICES_APART.saturating_mul(hundreds.saturating_add(1)));
        }
    }

    fn finish(&mut self, now: Instant, no: PlugNo, command: &Pending, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            debug!(
                plug = self.fleet.plug(no).name,
                command = command.verb,
                error = failure.message,
                "command failed"
            );
        }
        let took = now.saturating_duration_since(command.received);
        self.answer(no, result::render(&command.verb, failure, took, command.transaction.as_ref()));
    }

    fn answer(&mut self, no: PlugNo, payload: Vec<u8>) {
        if let Some(name) = &self.fleet.plug(no).name {
            let topic = self.settings.topics.result(name);
            self.say(topic, payload);
        }
    }

    fn say(&mut self, topic: String, payload: Vec<u8>) {
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
            warn!("more answers than the broker takes; the oldest are dropped");
        }
        self.answers.push_back(Publish { ticket: Ticket(0), topic, payload, retain: false });
    }

    fn request(&mut self, request: &str, payload: &[u8]) {
        let answer = request::answer(request, payload);
        if answer.restart {
            info!("restart requested");
            self.restart_requested = true;
        }
        self.say(self.settings.topics.bridge(answer.topic), answer.payload);
    }

    fn refuse_retained(&mut self, message: &Message) {
        // An empty retained message is how one is cleared.
        if !message.payload.is_empty() {
            self.warn_once(
                &message.topic,
                "retained command ignored: it would be obeyed at every restart; clear it with an empty retained message",
            );
        }
    }

    fn warn_once(&mut self, topic: &str, why: &str) {
        if self.warned.len() < WARNED_TOPICS && self.warned.insert(topic.to_string()) {
            warn!(topic, "{why}");
        }
    }

    fn forget_everywhere(&mut self, roles: &[Role]) {
        for role in roles {
            self.projection.forget(Owner::Bridge, *role);
            for (no, _) in self.fleet.plugs() {
                self.projection.forget(Owner::Plug(no), *role);
            }
        }
        self.mark_all();
    }

    fn mark_all(&mut self) {
        self.projection.mark(Owner::Bridge, false);
        for (no, _) in self.fleet.plugs() {
            self.projection.mark(Owner::Plug(no), false);
        }
    }
}

#[cfg(test)]
mod tests;
