//! The core: the fleet, what the broker holds of it, and the answers that are due. Everything that happens goes in
//! through one of its methods; orders to plugs and messages to the broker are pulled out. Each step is O(1) in the
//! number of plugs, but for a new session and a birth, which mark them all.

mod commands;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::plug::task::{Order, Report};

use super::birth::{Birth, Step};
use super::fleet::Fleet;
use super::message::Publish;
use super::overview;
use super::plug::{Outcome, PlugNo};
use super::render::{self, Settings};
use super::retained::{Owner, Projection, Retained, Role, Ticket};
use super::spacing::Spacing;

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

    /// The program ends: commands are answered, and the bridge goes offline last.
    pub fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.birth = Birth::None;
        // What is ready was promised to the projection, and is one owner's at most.
        self.projection.unmark_all();
        for (no, command, failure) in self.fleet.drain() {
            self.finish(now, no, &command, Err(failure));
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
            self.finish(now, no, &command, result);
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
