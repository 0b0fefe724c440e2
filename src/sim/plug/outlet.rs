//! What switches: the one relay of a plug, or one of a strip's.

use std::time::Duration;

use super::super::clock::Clock;
use super::super::energy::Meter;
use super::super::json::{Fields, Json, put};
use super::rules::Timer;

/// One outlet.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// What a strip says of it; empty for the one outlet of a plug.
    template: Fields,
    pub(super) alias: String,
    pub(super) relay: bool,
    /// Seconds since 1970 at which it was switched on. After now on plugs that say so (protocol.md 3.1: -32407).
    since: i64,
    /// What it says while off: nonsense, on some (protocol.md 3.1).
    off_time: i64,
    pub(super) meter: Meter,
    /// What a dump says of the meter, instead of the meter.
    pub(super) shown: Option<Fields>,
    pub(super) timer: Option<Timer>,
    commands: u64,
}

impl Outlet {
    /// An outlet that is off, with a load of `load` mW at `mains` mV and `total` Wh on its counter.
    pub(super) fn new(load: u64, mains: u64, total: u64) -> Outlet {
        Outlet {
            template: Fields::new(),
            alias: String::new(),
            relay: false,
            since: 0,
            off_time: 0,
            meter: Meter::new(load, mains, total),
            shown: None,
            timer: None,
            commands: 0,
        }
    }

    pub(super) fn called(self, alias: &str) -> Outlet {
        Outlet { alias: alias.into(), ..self }
    }

    /// The outlet of a strip that says this of it.
    pub(super) fn of_strip(self, child: &Fields) -> Outlet {
        let alias = super::text(child, "alias");
        Outlet { template: child.clone(), alias, ..self }
    }

    /// As a dump of `now` says.
    pub(super) fn recorded(mut self, on: bool, on_time: i64, now: Duration) -> Outlet {
        self.relay = on;
        self.since = seconds(now).saturating_sub(on_time);
        self.off_time = if on { 0 } else { on_time };
        self
    }

    /// Its id within the strip, of 42 characters; `None` for a plug.
    pub fn id(&self) -> Option<&str> {
        self.template.iter().find(|(key, _)| key == "id").and_then(|(_, id)| id.as_text())
    }

    /// What its owner calls it.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// Whether it is closed.
    pub fn relay(&self) -> bool {
        self.relay
    }

    /// How many commands its relay got.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// How long until the timer switches; `None` without one that runs.
    pub fn remaining(&self, now: Duration) -> Option<Duration> {
        self.timer.as_ref()?.due(now).map(|due| due.saturating_sub(now))
    }

    pub(super) fn command(&mut self, on: bool, now: Duration, clock: &Clock) {
        self.commands += 1;
        self.switch(on, now, clock);
    }

    pub(super) fn switch(&mut self, on: bool, now: Duration, clock: &Clock) {
        self.meter.count(self.relay, now, clock);
        if on != self.relay {
            self.relay = on;
            self.since = seconds(now);
            self.off_time = 0;
        }
    }

    pub(super) fn advance(&mut self, now: Duration, clock: &Clock) {
        if let Some(timer) = &mut self.timer
            && let Some(due) = timer.expire(now)
        {
            let on = timer.act;
            self.switch(on, due, clock);
        }
        self.meter.count(self.relay, now, clock);
    }

    pub(super) fn next_event(&self) -> Option<Duration> {
        self.timer.as_ref().and_then(Timer::ends)
    }

    pub(super) fn restart(&mut self, now: Duration) {
        self.since = seconds(now);
        self.timer = None;
    }

    /// Seconds since it was switched on, or what it says instead.
    pub(super) fn on_time(&self, now: Duration) -> i64 {
        if self.relay { seconds(now).saturating_sub(self.since) } else { self.off_time }
    }

    /// What a strip says of it.
    pub(super) fn as_child(&self, now: Duration, clock: &Clock) -> Json {
        let mut child = self.template.clone();
        put(&mut child, "state", self.relay.into());
        put(&mut child, "alias", self.alias.as_str().into());
        put(&mut child, "on_time", self.on_time(now).into());
        if let Some(action) = self.next_action("schd_sec", now, clock) {
            put(&mut child, "next_action", Json::Object(action));
        }
        Json::Object(child)
    }

    /// What the timer will do, where one runs; the moment's name differs by place (protocol.md 2.4).
    pub(super) fn next_action(&self, moment: &str, now: Duration, clock: &Clock) -> Option<Fields> {
        let timer = self.timer.as_ref()?;
        let due = timer.due(now)?;
        Some(vec![
            ("type".into(), Json::Int(2)),
            ("id".into(), timer.id.as_str().into()),
            (moment.into(), clock.second_of_day(due).into()),
            ("action".into(), timer.act.into()),
        ])
    }
}

pub(super) fn seconds(now: Duration) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
