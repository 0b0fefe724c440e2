//! Notices that this process stood still, as in a suspended machine or under a debugger.
//!
//! What lies in the socket then came at any time since, and no command may run late: whoever stood still has to begin
//! anew with the broker, which keeps nothing of a session that ended.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often somebody looks at the clock who has nothing else to do.
const BEAT: Duration = Duration::from_secs(2);

/// A pause that a busy machine does not make, well below the shortest time in which a command grows old.
const STANDSTILL: Duration = Duration::from_secs(6);

/// See the module.
pub struct Pulse {
    beats: Interval,
    last: Duration,
}

impl Pulse {
    /// Beats from now on.
    pub fn start() -> Pulse {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Pulse { beats, last: since_boot() }
    }

    /// Until the next look is due.
    pub async fn beat(&mut self) {
        self.beats.tick().await;
    }

    /// Looks. For how long the process stood still since it last looked, if it did.
    pub fn look(&mut self) -> Option<Duration> {
        self.look_at(since_boot())
    }

    fn look_at(&mut self, now: Duration) -> Option<Duration> {
        let pause = now.saturating_sub(self.last);
        self.last = now;
        (pause >= STANDSTILL).then_some(pause)
    }
}

/// By the clock that goes on while the machine is suspended, and that nobody sets.
fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_long_pause_is_a_standstill() {
        let mut pulse = Pulse::start();
        let begin = pulse.last;
        assert_eq!(pulse.look(), None);
        assert_eq!(pulse.look_at(begin + Duration::from_secs(5)), None);
        assert_eq!(pulse.look_at(begin + Duration::from_secs(11)), Some(Duration::from_secs(6)));
        assert_eq!(pulse.look_at(begin + Duration::from_secs(12)), None);
        // A clock that goes backwards is no reason to end anything.
        assert_eq!(pulse.look_at(begin), None);
    }
}
