//! What is counted of each plug: how long its polls took, and what went wrong.

use std::time::Duration;

use crate::plug::error::Error;

/// Upper bounds of the classes into which polls are counted, in milliseconds; beyond them is one more.
pub const BOUNDS: [u16; 8] = [5, 10, 25, 50, 100, 250, 1000, 5000];

/// The kinds of errors that are told apart.
pub const KINDS: [&str; 8] =
    ["connect", "timeout", "closed", "malformed", "refused", "unsupported", "wrong_plug", "auth"];

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Polls of each class, those beyond all bounds last.
    pub classes: [u32; BOUNDS.len() + 1],
    /// The time that they took together, in microseconds.
    pub took: u64,
    /// Errors of each kind.
    pub errors: [u32; KINDS.len()],
}

impl Tally {
    /// A poll was answered after this time.
    pub fn answered(&mut self, took: Duration) {
        let class = BOUNDS.iter().position(|bound| took <= Duration::from_millis((*bound).into()));
        let class = &mut self.classes[class.unwrap_or(BOUNDS.len())];
        *class = class.saturating_add(1);
        self.took = self.took.saturating_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// A poll, or a command, came to nothing. Returns whether it was the plug's doing: it counts only then.
    pub fn failed(&mut self, error: &Error) -> bool {
        let kind = match error {
            Error::Connect(_) => 0,
            Error::Timeout(_) => 1,
            Error::Closed | Error::Broken(_) | Error::Forgotten => 2,
            Error::TooLong(_) | Error::Malformed(_) => 3,
            Error::Refused { .. } => 4,
            Error::Unsupported(_) => 5,
            Error::WrongPlug { .. } => 6,
            Error::Auth => 7,
            // The plug was not asked.
            Error::Stale | Error::Resting(_) => return false,
        };
        self.errors[kind] = self.errors[kind].saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_and_errors_fall_into_their_classes() {
        let mut tally = Tally::default();
        for milliseconds in [0, 5, 6, 1000, 5001, 90_000] {
            tally.answered(Duration::from_millis(milliseconds));
        }
        assert_eq!(tally.classes, [2, 1, 0, 0, 0, 0, 1, 0, 2]);
        assert_eq!(tally.took, 96_012_000);
        for error in [Error::Timeout(Duration::ZERO), Error::Auth, Error::Auth, Error::Stale] {
            tally.failed(&error);
        }
        assert_eq!(tally.errors, [0, 1, 0, 0, 0, 0, 0, 2]);
    }
}
