//! The core: the fleet, what the broker holds of it, and the answers that are due. Everything that happens goes in
//! through one of its methods; orders to plugs and messages to the broker are pulled out. Each step is O(1) in the
//! number of plugs, but for a new session and a birth, which mark them all.

mod commands;
mod onlookers;
mod roster;
mod shards;
mod speech;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::plug::mac::Mac;
use crate::plug::task::{Order, Report};

use super::birth::{Birth, Step};
use super::fleet::{self, Fleet};
use super::memory::Memory;
use super::message::Publish;
use super::overview::{self, Vitals};
use super::plug::{Outcome, PlugNo};
use super::render::Settings;
use super::retained::{Owner, Projection, Role, Ticket};
use super::retirement::Retirement;
use super::search::Search;
use super::spacing::Spacing;
use super::view::Changed;

pub use onlookers::{Unknown, Wanted};
pub use roster::Wish;

use shards::Shards;

/// The list of all plugs is rendered at most once in this time for every hundred plugs.
const DEVICES_APART: Duration = Duration::from_secs(1);

/// Events that wait for the broker; what happens beyond is not told.
const EVENTS: usize = 1000;

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
    events: VecDeque<Value>,
    orders: VecDeque<(PlugNo, Order)>,
    wishes: VecDeque<Wish>,
    /// What an earlier bridge left, until the first session is open.
    memory: Option<Memory>,
    /// Plugs that were removed, and when the last of their topics go.
    leaving: VecDeque<(Instant, PlugNo)>,
    /// Who had a name before: some topics of that name may still be its.
    formerly: HashMap<String, PlugNo>,
    retirement: Retirement,
    search: Search,
    /// Everybody whom searches have found so far.
    found: BTreeSet<Mac>,
    /// Those who wait for a search to end.
    searchers: Vec<Option<Value>>,
    /// Plugs that somebody removed: searches find them in vain.
    removed: HashSet<Mac>,
    /// It was explained why searches find nothing.
    explained: bool,
    vitals: Vitals,
    spacing: Spacing,
    birth: Birth,
    /// The list of all plugs has changed, and is to be sent then.
    devices_at: Option<Instant>,
    devices: Option<Vec<u8>>,
    health: Option<Vec<u8>>,
    /// What each plug's discovery was last rendered from, once the broker holds it.
    described: HashMap<PlugNo, u64>,
    last_command: u64,
    warned: HashSet<String>,
    /// For somebody who looks on, if there is one.
    changed: Option<Changed>,
    /// Results of commands that did not come from the broker.
    results: VecDeque<(u64, Vec<u8>)>,
    /// Where several bridges share the plugs.
    shards: Option<Shards>,
    /// When the broker was last heard of.
    heard_at: Instant,
}

impl Core {
    /// A core without plugs or broker.
    pub fn new(settings: Settings, now: Instant) -> Core {
        let fleet = fleet::Settings {
            heartbeat: settings.heartbeat,
            ttl: settings.command_ttl,
            follow_alias: settings.follow_alias,
            sharded: settings.topics.shard().is_some(),
        };
        Core {
            fleet: Fleet::new(fleet),
            search: Search::new(settings.search, now),
            shards: settings.topics.shard().map(Shards::new),
            heard_at: now,
            settings,
            projection: Projection::default(),
            connected: false,
            stopping: false,
            restart_requested: false,
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            events: VecDeque::new(),
            orders: VecDeque::new(),
            wishes: VecDeque::new(),
            memory: Some(Memory::default()),
            leaving: VecDeque::new(),
            formerly: HashMap::new(),
            retirement: Retirement::default(),
            found: BTreeSet::new(),
            searchers: Vec::new(),
            removed: HashSet::new(),
            explained: false,
            vitals: Vitals::default(),
            spacing: Spacing::default(),
            birth: Birth::None,
            devices_at: None,
            devices: None,
            health: None,
            described: HashMap::new(),
            last_command: 0,
            warned: HashSet::new(),
            changed: None,
            results: VecDeque::new(),
        }
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

    /// The broker accepted a new session and our subscriptions: it holds nothing of ours. `wall` is what the clock, which
    /// anybody may set, shows at `now`.
    pub fn session_opened(&mut self, now: Instant, wall: SystemTime) {
        self.connected = true;
        self.ready.clear();
        self.projection.forget_all();
        self.spacing = Spacing::default();
        self.birth = Birth::None;
        self.vitals.sessions += 1;
        self.tell_of_absence(now, wall);
        self.recall(now);
        self.devices_at = Some(now);
        self.mark_all();
    }

    /// The broker is gone. Polling goes on; what changes meanwhile is a mark, not a queue.
    pub fn session_lost(&mut self) {
        self.connected = false;
        self.ready.clear();
    }

    /// The program stood still, perhaps by a clock that no deadline knows of: what waits is too old now.
    pub fn stood_still(&mut self, now: Instant) {
        for (no, command, failure) in self.fleet.expire() {
            self.finish(now, no, &command, Err(failure));
        }
    }

    /// The program started at `at`.
    pub fn began(&mut self, at: Instant) {
        self.heard_at = at;
    }

    /// Something came from the broker.
    pub fn heard(&mut self, at: Instant) {
        if self.connected {
            self.heard_at = at;
        }
    }

    /// The broker has taken a message.
    pub fn acknowledged(&mut self, ticket: Ticket) {
        self.vitals.acknowledged += 1;
        self.projection.acknowledged(ticket);
    }

    /// A plug's task reported.
    pub fn report(&mut self, now: Instant, report: Report<PlugNo>) {
        let no = report.plug;
        if self.is_of_another(now, &report) {
            return;
        }
        let outcome = self.fleet.report(report);
        self.follow(now, no, outcome);
    }

    /// The program ends: commands are answered, and the bridge goes offline last.
    pub fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.birth = Birth::None;
        // What is ready was promised to the projection, and is one owner's at most.
        self.projection.unmark_all();
        // The memory of whoever comes next.
        self.devices = Some(overview::devices(&self.fleet));
        for (no, command, failure) in self.fleet.drain() {
            self.finish(now, no, &command, Err(failure));
        }
        self.projection.mark(Owner::Bridge, false);
    }

    /// Whether a message would come from [`Core::next_publish`], as far as can be told without rendering.
    pub fn has_something_to_say(&self) -> bool {
        let quiet = self.ready.is_empty()
            && self.answers.is_empty()
            && self.events.is_empty()
            && self.projection.is_clean();
        self.connected && (!quiet || self.birth.is_announcing())
    }

    /// Whether, after [`Core::stop`], the broker has everything that it is to have.
    pub fn has_said_all(&self) -> bool {
        !self.connected || !(self.has_something_to_say() || self.projection.is_on_its_way(Owner::Bridge))
    }

    /// When [`Core::wake`] is to be called, if nothing happens before.
    pub fn wake_at(&self) -> Option<Instant> {
        let leaves = self.leaving.front().map(|(at, _)| *at);
        let told = [self.birth.due_at(), self.spacing.due_at(), self.devices_at, leaves];
        let told = told.into_iter().flatten().min().filter(|_| self.connected);
        [told, self.search.due_at()].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn wake(&mut self, now: Instant) {
        if self.search.begin(now) {
            self.wishes.push_back(Wish::Search);
        }
        if !self.connected {
            return;
        }
        while let Some((_, no)) = self.leaving.pop_front_if(|(at, _)| *at <= now) {
            self.projection.mark(Owner::Plug(no), false);
        }
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
            self.devices = Some(overview::devices(&self.fleet));
            self.health = Some(self.health());
            self.projection.mark(Owner::Bridge, false);
            self.tell_of_disagreement();
        }
    }

    fn follow(&mut self, now: Instant, no: PlugNo, outcome: Outcome) {
        self.show(no);
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
        if let Some(absorbed) = outcome.absorbed {
            self.projection.merge(Owner::Plug(absorbed), Owner::Plug(no));
            self.wishes.push_back(Wish::End(absorbed));
            self.show(absorbed);
        }
        if let Some(newly) = outcome.missing {
            self.search.missing(newly, now);
        }
        self.tell_all(no, outcome.events);
        if let Some((other, event)) = outcome.also {
            self.tell_all(other, vec![event]);
            self.projection.mark(Owner::Plug(other), false);
            self.show(other);
        }
        if let Some(name) = outcome.named {
            self.take_name(no, &name);
        }
        if outcome.listed {
            self.list(now);
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
        self.show_all();
        self.projection.mark(Owner::Bridge, false);
        for (no, _) in self.fleet.plugs() {
            self.projection.mark(Owner::Plug(no), false);
        }
        // Those who have left, and whose last topics the broker may still hold.
        for owner in self.projection.owners() {
            self.projection.mark(owner, false);
        }
    }
}

#[cfg(test)]
mod tests;
