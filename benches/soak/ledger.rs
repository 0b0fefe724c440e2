//! What became of every command.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A command that has no result after so long will have none.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The commands that wait for their results, and how many had which end.
#[derive(Debug, Default)]
pub struct Ledger {
    waiting: BTreeMap<u64, Instant>,
    answered: BTreeMap<u64, Instant>,
    /// When the broker was killed, or the bridge frozen: what was on its way then, nobody can answer for.
    cuts: Vec<Instant>,
    /// All that were sent.
    pub sent: u64,
    /// By their results: `ok`, or an error's code.
    pub ended: BTreeMap<String, u64>,
    /// On their way when the broker died or the bridge was frozen.
    pub cut: u64,
    /// Without a result, and without an excuse.
    pub lost: u64,
    /// Results beyond the first.
    pub repeated: u64,
}

impl Ledger {
    /// A command goes out.
    pub fn sends(&mut self, transaction: u64, now: Instant) {
        self.sent += 1;
        self.waiting.insert(transaction, now);
    }

    /// What is on its way at this moment may be gone.
    pub fn cuts(&mut self, now: Instant) {
        self.cuts.push(now);
    }

    /// A result came.
    pub fn hears(&mut self, transaction: u64, end: &str, now: Instant) {
        if self.waiting.remove(&transaction).is_some() {
            self.answered.insert(transaction, now);
            *self.ended.entry(end.into()).or_default() += 1;
        } else if self.answered.contains_key(&transaction) {
            self.repeated += 1;
        } else {
            // It was given up: a late result is none.
            self.lost += 1;
        }
    }

    /// Gives up what waited for too long.
    pub fn settle(&mut self, now: Instant) {
        let cuts = &self.cuts;
        let given_up: Vec<bool> = self
            .waiting
            .extract_if(.., |_, sent| now.duration_since(*sent) > PATIENCE)
            .map(|(_, sent)| cuts.iter().any(|cut| *cut >= sent && cut.duration_since(sent) < PATIENCE))
            .collect();
        for excused in given_up {
            *if excused { &mut self.cut } else { &mut self.lost } += 1;
        }
        self.answered.retain(|_, at| now.duration_since(*at) < PATIENCE * 4);
        self.cuts.retain(|cut| now.duration_since(*cut) < PATIENCE * 4);
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
