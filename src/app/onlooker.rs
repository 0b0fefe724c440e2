//! The status page's place at the core loop: changes go out, commands come in, and their results go back.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::mpsc::{self, Permit};
use tokio::sync::{oneshot, watch};

use crate::bridge::core::{Core, Wanted};
use crate::bridge::view::{Change, Whole};
use crate::http::{Ask, Ends};

/// Changes that are handed over in one turn of the core loop.
const AT_ONCE: usize = 16;

/// See the module. Without a status page its channels are closed, and it costs nothing.
pub(super) struct Onlooker {
    pub changes: mpsc::Sender<Change>,
    pub asks: mpsc::Receiver<Ask>,
    whole: Option<watch::Sender<Whole>>,
    /// Who waits for which result.
    waiting: HashMap<u64, oneshot::Sender<Option<Vec<u8>>>>,
    last_ticket: u64,
}

impl Onlooker {
    pub fn new(ends: Option<Ends>) -> Onlooker {
        let (changes, asks, whole) = match ends {
            Some(Ends { changes, whole, asks }) => (changes, asks, Some(whole)),
            None => (mpsc::channel(1).0, mpsc::channel(1).1, None),
        };
        Onlooker { changes, asks, whole, waiting: HashMap::new(), last_ticket: 0 }
    }

    /// Whether anybody looks on.
    pub fn is_there(&self) -> bool {
        self.whole.is_some()
    }

    pub fn follow(&mut self, core: &mut Core, ask: Ask) {
        match ask {
            Ask::Whole(answer) => drop(answer.send(core.whole())),
            Ask::Set { plug, outlet, payload, received, result } => {
                self.last_ticket += 1;
                let payload = payload.as_bytes();
                let wanted = Wanted { ticket: self.last_ticket, plug: &plug, outlet, payload, received };
                match core.wanted(Instant::now(), &wanted) {
                    Ok(()) => drop(self.waiting.insert(self.last_ticket, result)),
                    Err(_) => drop(result.send(None)),
                }
            }
        }
    }

    /// After every turn of the core loop.
    pub fn turn(&mut self, core: &mut Core) {
        while let Some((ticket, result)) = core.next_result() {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                // Who has gone meanwhile sees the state when he comes back.
                let _ = waiting.send(Some(result));
            }
        }
        if let Some(whole) = &self.whole {
            let now = core.whole();
            // What is counted is looked at, not told: nobody wakes up for each message that the broker takes.
            whole.send_if_modified(|told| std::mem::replace(told, now).connected != now.connected);
        }
    }

    /// The core stops: those who wait hear of it, and nobody asks any more.
    pub fn leave(&mut self, core: &mut Core) {
        self.turn(core);
        self.asks.close();
        while self.asks.try_recv().is_ok() {}
    }
}

/// Hands over what changed, as far as there is room.
pub(super) fn show(core: &mut Core, changes: &mpsc::Sender<Change>, permit: Permit<'_, Change>) {
    let Some(change) = core.next_change() else { return };
    permit.send(change);
    for _ in 1..AT_ONCE {
        let Ok(permit) = changes.try_reserve() else { return };
        let Some(change) = core.next_change() else { return };
        permit.send(change);
    }
}
