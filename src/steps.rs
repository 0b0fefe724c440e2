//! Moments that timers have in common: what is due at one of them is one wake-up, which costs an idle program more than
//! the work itself.

use std::time::{Duration, Instant};

/// Moments a step apart.
///
/// tokio keeps timers in slots of 64 ms, 4,096 ms and so on, counted from when its runtime began. It wakes up at the
/// beginning of a timer's slot, and again at the timer's own millisecond unless that is the same: steps that count from
/// there and are multiples of 64 ms save every other wake-up (docs/performance.md).
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    since: Instant,
    length: Duration,
}

impl Steps {
    /// Steps of this length, counted from `since`. A length of nothing makes every moment one.
    pub fn new(since: Instant, length: Duration) -> Steps {
        Steps { since, length }
    }

    /// The first step at `moment` or after it.
    pub fn at_or_after(&self, moment: Instant) -> Instant {
        let since = moment.saturating_duration_since(self.since).as_nanos();
        let over = since.checked_rem(self.length.as_nanos()).and_then(|over| u64::try_from(over).ok());
        match over {
            None | Some(0) => moment,
            Some(over) => moment + self.length - Duration::from_nanos(over),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_that_is_not_past() {
        let since = Instant::now();
        let steps = Steps::new(since, Duration::from_millis(64));
        let after =
            |nanos| steps.at_or_after(since + Duration::from_nanos(nanos)).duration_since(since).as_nanos();
        for (moment, step) in [
            (0, 0),
            (1, 64_000_000),
            (63_999_999, 64_000_000),
            (64_000_000, 64_000_000),
            (64_000_001, 128_000_000),
            (86_400_000_000_001, 86_400_064_000_000),
        ] {
            assert_eq!(after(moment), step, "{moment}");
        }
        let moment = since + Duration::from_nanos(7);
        assert_eq!(Steps::new(since, Duration::ZERO).at_or_after(moment), moment);
        assert_eq!(Steps::new(moment, Duration::from_secs(1)).at_or_after(since), since, "before the first");
    }
}
