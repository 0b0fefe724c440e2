//! What follows a birth of Home Assistant: a wait, all discovery configs, a pause, all availabilities and states
//! (homeassistant.md 1.5). Retained messages make it needless with most brokers; it is the net below them.
//!
//! ```text
//! None ──birth──► Heard ──2 to 10 s──► Announcing ──all said──► Announced ──1 s──► None
//! ```

use std::time::{Duration, Instant};

/// Time for Home Assistant to make entities of the configs before it is told their states.
const PAUSE: Duration = Duration::from_secs(1);

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Birth {
    /// Nothing to do.
    None,
    /// Home Assistant is given time to subscribe.
    Heard {
        /// When to begin.
        announce_at: Instant,
    },
    /// The discovery configs go out.
    Announcing,
    /// They are out.
    Announced {
        /// When the states follow.
        states_at: Instant,
    },
}

/// What is to be said again now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The bridge's state and all discovery configs.
    Announce,
    /// All availabilities and states.
    States,
}

impl Birth {
    /// Home Assistant was born at `now`, and is given `delay`.
    pub fn heard(now: Instant, delay: Duration) -> Birth {
        Birth::Heard { announce_at: now + delay }
    }

    /// Whether it waits for the configs to be out.
    pub fn is_announcing(&self) -> bool {
        *self == Birth::Announcing
    }

    /// The configs are out at `now`, if that was waited for.
    pub fn announced(&mut self, now: Instant) {
        if self.is_announcing() {
            *self = Birth::Announced { states_at: now + PAUSE };
        }
    }

    /// When [`Birth::step`] has something to tell.
    pub fn due_at(&self) -> Option<Instant> {
        match *self {
            Birth::Heard { announce_at: at } | Birth::Announced { states_at: at } => Some(at),
            Birth::None | Birth::Announcing => None,
        }
    }

    /// What is due at `now`.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        match *self {
            Birth::Heard { announce_at } if announce_at <= now => {
                *self = Birth::Announcing;
                Some(Step::Announce)
            }
            Birth::Announced { states_at } if states_at <= now => {
                *self = Birth::None;
                Some(Step::States)
            }
            _ => None,
        }
    }
}
