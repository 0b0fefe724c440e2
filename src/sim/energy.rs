//! A meter that tells of a plausible load: a steady one with a little movement while the relay is on, none while off.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;

use super::clock::Clock;

/// mW times ms in a Wh.
const WATT_HOUR: u128 = 3_600_000_000;

/// The load behind an outlet, and the counter in front of it.
#[derive(Debug, Clone)]
pub struct Meter {
    /// In mW, while on.
    load: u64,
    /// What the mains have, in mV.
    mains: u64,
    /// mW times ms so far.
    consumed: u128,
    /// Everything before this moment is counted.
    counted: Duration,
    /// Days without use are missing, as in the plugs' own lists.
    days: BTreeMap<Date, Day>,
}

/// What flowed on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Day {
    /// mW times ms.
    consumed: u128,
    /// How long it was on.
    pub on: Duration,
}

impl Day {
    /// Wh, whole ones.
    pub fn energy(&self) -> u64 {
        u64::try_from(self.consumed / WATT_HOUR).unwrap_or(u64::MAX)
    }
}

/// What a meter shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// mW.
    pub power: u64,
    /// mV.
    pub voltage: u64,
    /// mA.
    pub current: u64,
    /// Wh.
    pub total: u64,
}

impl Meter {
    /// A load of `load` mW at `mains` mV, whose meter has counted `total` Wh already.
    pub fn new(load: u64, mains: u64, total: u64) -> Meter {
        let consumed = u128::from(total) * WATT_HOUR;
        Meter { load, mains, consumed, counted: Duration::ZERO, days: BTreeMap::new() }
    }

    /// Counts what flowed since the last call; `on` is where the relay was throughout.
    pub fn count(&mut self, on: bool, now: Duration, clock: &Clock) {
        while on && self.counted < now {
            let until = now.min(clock.next_midnight(self.counted));
            let time = until - self.counted;
            let consumed = u128::from(self.load) * time.as_millis();
            let day = self.days.entry(clock.date(self.counted)).or_default();
            day.consumed += consumed;
            day.on += time;
            self.consumed += consumed;
            self.counted = until;
        }
        self.counted = self.counted.max(now);
    }

    /// What it shows at `now`.
    pub fn show(&self, on: bool, now: Duration) -> Shown {
        let seconds = now.as_secs();
        // The mains move by a volt or two within minutes, and a load follows.
        let voltage = self.mains + (seconds * 7919 % 61) * 37;
        let power = if on { self.load + self.load * (seconds * 104_729 % 41) / 4000 } else { 0 };
        // Power factor 0.9.
        let current = power * 1_000_000 / voltage / 900;
        Shown { power, voltage, current, total: u64::try_from(self.consumed / WATT_HOUR).unwrap_or(u64::MAX) }
    }

    /// What flowed on each day of a month.
    pub fn days(&self, year: i64, month: i64) -> impl Iterator<Item = (Date, Day)> {
        self.days
            .iter()
            .filter(move |(date, _)| i64::from(date.year()) == year && i64::from(date.month()) == month)
            .map(|(date, day)| (*date, *day))
    }

    /// What flowed in each month of a year that had some, under the month's first day.
    pub fn months(&self, year: i64) -> BTreeMap<Date, Day> {
        let mut months: BTreeMap<Date, Day> = BTreeMap::new();
        for (date, day) in self.days.iter().filter(|(date, _)| i64::from(date.year()) == year) {
            let month = months.entry(date.first_of_month()).or_default();
            month.consumed += day.consumed;
            month.on += day.on;
        }
        months
    }

    /// Forgets every day. Whether the counter goes on is told differently by different people (protocol.md 4): it does.
    pub fn forget(&mut self) {
        self.days.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MORNING: Duration = Duration::from_secs(86_400 * 20_000 + 3600);

    #[test]
    fn energy_follows_the_relay() {
        let (clock, mut meter) = (Clock::default(), Meter::new(60_000, 230_000, 100));
        meter.count(false, MORNING, &clock);
        assert_eq!((meter.show(false, MORNING).power, meter.show(false, MORNING).total), (0, 100));
        meter.count(true, MORNING + HOUR, &clock);
        let shown = meter.show(true, MORNING + HOUR);
        assert!((60_000..=61_000).contains(&shown.power), "{shown:?}");
        assert_eq!(shown.total, 160);
        let volt_ampere = shown.current * shown.voltage / 1000;
        assert!(volt_ampere > shown.power && volt_ampere < shown.power * 5 / 4, "{shown:?}");
        meter.count(false, MORNING + HOUR * 9, &clock);
        assert_eq!(meter.show(false, MORNING + HOUR * 9).total, 160);
    }

    #[test]
    fn days_end_at_the_plugs_midnight() {
        let (clock, mut meter) = (Clock::default(), Meter::new(100_000, 230_000, 0));
        meter.count(false, MORNING, &clock);
        meter.count(true, MORNING + 24 * HOUR, &clock);
        let date = clock.date(MORNING);
        let (year, month) = (date.year().into(), date.month().into());
        let days: Vec<_> = meter.days(year, month).map(|(_, day)| (day.energy(), day.on)).collect();
        assert_eq!(days, [(2300, 23 * HOUR), (100, HOUR)]);
        let months: Vec<_> = meter.months(year).into_values().map(|day| day.energy()).collect();
        assert_eq!(months, [2400]);
        meter.forget();
        assert_eq!(meter.days(year, month).count(), 0);
        assert_eq!(meter.show(false, MORNING).total, 2400);
    }
}
