//! Notices that this process stood still, as in a suspended machine or under a debugger.
//!
//! What lies in the socket then came at any time since, and no command may run late: whoever stood still has to begin
//! anew with the broker, which keeps nothing of a session that ended.
//!
//! A process that was written to disk and started again from there (CRIU) finds the clocks that nobody sets where it left
//! them: it lives in a time namespace made for it. Only the time of day has gone on, which alone means nothing.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::steps::Steps;

/// How often somebody looks at the clock who has nothing else to do. Every other beat is one of tokio's own steps.
const BEAT: Duration = Duration::from_millis(2_048);

/// A pause that a busy machine does not make, well below the shortest time in which a command grows old.
const STANDSTILL: Duration = Duration::from_secs(6);

/// See the module.
pub struct Pulse {
    beats: Interval,
    last: Moment,
    /// By how much the clocks of our time namespace differ from the machine's.
    offsets: String,
}

/// One moment by two clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// The clock that goes on while the machine is suspended, and that nobody sets.
    since_boot: Duration,
    /// The time of day, which anybody may set.
    wall: Duration,
}

impl Pulse {
    /// Beats from now on, in steps that are counted from `since`.
    pub fn start(since: Instant) -> Pulse {
        let first = Steps::new(since, BEAT).at_or_after(Instant::now());
        let mut beats = interval_at(first.into(), BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Pulse { beats, last: Moment::now(), offsets: offsets() }
    }

    /// Until the next look is due.
    pub async fn beat(&mut self) {
        self.beats.tick().await;
    }

    /// Looks. For how long the process stood still since it last looked, if it did.
    pub fn look(&mut self) -> Option<Duration> {
        self.look_at(Moment::now(), offsets)
    }

    fn look_at(&mut self, now: Moment, offsets: impl FnOnce() -> String) -> Option<Duration> {
        let pause = now.since_boot.saturating_sub(self.last.since_boot);
        let on_the_wall = now.wall.saturating_sub(self.last.wall);
        self.last = now;
        if pause >= STANDSTILL {
            return Some(pause);
        }
        if on_the_wall < STANDSTILL {
            return None;
        }
        // Somebody has set the clock, or has thawed us elsewhere in time.
        let before = std::mem::replace(&mut self.offsets, offsets());
        (before != self.offsets).then_some(on_the_wall)
    }
}

impl Moment {
    fn now() -> Moment {
        let of = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
        Moment { since_boot: of(ClockId::Boottime), wall: of(ClockId::Realtime) }
    }
}

/// Empty where the kernel knows no time namespaces: then nobody can put us into one.
fn offsets() -> String {
    std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "monotonic 0 0\nboottime 0 0\n";

    /// After these seconds of each clock, in a time namespace of these offsets.
    fn looks(pulse: &mut Pulse, since_boot: i64, wall: i64, offsets: &str) -> Option<u64> {
        let later = |clock: Duration, seconds: i64| match seconds {
            0.. => clock + Duration::from_secs(seconds.unsigned_abs()),
            _ => clock - Duration::from_secs(seconds.unsigned_abs()),
        };
        let Moment { since_boot: last, wall: last_on_the_wall } = pulse.last;
        let now = Moment { since_boot: later(last, since_boot), wall: later(last_on_the_wall, wall) };
        pulse.look_at(now, || offsets.into()).map(|pause| pause.as_secs())
    }

    fn pulse() -> Pulse {
        Pulse { offsets: ROOT.into(), ..Pulse::start(Instant::now()) }
    }

    #[tokio::test]
    async fn only_a_long_pause_is_a_standstill() {
        assert_eq!(Pulse::start(Instant::now()).look(), None);
        let mut pulse = pulse();
        assert_eq!(looks(&mut pulse, 5, 5, ROOT), None);
        assert_eq!(looks(&mut pulse, 6, 6, ROOT), Some(6));
        assert_eq!(looks(&mut pulse, 1, 1, ROOT), None);
        // A clock that goes backwards is no reason to end anything.
        assert_eq!(looks(&mut pulse, -12, -12, ROOT), None);
    }

    #[tokio::test]
    async fn a_clock_that_was_set_is_none_and_a_thaw_in_another_time_is_one() {
        let mut pulse = pulse();
        for jump in [400 * 86_400, -400 * 86_400, 3600] {
            assert_eq!(looks(&mut pulse, 1, jump, ROOT), None);
        }
        let thawed = "monotonic -16 0\nboottime -16 0\n";
        assert_eq!(looks(&mut pulse, 1, 17, thawed), Some(17));
        assert_eq!(looks(&mut pulse, 1, 3600, thawed), None);
        assert_eq!(looks(&mut pulse, 0, 30, "monotonic -46 0\nboottime -46 0\n"), Some(30));
    }
}
