//! The plug's own timer (`count_down`, protocol.md 2.4) and its own schedule's next action.

use std::time::{Duration, SystemTime};

use super::json::{Json, Object};
use super::reply::Method;

/// `count_down.get_rules`. The module holds one rule.
pub const GET_RULES: Method = ("count_down", "get_rules");

/// A running timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// What it does: switch on, or off.
    pub switches_on: bool,
    /// When.
    pub at: SystemTime,
    /// How long that was from when the reading was taken, in whole seconds.
    pub remaining: Duration,
}

/// What the plug's own schedule does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextAction {
    /// What it does: switch on, or off.
    pub switches_on: bool,
    /// When, in seconds after midnight by the plug's own clock.
    pub second_of_day: u32,
}

impl Timer {
    /// A timer that ends in `remaining`.
    pub fn ending_in(remaining: Duration, switches_on: bool, now: SystemTime) -> Timer {
        Timer { switches_on, at: whole_seconds(now) + remaining, remaining }
    }

    /// The running rule in the object under `count_down.get_rules`, if there is one.
    pub fn parse(rules: &Object, now: SystemTime) -> Option<Timer> {
        let rules = rules.get("rule_list")?.as_array()?;
        rules.iter().find_map(|rule| {
            let number = |key: &str| rule.get(key).and_then(Json::as_u64);
            let remaining = number("remain").filter(|seconds| (1..=u64::from(u32::MAX)).contains(seconds))?;
            let switches_on = rule.get("act").and_then(Json::as_bit)?;
            (number("enable") == Some(1))
                .then(|| Timer::ending_in(Duration::from_secs(remaining), switches_on, now))
        })
    }

    /// The same timer at `now`; `None` once it has ended.
    pub fn at(mut self, now: SystemTime) -> Option<Timer> {
        let remaining = self.at.duration_since(now).ok().filter(|remaining| !remaining.is_zero())?;
        self.remaining = Duration::from_secs(remaining.as_secs_f64().ceil() as u64);
        Some(self)
    }
}

impl NextAction {
    /// From the object `next_action` of sysinfo, or under `schedule.get_next_action`, whose keys differ. Only type 1
    /// is the schedule; type 2 is the timer.
    pub fn parse(object: &Object) -> Option<NextAction> {
        let number = |key: &str| object.get(key).and_then(Json::as_u64);
        let second = number("schd_sec").or_else(|| number("schd_time"))?;
        let switches_on = object.get("action").and_then(Json::as_bit)?;
        let second_of_day = u32::try_from(second).ok().filter(|second| *second < 86_400)?;
        (number("type") == Some(1)).then_some(NextAction { switches_on, second_of_day })
    }
}

/// Whether `next_action` of sysinfo speaks of the timer.
pub fn is_timer(next_action: &Object) -> bool {
    next_action.get("type").and_then(Json::as_u64) == Some(2)
}

/// Clocks of plugs know no fractions.
pub fn whole_seconds(moment: SystemTime) -> SystemTime {
    let since_epoch = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn object(json: &str) -> Object {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_running_rule_is_a_timer() {
        let rules = object(
            r#"{"rule_list":[{"id":"7C90","name":"turn on","enable":1,"delay":1800,"act":1,"remain":42}],"err_code":0}"#,
        );
        let timer = Timer::parse(&rules, NOW).unwrap();
        assert_eq!(
            timer,
            Timer {
                switches_on: true,
                at: NOW + Duration::from_secs(42),
                remaining: Duration::from_secs(42)
            }
        );
        assert_eq!(timer.at(NOW + Duration::from_secs(40)).unwrap().remaining, Duration::from_secs(2));
        assert_eq!(timer.at(NOW + Duration::from_secs(42)), None);
        for nothing in [
            r#"{"rule_list":[]}"#,
            r#"{}"#,
            r#"{"rule_list":[{"enable":0,"act":1,"remain":42}]}"#,
            r#"{"rule_list":[{"enable":1,"act":1,"remain":0}]}"#,
            r#"{"rule_list":[{"enable":1,"act":1,"remain":1e30}]}"#,
            r#"{"rule_list":[{"enable":1,"act":7,"remain":42}, 5, null]}"#,
        ] {
            assert_eq!(Timer::parse(&object(nothing), NOW), None, "{nothing}");
        }
    }

    #[test]
    fn the_schedules_next_action_in_both_spellings() {
        let evening = Some(NextAction { switches_on: false, second_of_day: 74_700 });
        for (json, expected) in [
            (r#"{"type":1,"id":"68","schd_sec":74700,"action":0}"#, evening),
            (r#"{"type":1,"id":"68","schd_time":74700,"action":0,"err_code":0}"#, evening),
            (r#"{"type":2,"id":"07","schd_sec":68927,"action":1}"#, None),
            (r#"{"type":-1}"#, None),
            (r#"{"type":1,"schd_sec":86400,"action":0}"#, None),
            (r#"{"type":1,"schd_sec":-5,"action":0}"#, None),
        ] {
            assert_eq!(NextAction::parse(&object(json)), expected, "{json}");
        }
        assert!(is_timer(&object(r#"{"type":2}"#)) && !is_timer(&object(r#"{"type":-1}"#)));
    }
}
