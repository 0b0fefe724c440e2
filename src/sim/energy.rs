//! A meter that tells of a plausible load: a steady one with a little movement while the relay is on, none while off.

use std::time::Duration;

/// The load behind a simulated plug, and the counter in front of it.
#[derive(Debug, Clone)]
pub struct Meter {
    /// In mW, while on.
    load: u64,
    /// mW times ms so far.
    consumed: u128,
    since: Option<Duration>,
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
    /// A load of `load` mW that has consumed `total` Wh already.
    pub fn new(load: u64, total: u64) -> Meter {
        Meter { load, consumed: u128::from(total) * 3_600_000_000, since: None }
    }

    /// The relay moved at `now`.
    pub fn switch(&mut self, on: bool, now: Duration) {
        self.consumed += self.running(now);
        self.since = on.then_some(now);
    }

    /// What it shows at `now`.
    pub fn show(&self, now: Duration) -> Shown {
        let seconds = now.as_secs();
        // The mains move by a volt or two within minutes, and a load follows.
        let voltage = 230_000 + (seconds * 7919 % 61) * 37;
        let power =
            if self.since.is_some() { self.load + self.load * (seconds * 104_729 % 41) / 4000 } else { 0 };
        // Power factor 0.9.
        let current = power * 1_000_000 / voltage / 900;
        let total = u64::try_from((self.consumed + self.running(now)) / 3_600_000_000).unwrap_or(u64::MAX);
        Shown { power, voltage, current, total }
    }

    fn running(&self, now: Duration) -> u128 {
        self.since.map_or(0, |since| u128::from(self.load) * now.saturating_sub(since).as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn energy_follows_the_relay() {
        let mut meter = Meter::new(60_000, 100);
        assert_eq!((meter.show(HOUR).power, meter.show(HOUR).total), (0, 100));
        meter.switch(true, HOUR);
        let shown = meter.show(HOUR * 2);
        assert!((60_000..=61_000).contains(&shown.power), "{shown:?}");
        assert_eq!(shown.total, 160);
        let volt_ampere = shown.current * shown.voltage / 1000;
        assert!(volt_ampere > shown.power && volt_ampere < shown.power * 5 / 4, "{shown:?}");
        meter.switch(false, HOUR * 2);
        assert_eq!((meter.show(HOUR * 9).power, meter.show(HOUR * 9).total), (0, 160));
    }
}
