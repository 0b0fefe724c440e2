//! A plug's own clock: local time without a zone, set over the network, lost without power (protocol.md 2.2, 9).

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, ToSpan};

/// What a clock shows that nobody has set since the plug got its power.
const BIRTH: i64 = 946_684_800;

const DAY: i64 = 86_400;

/// Where the plug believes to be in time. It knows no summer time: what it was told goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// Seconds that it is ahead of UTC, by zone or by error.
    ahead: i64,
    /// Whether it was set since the plug got its power.
    pub is_set: bool,
    /// The firmware's number of the zone, 0 to 109.
    pub zone: i64,
}

impl Default for Clock {
    /// A clock that shows UTC under its zone's number.
    fn default() -> Clock {
        Clock { ahead: 0, is_set: true, zone: 38 }
    }
}

impl Clock {
    /// The plug got its power at `now`, and nobody told it the time.
    pub fn lose(&mut self, now: Duration) {
        self.ahead = BIRTH - seconds(now);
        self.is_set = false;
    }

    /// Makes the clock show this moment.
    pub fn set(&mut self, now: Duration, shown: DateTime) {
        self.ahead = since_1970(shown) - seconds(now);
        self.is_set = true;
    }

    /// What it shows at `now`.
    pub fn show(&self, now: Duration) -> DateTime {
        let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
        epoch.saturating_add((seconds(now) + self.ahead).seconds())
    }

    /// The plug's day.
    pub fn date(&self, now: Duration) -> Date {
        self.show(now).date()
    }

    /// Seconds since the plug's midnight.
    pub fn second_of_day(&self, now: Duration) -> i64 {
        (seconds(now) + self.ahead).rem_euclid(DAY)
    }

    /// When the plug's day ends; always after `now`.
    pub fn next_midnight(&self, now: Duration) -> Duration {
        let remaining = u64::try_from(DAY - self.second_of_day(now)).unwrap_or(1);
        Duration::from_secs(now.as_secs() + remaining)
    }
}

fn seconds(now: Duration) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX / 2)
}

fn since_1970(local: DateTime) -> i64 {
    jiff::tz::TimeZone::UTC.to_timestamp(local).map_or(0, Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000_000);

    #[test]
    fn a_clock_that_was_set_goes_on() {
        let mut clock = Clock::default();
        assert_eq!(clock.show(NOW).to_string(), "2001-09-09T01:46:40");
        clock.set(NOW, "2018-05-31T23:59:59".parse().unwrap());
        let later = NOW + Duration::from_secs(2);
        assert_eq!(clock.show(later).to_string(), "2018-06-01T00:00:01");
        assert_eq!(clock.second_of_day(later), 1);
        assert_eq!(clock.next_midnight(NOW), NOW + Duration::from_secs(1));
    }

    #[test]
    fn a_clock_without_power_begins_anew() {
        let mut clock = Clock::default();
        clock.lose(NOW);
        assert!(!clock.is_set);
        assert_eq!(clock.show(NOW + Duration::from_secs(60)).to_string(), "2000-01-01T00:01:00");
    }
}
