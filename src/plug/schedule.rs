//! When to ask a plug next. Time is an argument; nothing here looks at a clock.

use std::time::{Duration, Instant};

use crate::steps::Steps;

/// How long after a command its effect is read back: a plug takes a moment to show it, and asking sooner would flip
/// the state back for one poll (homeassistant.md 3).
const CONFIRM_AFTER: Duration = Duration::from_millis(350);

/// The first pause after a failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// The longest pause between two tries.
const LAST_BACKOFF: Duration = Duration::from_secs(60);

/// A plug that fails for this long may be called offline. There is a try when it is over, so that nobody who looks at
/// failures waits longer for the verdict than needed.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(15);

/// Few plugs are polled in steps of this length.
const LONGEST_STEP: Duration = Duration::from_millis(512);

/// No number of plugs makes steps shorter.
const SHORTEST_STEP: Duration = Duration::from_millis(8);

/// So many polls may begin at one step, on average: a command that comes then waits for them.
const POLLS_IN_A_STEP: u32 = 16;

/// How long a device that is no plug is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(600);

/// The steps of one of so many plugs. The more there are, the shorter: a half, a quarter ... of the longest, so that all
/// steps of few plugs are steps of many.
pub fn steps(since: Instant, plugs: usize, interval: Duration) -> Steps {
    let plugs = u32::try_from(plugs).unwrap_or(u32::MAX).max(1);
    // Else a plug would be late by too much of its interval.
    let longest = (interval.saturating_mul(POLLS_IN_A_STEP) / plugs).min(interval / 4);
    let mut length = LONGEST_STEP;
    while length > longest && length > SHORTEST_STEP {
        length /= 2;
    }
    Steps::new(since, length)
}

/// The times at which one plug is polled.
///
/// ```text
///            success                 command done
///   cadence ─────────► cadence      ─────────────► confirm ──success──► cadence
///      │ failure
///      ▼
///   backoff 1 s, 2 s, 4 s ... 60 s, each jittered ──success──► cadence
/// ```
#[derive(Debug, Clone)]
pub struct Schedule {
    interval: Duration,
    /// The cadence: moments an interval apart, kept without drift.
    beat: Instant,
    steps: Steps,
    next: Instant,
    last_success: Instant,
    failures: u32,
    failing_since: Option<Instant>,
}

impl Schedule {
    /// Polls first at `first`, and from `phase` (below one interval) after that at every `interval`, each time at the
    /// next of the `steps`.
    pub fn new(interval: Duration, first: Instant, phase: Duration, steps: Steps) -> Schedule {
        Schedule {
            interval,
            beat: first + phase,
            steps,
            next: first,
            last_success: first,
            failures: 0,
            failing_since: None,
        }
    }

    /// When to poll next.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The plug answered a poll at `now`.
    pub fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.failing_since = None;
        self.last_success = now;
        // Beats missed while the plug was away, or while the host slept, are not made up for.
        let missed = now.saturating_duration_since(self.beat).as_nanos() / self.interval.as_nanos();
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        if self.beat <= now {
            self.beat += self.interval.saturating_mul(missed.saturating_add(1));
        }
        self.next = self.steps.at_or_after(self.beat);
    }

    /// The plug did not answer at `now`. `jitter` from 0 to 1 spreads the tries of many plugs.
    pub fn failed(&mut self, now: Instant, jitter: f64) {
        let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(6)).min(LAST_BACKOFF);
        self.failures += 1;
        self.next = now + backoff.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        let verdict = *self.failing_since.get_or_insert(now) + OFFLINE_AFTER;
        if now < verdict {
            self.next = self.next.min(verdict);
        }
    }

    /// A command was carried out at `now`: read back soon. Commands that follow each other closely put the poll off,
    /// but by no more than an interval and a second.
    pub fn commanded(&mut self, now: Instant) {
        self.failures = 0;
        self.failing_since = None;
        let latest = self.last_success + self.interval + Duration::from_secs(1);
        self.next = (now + CONFIRM_AFTER).min(latest).max(now);
    }

    /// Something is known to happen at `at`: look then, if no poll comes before.
    pub fn hasten(&mut self, at: Instant) {
        self.next = self.next.min(at);
    }

    /// What answers at `now` is not to be served: look again after a while, in case another device has come.
    pub fn left_alone(&mut self, now: Instant) {
        self.next = now + LEFT_ALONE;
    }

    /// Whether the last poll failed.
    pub fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }

    /// The plug restarts at `now` and needs a while.
    pub fn rebooting(&mut self, now: Instant) {
        self.next = now + Duration::from_secs(5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn after(start: Instant, schedule: &Schedule) -> f64 {
        schedule.next().duration_since(start).as_secs_f64()
    }

    #[test]
    fn polls_keep_their_beat_whatever_the_answer_takes() {
        let start = Instant::now();
        let mut schedule =
            Schedule::new(INTERVAL, start, Duration::from_secs(2), Steps::new(start, Duration::ZERO));
        assert_eq!(after(start, &schedule), 0.0);
        schedule.succeeded(start + Duration::from_millis(40));
        assert_eq!(after(start, &schedule), 2.0);
        schedule.succeeded(start + Duration::from_millis(2_300));
        assert_eq!(after(start, &schedule), 7.0);
        // The host slept for a minute: one poll, then the beat again.
        schedule.succeeded(start + Duration::from_secs(67));
        assert_eq!(after(start, &schedule), 72.0);
    }

    #[test]
    fn plugs_are_polled_in_step_and_none_drifts_from_its_beat() {
        let start = Instant::now();
        let (interval, step) = (Duration::from_millis(1_010), Duration::from_millis(32));
        for phase in [0, 1, 20, 24, 25, 26, 1_009] {
            let phase = Duration::from_millis(phase);
            let mut schedule =
                Schedule::new(interval, start + Duration::from_millis(7), phase, Steps::new(start, step));
            // Without a phase the first poll is the first beat.
            let next_beat = u32::from(phase.is_zero());
            for beat in next_beat..200 {
                schedule.succeeded(schedule.next());
                let next = schedule.next().duration_since(start);
                assert_eq!(next.as_nanos() % step.as_nanos(), 0, "{next:?}");
                let late = next.checked_sub(Duration::from_millis(7) + phase + interval * beat);
                assert!(late.is_some_and(|late| late < step), "beat {beat}: {late:?}");
            }
        }
    }

    #[test]
    fn the_more_plugs_the_shorter_their_steps() {
        let start = Instant::now();
        let length = |plugs, interval| {
            let moment = start + Duration::from_nanos(1);
            steps(start, plugs, interval).at_or_after(moment).duration_since(start).as_millis()
        };
        for (plugs, seconds, milliseconds) in [
            (0, 10, 512),
            (1, 10, 512),
            (20, 10, 512),
            (312, 10, 512),
            (313, 10, 256),
            (200, 1, 64),
            (10_000, 10, 16),
            (10_000, 5, 8),
            (usize::MAX, 5, 8),
            // Not more than a quarter of an interval late.
            (1, 2, 256),
            (1, 1, 128),
        ] {
            assert_eq!(
                length(plugs, Duration::from_secs(seconds)),
                milliseconds,
                "{plugs} every {seconds} s"
            );
        }
    }

    #[test]
    fn failures_back_off_to_a_minute() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start, Duration::ZERO, Steps::new(start, Duration::ZERO));
        let mut tries = vec![];
        for _ in 0..9 {
            let now = schedule.next();
            tries.push(after(start, &schedule));
            schedule.failed(now, 1.0);
        }
        // After 15 s there is a try, for the verdict; else 1, 2, 4 ... 60 s apart.
        assert_eq!(tries, [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0]);
        let now = schedule.next();
        schedule.failed(now, 0.0);
        assert_eq!(schedule.next() - now, Duration::from_secs(30));
        schedule.succeeded(now);
        schedule.failed(now, 1.0);
        assert_eq!(schedule.next() - now, Duration::from_secs(1));
    }

    #[test]
    fn the_verdict_is_not_slept_over() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start, Duration::ZERO, Steps::new(start, Duration::ZERO));
        for _ in 0..4 {
            let now = schedule.next() + Duration::from_secs(1);
            schedule.failed(now, 1.0);
        }
        assert_eq!(after(start, &schedule), 16.0, "fifteen seconds after the first failure");
    }

    #[test]
    fn a_command_is_read_back_soon_and_a_flood_of_them_does_not_stop_polling() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start, Duration::ZERO, Steps::new(start, Duration::ZERO));
        schedule.succeeded(start);
        schedule.commanded(start + Duration::from_secs(1));
        assert_eq!(after(start, &schedule), 1.35);
        schedule.succeeded(start + Duration::from_secs_f64(1.36));
        assert_eq!(after(start, &schedule), 5.0, "then back to the beat");
        schedule.commanded(start + Duration::from_secs(10));
        assert_eq!(after(start, &schedule), 10.0, "overdue");
    }
}
