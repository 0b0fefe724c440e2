//! The plug's own clock (`time`, protocol.md 2.2 and 9). It has no battery: after a power cut it is wrong until its
//! vendor's servers set it, which they never do for a plug that is kept from the internet. Then schedules do not run and
//! energy is counted for the wrong days, until somebody in the house sets it.

use std::time::SystemTime;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Deserialize;
use serde_json::{Value, json};

use super::json::{Json, Object};
use super::reply::Method;
use super::zone;

/// Asks for the plug's local time, without its zone.
pub const GET_TIME: Method = ("time", "get_time");

/// Sets clock and zone; needs all seven fields.
pub const SET_TIMEZONE: Method = ("time", "set_timezone");

/// A clock that is off by no more is left alone.
const TOLERANCE_SECONDS: u64 = 120;

/// When the bridge sets plugs' clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    /// When a plug has no cloud that would do it.
    #[default]
    Auto,
    /// Whenever one is wrong.
    Always,
    /// Never.
    Never,
}

/// What a plug's clock ought to show.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// Whether wrong clocks are set.
    pub set: Set,
    /// The zone in which plugs live.
    pub zone: TimeZone,
}

impl Keeper {
    /// Whether a clock that shows `shown` is to be set, given whether the plug has its `cloud`.
    pub fn is_to_set(&self, shown: DateTime, cloud: Option<bool>, now: SystemTime) -> bool {
        let may = match self.set {
            Set::Auto => cloud == Some(false),
            Set::Always => true,
            Set::Never => false,
        };
        let right = self.local(now);
        may && right.is_some_and(|right| {
            let apart = shown.duration_until(right.datetime());
            apart.unsigned_abs().as_secs() > TOLERANCE_SECONDS
        })
    }

    /// The arguments of [`SET_TIMEZONE`] that set a clock right at `now`; `None` beyond the range of calendars.
    pub fn right_time(&self, now: SystemTime) -> Option<Value> {
        let right = self.local(now)?;
        let at = right.timestamp();
        let index = zone::index(&self.zone, at).or_else(|| zone::index_for_now(&self.zone, at))?;
        Some(json!({"year": right.year(), "month": right.month(), "mday": right.day(), "hour": right.hour(),
            "min": right.minute(), "sec": right.second(), "index": index}))
    }

    /// The next moment at which summer time begins or ends.
    pub fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        let now = Timestamp::try_from(now).ok()?;
        self.zone.following(now).next().map(|change| change.timestamp().into())
    }

    /// The local time at `now`.
    pub fn local(&self, now: SystemTime) -> Option<Zoned> {
        Some(Timestamp::try_from(now).ok()?.to_zoned(self.zone.clone()))
    }
}

/// The object under `time.get_time`; `None` when it is no time.
pub fn parse(time: &Object) -> Option<DateTime> {
    let field = |key: &str| time.get(key).and_then(Json::as_i64).and_then(|number| i8::try_from(number).ok());
    let year = time.get("year").and_then(Json::as_i64).and_then(|year| i16::try_from(year).ok())?;
    DateTime::new(year, field("month")?, field("mday")?, field("hour")?, field("min")?, field("sec")?, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn keeper(set: Set) -> Keeper {
        Keeper { set, zone: TimeZone::get("Europe/Berlin").unwrap() }
    }

    fn shown(json: &str) -> Option<DateTime> {
        parse(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_clock_is_read() {
        let time = r#"{"year":2021,"month":9,"mday":9,"hour":21,"min":9,"sec":42,"err_code":0}"#;
        assert_eq!(shown(time), Some("2021-09-09T21:09:42".parse().unwrap()));
        for rubbish in [
            "{}",
            r#"{"year":2021,"month":13,"mday":9,"hour":21,"min":9,"sec":42}"#,
            r#"{"year":99999999,"month":1,"mday":9,"hour":21,"min":9,"sec":42}"#,
            r#"{"year":"2021","month":1,"mday":9,"hour":21,"min":9,"sec":42}"#,
        ] {
            assert_eq!(shown(rubbish), None, "{rubbish}");
        }
    }

    #[test]
    fn only_a_wrong_clock_without_its_cloud_is_set() {
        let now = moment("2026-11-23T12:00:00Z");
        let right: DateTime = "2026-11-23T13:00:00".parse().unwrap();
        let near: DateTime = "2026-11-23T13:02:00".parse().unwrap();
        let wrong: DateTime = "2026-11-23T12:57:59".parse().unwrap();
        let unset: DateTime = "2000-01-01T00:03:00".parse().unwrap();
        for (set, cloud, clock, expected) in [
            (Set::Auto, Some(false), wrong, true),
            (Set::Auto, Some(false), unset, true),
            (Set::Auto, Some(false), near, false),
            (Set::Auto, Some(false), right, false),
            (Set::Auto, Some(true), wrong, false),
            (Set::Auto, None, wrong, false),
            (Set::Always, Some(true), wrong, true),
            (Set::Always, None, wrong, true),
            (Set::Never, Some(false), wrong, false),
        ] {
            assert_eq!(keeper(set).is_to_set(clock, cloud, now), expected, "{set:?} {cloud:?} {clock}");
        }
    }

    #[test]
    fn all_seven_fields_are_sent() {
        let expected =
            json!({"year": 2026, "month": 11, "mday": 23, "hour": 13, "min": 0, "sec": 5, "index": 41});
        assert_eq!(keeper(Set::Auto).right_time(moment("2026-11-23T12:00:05Z")), Some(expected));
    }

    #[test]
    fn summer_time_ends_when_it_does() {
        let before = moment("2026-10-01T00:00:00Z");
        assert_eq!(keeper(Set::Auto).next_change(before), Some(moment("2026-10-25T01:00:00Z")));
        let utc = Keeper { set: Set::Auto, zone: TimeZone::UTC };
        assert_eq!(utc.next_change(before), None);
    }
}
