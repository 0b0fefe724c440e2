//! What is known of a plug beyond its last sysinfo: the answers to questions that are asked more rarely.

use std::time::{Duration, Instant, SystemTime};

use jiff::civil::DateTime;

use super::meter::Meter;
use super::reading::Reading;
use super::sysinfo::Sysinfo;
use super::timer::{NextAction, Timer};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// One for each outlet.
    pub meters: Vec<Meter>,
    /// The running timer of each outlet.
    pub timers: Vec<Option<Timer>>,
    /// What sysinfo said last of each outlet's timer.
    timers_said: Vec<Option<bool>>,
    /// Whether the plug has its cloud.
    pub cloud: Option<bool>,
    /// Whether the motion sensor switches.
    pub motion: Option<bool>,
    /// The schedule's next action, where sysinfo does not tell.
    pub next_action: Option<NextAction>,
    /// What the plug's clock showed, and when.
    pub clock: Option<(DateTime, Instant)>,
    tells_next_action: bool,
}

impl Known {
    /// Nothing yet, of the plug that said this.
    pub fn new(sysinfo: &Sysinfo) -> Known {
        let outlets = sysinfo.reading.outlets.len();
        Known {
            meters: vec![Meter::default(); outlets],
            timers: vec![None; outlets],
            timers_said: vec![None; outlets],
            tells_next_action: sysinfo.tells_next_action,
            ..Known::default()
        }
    }

    /// Completes what sysinfo said with what is known beyond it.
    pub fn complete(&self, reading: &mut Reading, now: SystemTime) {
        reading.cloud = self.cloud;
        if let Some(motion) = &mut reading.motion {
            motion.enabled = self.motion;
        }
        for ((outlet, meter), timer) in reading.outlets.iter_mut().zip(&self.meters).zip(&self.timers) {
            if let Some(emeter) = &mut outlet.emeter {
                *emeter = meter.latest();
            }
            outlet.timer = timer.and_then(|timer| timer.at(now));
            if !self.tells_next_action {
                outlet.next_action = self.next_action;
            }
        }
    }

    /// The outlets whose timers are to be asked for, because sysinfo says something new of them.
    pub fn timers_in_doubt(&mut self, said: &[Option<bool>]) -> Vec<usize> {
        let mut doubtful = Vec::new();
        for (index, ((said, before), timer)) in
            said.iter().zip(&mut self.timers_said).zip(&self.timers).enumerate()
        {
            let changed = *said != *before;
            *before = *said;
            if changed && said.is_some_and(|runs| runs != timer.is_some()) {
                doubtful.push(index);
            }
        }
        doubtful
    }

    /// The local time that the plug's clock shows at `now`, as far as it was asked.
    pub fn local(&self, now: Instant) -> Option<DateTime> {
        let (shown, at) = self.clock?;
        let since = now.saturating_duration_since(at).min(Duration::from_secs(7 * 24 * 3600));
        shown.checked_add(since).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::emeter::Emeter;
    use super::super::reply::Reply;
    use super::super::sysinfo::tests::{STRIP, now};
    use super::*;

    fn strip() -> Sysinfo {
        Sysinfo::parse(&Reply::parse(STRIP.as_bytes()).unwrap(), now()).unwrap()
    }

    #[test]
    fn what_is_known_completes_what_sysinfo_says() {
        let mut known = Known::new(&strip());
        let complete = |known: &Known, now| {
            let mut reading = strip().reading;
            known.complete(&mut reading, now);
            reading
        };
        known.meters[1].realtime(Emeter { power_mw: Some(5), ..Emeter::default() }, Instant::now());
        known.timers[1] = Some(Timer::ending_in(Duration::from_secs(60), false, now()));
        known.cloud = Some(false);
        let reading = complete(&known, now() + Duration::from_secs(20));
        assert_eq!(reading.cloud, Some(false));
        assert_eq!(reading.outlets[1].emeter.unwrap().power_mw, Some(5));
        assert_eq!(reading.outlets[0].emeter, Some(Emeter::default()), "unknown, and not absent");
        assert_eq!(reading.outlets[1].timer.unwrap().remaining, Duration::from_secs(40));
        assert!(reading.outlets[0].next_action.is_some(), "sysinfo's own word");
        let later = complete(&known, now() + Duration::from_secs(60));
        assert_eq!(later.outlets[1].timer, None, "it has ended");
    }

    #[test]
    fn a_timer_is_asked_for_once_when_sysinfo_changes_its_mind() {
        let mut known = Known::new(&strip());
        assert_eq!(known.timers_in_doubt(&[Some(false), Some(true)]), [1]);
        assert!(known.timers_in_doubt(&[Some(false), Some(true)]).is_empty());
        known.timers[1] = Some(Timer::ending_in(Duration::from_secs(60), false, now()));
        assert_eq!(known.timers_in_doubt(&[Some(false), Some(false)]), [1], "somebody removed it");
        assert!(known.timers_in_doubt(&[None, None]).is_empty());
    }

    #[test]
    fn the_plugs_clock_runs_on() {
        let mut known = Known::new(&strip());
        let at = Instant::now();
        assert_eq!(known.local(at), None);
        known.clock = Some(("2026-11-30T23:59:50".parse().unwrap(), at));
        assert_eq!(known.local(at + Duration::from_secs(10)), Some("2026-12-01T00:00:00".parse().unwrap()));
    }
}
