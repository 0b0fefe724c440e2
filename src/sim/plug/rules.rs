//! What a device does by itself: the timer that moves a relay, and the schedules that nobody has made (protocol.md 2.4).

use std::time::Duration;

use super::super::energy::Day;
use super::super::json::{Fields, Json, fields};
use super::call::{Call, INVALID, NO_ENTRY, NO_METHOD, Outcome, Refusal};
use super::{SimPlug, emeter};

const TABLE_FULL: Refusal = Refusal(-10, "table is full");
const NO_TIME: Refusal = Refusal(-11, "time not sync");

/// The one rule that `count_down` holds.
#[derive(Debug, Clone)]
pub(super) struct Timer {
    pub id: String,
    name: String,
    enabled: bool,
    delay: u64,
    pub act: bool,
    started: Duration,
}

impl Timer {
    /// When it ends, if it runs.
    pub fn ends(&self) -> Option<Duration> {
        self.enabled.then(|| self.started + Duration::from_secs(self.delay))
    }

    /// When it ends, if that is still to come.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        self.ends().filter(|due| *due > now)
    }

    /// When it ended, once. The rule stays in the table.
    pub fn expire(&mut self, now: Duration) -> Option<Duration> {
        let ended = self.ends().filter(|due| *due <= now)?;
        self.enabled = false;
        Some(ended)
    }

    fn told(call: &Call<'_>, id: String) -> Result<Timer, Refusal> {
        let delay = u64::try_from(call.within("delay", 0..=86_400 * 366)?).map_err(|_| INVALID)?;
        let (name, enabled, act) = (call.text("name")?.to_owned(), call.bit("enable")?, call.bit("act")?);
        Ok(Timer { id, name, enabled, delay, act, started: call.now })
    }

    fn as_rule(&self, now: Duration) -> Json {
        // It counts whole seconds down.
        let remain = self.due(now).map_or(0, |due| (due - now).as_millis().div_ceil(1000) as u64);
        Json::object([
            ("id", self.id.as_str().into()),
            ("name", self.name.as_str().into()),
            ("enable", self.enabled.into()),
            ("delay", whole(self.delay)),
            ("act", self.act.into()),
            ("remain", whole(remain)),
        ])
    }
}

pub(super) fn count_down(plug: &mut SimPlug, call: &Call<'_>) -> Outcome {
    let timer = &mut plug.outlets[call.outlet()].timer;
    match call.method {
        "get_rules" => {
            let rules = timer.iter().map(|timer| timer.as_rule(call.now));
            Ok(fields([("rule_list", Json::List(rules.collect()))]))
        }
        "add_rule" if timer.is_some() => Err(TABLE_FULL),
        "add_rule" => {
            let id = format!("{:032X}", call.now.as_nanos());
            *timer = Some(Timer::told(call, id.clone())?);
            Ok(fields([("id", id.into())]))
        }
        "edit_rule" => {
            let old = timer.as_mut().filter(|timer| call.text("id") == Ok(&timer.id)).ok_or(NO_ENTRY)?;
            *old = Timer::told(call, old.id.clone())?;
            Ok(Fields::new())
        }
        "delete_rule" => {
            let deleted = timer.take_if(|timer| call.text("id") == Ok(&timer.id));
            deleted.map(|_| Fields::new()).ok_or(NO_ENTRY)
        }
        "delete_all_rules" => {
            *timer = None;
            Ok(Fields::new())
        }
        _ => Err(NO_METHOD),
    }
}

/// Nobody has made a schedule, but minutes are counted, and the next action may be a timer's.
pub(super) fn schedule(plug: &mut SimPlug, call: &Call<'_>) -> Outcome {
    let outlet = &plug.outlets[call.outlet()];
    let minutes = |day: &Day| ("time", whole(day.on.as_secs() / 60));
    match call.method {
        "get_rules" => Ok(no_rules(1)),
        "get_next_action" if !plug.clock.is_set => Err(NO_TIME),
        "get_next_action" => {
            let timer = outlet.next_action("schd_time", call.now, &plug.clock);
            let planned = timer.or_else(|| plug.recorded("schedule", call.method));
            Ok(planned.unwrap_or_else(|| fields([("type", Json::Int(-1))])))
        }
        "get_daystat" => emeter::days(outlet, call, minutes),
        "get_monthstat" => emeter::months(outlet, call, minutes),
        _ => Err(NO_METHOD),
    }
}

pub(super) fn anti_theft(call: &Call<'_>) -> Outcome {
    match call.method {
        "get_rules" => Ok(no_rules(0)),
        _ => Err(NO_METHOD),
    }
}

fn no_rules(enabled: i64) -> Fields {
    fields([("rule_list", Json::List(Vec::new())), ("version", Json::Int(2)), ("enable", Json::Int(enabled))])
}

fn whole(value: u64) -> Json {
    Json::Int(i64::try_from(value).unwrap_or(i64::MAX))
}
