//! One outlet's meter over time: its counters never go back without proof.
//!
//! Home Assistant takes a counter that drops for a new meter, and the energy dashboard shows a spike. Plugs send a
//! transient 0 after a restart, and lower their counters by a hair (homeassistant.md 6, rows 22 and 23).

use std::time::{Duration, Instant};

use super::emeter::Emeter;

/// A drop is believed when a second reading, at least this much later, shows it, too.
pub const PROOF_AFTER: Duration = Duration::from_secs(5);

/// A counter of energy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counter {
    shown: Option<u64>,
    /// Since when it was seen lower.
    dropped: Option<Instant>,
}

impl Counter {
    fn take(&mut self, read: Option<u64>, at: Instant) -> Option<u64> {
        // A failed read says nothing, also not that a drop was none.
        let read = read?;
        let Some(shown) = self.shown else {
            self.shown = Some(read);
            return self.shown;
        };
        let seen_before = self.dropped.take();
        if read >= shown {
            self.shown = Some(read);
        } else if u128::from(read) * 10 < u128::from(shown) * 9 {
            // Home Assistant takes it for a reset below nine tenths (homeassistant.md 1.9); above, it is jitter.
            let since = seen_before.unwrap_or(at);
            if at.saturating_duration_since(since) >= PROOF_AFTER {
                self.shown = Some(read);
            } else {
                self.dropped = Some(since);
            }
        }
        self.shown
    }
}

/// What is known of one outlet's meter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    latest: Emeter,
    total: Counter,
    today: Counter,
    month: Counter,
}

impl Meter {
    /// What users see: the newest readings, with each counter held where it was until a drop is proven.
    pub fn latest(&self) -> Emeter {
        self.latest
    }

    /// Takes an answer to `get_realtime`, read at `at`; an empty one when it failed.
    pub fn realtime(&mut self, emeter: Emeter, at: Instant) {
        let total_wh = self.total.take(emeter.total_wh, at);
        let Emeter { today_wh, month_wh, .. } = self.latest;
        self.latest = Emeter { total_wh, today_wh, month_wh, ..emeter };
    }

    /// Takes an answer to `get_daystat` and `get_monthstat` in Wh.
    pub fn statistics(&mut self, today: Option<u64>, month: Option<u64>, at: Instant) {
        self.latest.today_wh = self.today.take(today, at);
        self.latest.month_wh = self.month.take(month, at);
    }

    /// Whether the total was seen to drop, and a second reading is to prove it.
    pub fn doubts_total(&self) -> bool {
        self.total.dropped.is_some()
    }

    /// The same of today's or this month's energy.
    pub fn doubts_statistics(&self) -> bool {
        self.today.dropped.is_some() || self.month.dropped.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(readings: &[(u64, Option<u64>)]) -> Vec<Option<u64>> {
        let start = Instant::now();
        let mut meter = Meter::default();
        let mut show = |&(second, total_wh): &(u64, Option<u64>)| {
            let emeter = Emeter { power_mw: Some(1), total_wh, ..Emeter::default() };
            meter.realtime(emeter, start + Duration::from_secs(second));
            meter.latest().total_wh
        };
        readings.iter().map(&mut show).collect()
    }

    #[test]
    fn a_transient_zero_is_never_shown() {
        assert_eq!(
            shown(&[(0, Some(1000)), (5, Some(0)), (10, Some(1001))]),
            [Some(1000), Some(1000), Some(1001)]
        );
    }

    #[test]
    fn a_proven_reset_is_shown_and_counts_on() {
        let readings = [(0, Some(1000)), (5, Some(0)), (8, Some(0)), (10, Some(1)), (15, Some(2))];
        assert_eq!(shown(&readings), [Some(1000), Some(1000), Some(1000), Some(1), Some(2)]);
    }

    #[test]
    fn jitter_does_not_lower_a_counter() {
        assert_eq!(
            shown(&[(0, Some(1000)), (5, Some(999)), (50, Some(900)), (60, Some(1002))]),
            [Some(1000), Some(1000), Some(1000), Some(1002)]
        );
    }

    #[test]
    fn a_failed_read_is_unknown_and_proves_nothing() {
        assert_eq!(
            shown(&[(0, Some(1000)), (5, Some(0)), (10, None), (11, Some(1000)), (15, Some(0))]),
            [Some(1000), Some(1000), None, Some(1000), Some(1000)]
        );
    }

    #[test]
    fn statistics_and_readings_do_not_disturb_each_other() {
        let start = Instant::now();
        let mut meter = Meter::default();
        meter.statistics(Some(50), Some(700), start);
        meter.realtime(Emeter { power_mw: Some(5), ..Emeter::default() }, start);
        let latest = meter.latest();
        assert_eq!((latest.power_mw, latest.today_wh, latest.month_wh), (Some(5), Some(50), Some(700)));
        let midnight = start + Duration::from_secs(60);
        meter.statistics(Some(0), Some(700), midnight);
        assert!(meter.doubts_statistics() && meter.latest().today_wh == Some(50));
        meter.statistics(Some(0), Some(701), midnight + PROOF_AFTER);
        assert_eq!((meter.latest().today_wh, meter.latest().month_wh), (Some(0), Some(701)));
    }
}
