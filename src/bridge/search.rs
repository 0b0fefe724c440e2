//! When to look for plugs on the network: now and then, and soon when one stops answering. Time is an argument.

use std::time::{Duration, Instant};

/// After a search for a plug that does not answer, the next one waits at least this long; twice as long after each
/// further one, up to the usual interval.
const FIRST_PAUSE: Duration = Duration::from_secs(15);

/// The times at which the network is searched.
#[derive(Debug)]
pub struct Search {
    interval: Duration,
    due: Option<Instant>,
    running: bool,
    /// A plug went missing while a search was running, which may have asked there already.
    again: bool,
    pause: Duration,
    ended: Option<Instant>,
}

impl Search {
    /// First at `first`, then at every `interval`; never without an interval.
    pub fn new(interval: Option<Duration>, first: Instant) -> Search {
        Search {
            interval: interval.unwrap_or_default(),
            due: interval.map(|_| first),
            running: false,
            again: false,
            pause: FIRST_PAUSE,
            ended: None,
        }
    }

    /// Whether there are searches at all.
    pub fn is_enabled(&self) -> bool {
        !self.interval.is_zero()
    }

    /// When [`Search::begin`] is to be called.
    pub fn due_at(&self) -> Option<Instant> {
        self.due.filter(|_| !self.running)
    }

    /// A plug does not answer at `now`; `newly` when it did before.
    pub fn missing(&mut self, newly: bool, now: Instant) {
        if !self.is_enabled() {
            return;
        }
        if newly {
            self.pause = FIRST_PAUSE;
        }
        if self.running {
            self.again |= newly;
            return;
        }
        let at = if newly { now } else { self.ended.map_or(now, |ended| ended + self.pause) };
        self.due = self.due.map(|due| due.min(at));
    }

    /// Somebody asks for a search at `now`.
    pub fn asked(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// True when a search is to begin at `now`.
    pub fn begin(&mut self, now: Instant) -> bool {
        let begins = self.due_at().is_some_and(|due| due <= now);
        self.running |= begins;
        begins
    }

    /// The search has ended at `now`.
    pub fn ended(&mut self, now: Instant) {
        self.running = false;
        self.ended = Some(now);
        self.pause = (self.pause * 2).min(self.interval.max(FIRST_PAUSE));
        self.due = Some(now + if std::mem::take(&mut self.again) { Duration::ZERO } else { self.interval });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(300);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_plug_that_goes_missing_is_looked_for_at_once_and_then_ever_more_rarely() {
        let start = Instant::now();
        let mut search = Search::new(Some(INTERVAL), start);
        assert!(search.begin(start) && !search.begin(start));
        search.ended(start + seconds(5));
        assert_eq!(search.due_at(), Some(start + seconds(305)));
        let mut now = start + seconds(100);
        search.missing(true, now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert!(search.begin(search.due_at().unwrap()));
            now = search.due_at().unwrap_or(now) + seconds(5);
            search.ended(now);
            search.missing(false, now + seconds(1));
            pauses.push(search.due_at().unwrap().duration_since(now).as_secs());
        }
        assert_eq!(pauses, [30, 60, 120, 240, 300, 300, 300]);
    }

    #[test]
    fn one_that_goes_missing_during_a_search_is_looked_for_after_it() {
        let start = Instant::now();
        let mut search = Search::new(Some(INTERVAL), start);
        search.begin(start);
        search.missing(true, start + seconds(1));
        assert_eq!(search.due_at(), None);
        search.ended(start + seconds(5));
        assert_eq!(search.due_at(), Some(start + seconds(5)));
    }

    #[test]
    fn without_an_interval_nothing_is_searched() {
        let start = Instant::now();
        let mut search = Search::new(None, start);
        search.missing(true, start);
        search.asked(start);
        assert!(!search.is_enabled() && search.due_at().is_none());
    }
}
