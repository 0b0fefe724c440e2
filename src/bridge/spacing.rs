//! Keeps two versions of one discovery config apart: in quick succession Home Assistant loses parts of the second
//! (homeassistant.md 1.4).

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::plug::PlugNo;

/// How far apart.
const APART: Duration = Duration::from_secs(2);

/// Plugs whose config went out a moment ago.
#[derive(Debug, Default)]
pub struct Spacing {
    /// Until when it must not change, the oldest first.
    until: VecDeque<(Instant, PlugNo)>,
    held: HashSet<PlugNo>,
}

impl Spacing {
    /// A plug's config went out at `now`.
    pub fn announced(&mut self, no: PlugNo, now: Instant) {
        if self.held.insert(no) {
            self.until.push_back((now + APART, no));
        }
    }

    /// Whether a plug's config must not change yet.
    pub fn holds(&self, no: PlugNo) -> bool {
        self.held.contains(&no)
    }

    /// When [`Spacing::step`] has something to tell.
    pub fn due_at(&self) -> Option<Instant> {
        self.until.front().map(|(until, _)| *until)
    }

    /// The next plug whose config may change again at `now`.
    pub fn step(&mut self, now: Instant) -> Option<PlugNo> {
        let (_, no) = self.until.pop_front_if(|(until, _)| *until <= now)?;
        self.held.remove(&no);
        Some(no)
    }
}
