//! The last hour of an outlet's power: the average of each minute.

use std::collections::VecDeque;
use std::time::Duration;

/// Minutes that are shown, the one that runs included.
pub const MINUTES: usize = 60;

const MINUTE: Duration = Duration::from_secs(60);

/// See the module. Times count from the start of the program.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Averages in watts of the minutes that are over; not a number where nothing was known.
    over: VecDeque<f32>,
    /// Which minute runs.
    minute: u64,
    /// What flows since then, in watts.
    power: Option<f32>,
    since: Duration,
    /// Of the minute that runs: watts times seconds, and the seconds in which they were known.
    sum: f32,
    known: f32,
}

impl History {
    /// Begins now.
    pub fn new(now: Duration) -> History {
        History { minute: now.as_secs() / 60, since: now, ..History::default() }
    }

    /// From now on this much flows; `None` is "unknown".
    pub fn flows(&mut self, now: Duration, power: Option<f32>) {
        self.advance(now);
        self.power = power;
    }

    /// Each minute's average, the oldest first; the last is that of the minute that runs.
    pub fn minutes(&mut self, now: Duration) -> impl Iterator<Item = Option<f32>> {
        self.advance(now);
        let running = if self.known > 0.0 { Some(self.sum / self.known) } else { self.power };
        let over = self.over.iter().map(|average| Some(*average).filter(|average| !average.is_nan()));
        over.chain([running])
    }

    fn advance(&mut self, now: Duration) {
        let current = now.as_secs() / 60;
        // After a long silence only what is shown is worth the counting.
        let oldest = current.saturating_sub(MINUTES as u64);
        if self.minute < oldest {
            self.finish();
            self.minute = oldest;
            self.since = MINUTE.saturating_mul(u32::try_from(oldest).unwrap_or(u32::MAX));
        }
        while self.minute < current {
            self.flow_until(MINUTE.saturating_mul(u32::try_from(self.minute + 1).unwrap_or(u32::MAX)));
            self.finish();
            self.minute += 1;
        }
        self.flow_until(now);
    }

    fn flow_until(&mut self, until: Duration) {
        let time = until.saturating_sub(self.since).as_secs_f32();
        self.since = self.since.max(until);
        if let Some(power) = self.power {
            self.sum += power * time;
            self.known += time;
        }
    }

    fn finish(&mut self) {
        if self.over.len() == MINUTES - 1 {
            self.over.pop_front();
        }
        self.over.push_back(if self.known > 0.0 { self.sum / self.known } else { f32::NAN });
        (self.sum, self.known) = (0.0, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn minutes(history: &mut History, now: u64) -> Vec<Option<f32>> {
        history.minutes(seconds(now)).collect()
    }

    #[test]
    fn averages_are_weighed_by_time() {
        let mut history = History::new(seconds(30));
        history.flows(seconds(30), Some(100.0));
        assert_eq!(minutes(&mut history, 30), [Some(100.0)], "shown at once");
        history.flows(seconds(50), Some(10.0));
        assert_eq!(minutes(&mut history, 60), [Some(70.0), Some(10.0)]);
        history.flows(seconds(90), None);
        assert_eq!(minutes(&mut history, 130), [Some(70.0), Some(10.0), None]);
        assert_eq!(minutes(&mut history, 181), [Some(70.0), Some(10.0), None, None]);
    }

    #[test]
    fn an_hour_is_kept_and_a_long_silence_is_cheap() {
        let mut history = History::new(seconds(0));
        history.flows(seconds(0), Some(5.0));
        history.flows(seconds(61), Some(7.0));
        let hour = minutes(&mut history, 3600 + 30);
        assert_eq!(hour.len(), MINUTES);
        let first = hour[0].unwrap();
        assert!((first - (5.0 + 59.0 * 7.0) / 60.0).abs() < 0.01, "the first minute has gone: {first}");
        assert!(hour[1..].iter().all(|power| *power == Some(7.0)), "{hour:?}");
        let years = minutes(&mut history, 100_000_000);
        assert_eq!((years.len(), years[0]), (MINUTES, Some(7.0)));
    }
}
