//! How long to wait before the next try to connect.

use std::time::Duration;

use super::failure::Failure;

/// Pauses between two tries while the network is at fault: the first, and the longest. Short, because everything is to
/// be current within two seconds of the broker's return, and one TCP SYN in a second or so disturbs nobody.
const PASSING: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(1500));

/// The same while somebody has to change something first.
const LASTING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// Sessions that end within this time of their beginning look like two clients with one id.
pub const SHORT_SESSION: Duration = Duration::from_secs(5);

/// Short sessions in a row that make a fight.
const FIGHT: u32 = 3;

/// Short sessions in a row after which pauses grow where nobody fights.
const MANY: u32 = 8;

/// The pauses between tries. Of several brokers each is tried before pauses grow, and only when somebody has to change
/// something for all of them they are the long ones.
#[derive(Debug)]
pub struct Backoff {
    may_fight: bool,
    brokers: u32,
    failures: u32,
    /// In a row, those that need a person.
    in_vain: u32,
    short_sessions: u32,
}

impl Backoff {
    /// `may_fight` tells whether another client could have our id, as when somebody chose it; `brokers` are tried in
    /// turn.
    pub fn new(may_fight: bool, brokers: usize) -> Backoff {
        let brokers = u32::try_from(brokers).unwrap_or(u32::MAX).max(1);
        Backoff { may_fight, brokers, failures: 0, in_vain: 0, short_sessions: 0 }
    }

    /// The pause after a try that took `tried` and failed. `lasted` is how long the broker kept us, if it took us at all.
    pub fn after(&mut self, failure: &Failure, lasted: Option<Duration>, tried: Duration) -> Duration {
        let accepted = lasted.is_some();
        let lasted = lasted.unwrap_or_default();
        let short = accepted && lasted < SHORT_SESSION;
        self.short_sessions = if short { self.short_sessions + 1 } else { 0 };
        if accepted {
            // Sessions that end at once are begun anew at once, but not for ever.
            let grace = if self.may_fight { FIGHT } else { MANY };
            self.failures = self.short_sessions.saturating_sub(grace) * self.brokers;
        }
        self.in_vain = if failure.needs_a_person { self.in_vain + 1 } else { 0 };
        let (first, longest) =
            match self.in_vain >= self.brokers || (self.may_fight && self.short_sessions >= FIGHT) {
                true => LASTING,
                false => PASSING,
            };
        let pause = first.saturating_mul(1 << (self.failures / self.brokers).min(8)).min(longest);
        self.failures += 1;
        // A try that took its time has paused already.
        pause.mul_f64(0.5 + fastrand::f64() / 2.0).saturating_sub(if accepted {
            Duration::ZERO
        } else {
            tried
        })
    }

    /// Whether session after session ends as soon as it begins, as when two clients use one id. Said once.
    pub fn is_fighting(&self) -> bool {
        self.may_fight && self.short_sessions == FIGHT
    }

    /// Whether sessions end as soon as they begin, so that there is nothing to be said of each.
    pub fn is_flapping(&self) -> bool {
        self.short_sessions > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing() -> Failure {
        Failure::passing("refused")
    }

    #[test]
    fn a_broker_that_is_away_is_asked_often_enough_to_be_served_within_two_seconds() {
        let mut backoff = Backoff::new(true, 1);
        for longest in [250, 500, 1000, 1500, 1500, 1500] {
            let pause = backoff.after(&passing(), None, Duration::ZERO).as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
        }
        let pause = backoff.after(&passing(), Some(Duration::from_secs(60)), Duration::ZERO);
        assert!(pause <= PASSING.0, "a session begins anew");
    }

    #[test]
    fn each_of_several_brokers_is_tried_before_the_pauses_grow() {
        let mut backoff = Backoff::new(false, 3);
        for longest in [250, 250, 250, 500, 500, 500, 1000, 1000, 1000, 1500, 1500] {
            let pause = backoff.after(&passing(), None, Duration::ZERO).as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
        }
        // A password that one of them does not know keeps nobody from the others.
        let wrong = Failure { text: "wrong password".into(), needs_a_person: true };
        for failure in [&wrong, &wrong, &passing(), &wrong, &wrong] {
            assert!(backoff.after(failure, None, Duration::ZERO) <= PASSING.1);
        }
        assert!(backoff.after(&wrong, None, Duration::ZERO) > PASSING.1, "all of them");
    }

    #[test]
    fn a_broker_that_dies_often_is_not_taken_for_a_rival() {
        let mut backoff = Backoff::new(false, 1);
        for round in 0..100 {
            let pause = backoff.after(&passing(), Some(Duration::from_millis(20)), Duration::ZERO);
            assert!(pause <= if round < 8 { PASSING.0 } else { PASSING.1 }, "{pause:?}");
            assert!(!backoff.is_fighting());
        }
    }

    #[test]
    fn what_a_person_must_change_is_tried_slowly() {
        let mut backoff = Backoff::new(true, 1);
        let failure = Failure { text: "wrong password".into(), needs_a_person: true };
        for longest in [5, 10, 20, 40, 60, 60] {
            let pause = backoff.after(&failure, None, Duration::ZERO).as_secs_f64();
            assert!((longest as f64 / 2.0..=longest as f64).contains(&pause), "{pause} of {longest}");
        }
    }

    #[test]
    fn two_clients_with_one_id_are_noticed_and_slow_down() {
        let mut backoff = Backoff::new(true, 1);
        let moment = Some(Duration::from_millis(20));
        let mut fights = 0;
        for _ in 0..10 {
            backoff.after(&passing(), moment, Duration::ZERO);
            fights += u32::from(backoff.is_fighting());
        }
        assert_eq!(fights, 1);
        assert!(backoff.after(&passing(), moment, Duration::ZERO) >= Duration::from_secs(30));
    }
}
