//! Brokers that end a session in which a message is larger than they take: MQTT 3.1.1 gives them no other way to say so.
//!
//! What is sent again in the next session would end that one, too, and everything else with it. So the message that was
//! the largest on its way, session after session, is left out, and whatever is as large.

use std::time::Duration;

use super::backoff::SHORT_SESSION;

/// Short sessions in a row with the same largest message that make a proof.
const PROOF: u32 = 3;

/// See the module. Sizes in bytes.
#[derive(Debug, Default)]
pub struct Limit {
    bytes: Option<usize>,
    suspect: Option<(usize, u32)>,
}

impl Limit {
    /// The smallest size that the broker does not take, as far as it is known.
    pub fn bytes(&self) -> Option<usize> {
        self.bytes
    }

    /// A session ended that was open for `lasted`, or a try to open one, with a message on its way that was larger than
    /// all that the broker took. True when that is what ends sessions, for the first time.
    pub fn ended(&mut self, lasted: Option<Duration>, suspect: Option<usize>) -> bool {
        if lasted.is_none_or(|lasted| lasted >= SHORT_SESSION) {
            // Another broker answers the next time, or the same one with another limit.
            *self = Limit::default();
            return false;
        }
        let Some(size) = suspect else { return false };
        let times = self.suspect.filter(|(suspect, _)| *suspect == size).map_or(1, |(_, times)| times + 1);
        self.suspect = Some((size, times));
        let is_first = self.bytes.is_none();
        if times < PROOF && is_first {
            return false;
        }
        self.bytes = Some(size);
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Option<Duration> = Some(Duration::from_millis(20));

    #[test]
    fn the_same_message_three_times_is_too_large_and_then_the_next() {
        let mut limit = Limit::default();
        assert!(!limit.ended(MOMENT, Some(3000)));
        assert!(!limit.ended(MOMENT, Some(3000)));
        assert!(limit.ended(MOMENT, Some(3000)));
        assert_eq!(limit.bytes(), Some(3000));
        assert!(!limit.ended(MOMENT, Some(2000)), "said once");
        assert_eq!(limit.bytes(), Some(2000));
    }

    #[test]
    fn a_broker_that_merely_dies_takes_everything() {
        let mut limit = Limit::default();
        for size in [3000, 3000, 100, 3000, 3000, 200] {
            assert!(!limit.ended(MOMENT, Some(size)));
        }
        for _ in 0..10 {
            assert!(!limit.ended(MOMENT, None));
        }
        assert_eq!(limit.bytes(), None);
    }

    #[test]
    fn who_comes_back_is_asked_anew() {
        for end in [None, Some(SHORT_SESSION)] {
            let mut limit = Limit { bytes: Some(10), suspect: None };
            assert!(!limit.ended(end, Some(10)));
            assert_eq!(limit.bytes(), None);
        }
    }
}
