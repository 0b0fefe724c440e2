//! Those who look on, and may switch: the status page. It is told of every plug that changed, and its commands go the
//! way of all commands.

use std::time::Instant;

use crate::bridge::command::{self, Command, Rejected};
use crate::bridge::plug::PlugNo;
use crate::bridge::queue::{AnswerTo, Pending};
use crate::bridge::topics::Verb;
use crate::bridge::view::{Change, Changed, View, Whole};
use crate::plug::command::Outlets;

use super::Core;

/// A command that did not come from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Comes back with the result, in [`Core::next_result`].
    pub ticket: u64,
    /// Name or MAC.
    pub plug: &'a str,
    /// The number of a strip's outlet; 0 for the plug as a whole.
    pub outlet: u8,
    /// As on the topic `set`.
    pub payload: &'a [u8],
    /// When it came.
    pub received: Instant,
}

/// There is no such plug, or it has no such outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

impl Core {
    /// Somebody looks on from now on.
    pub fn watch(&mut self) {
        self.changed = Some(Changed::default());
        self.show_all();
    }

    /// Whether [`Core::next_change`] has something.
    pub fn has_changes(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| !changed.is_empty())
    }

    /// What became of the next plug that changed.
    pub fn next_change(&mut self) -> Option<Change> {
        let no = self.changed.as_mut()?.pop()?;
        // One for which another shard may speak is shown there.
        let plug = self.fleet.get(no).filter(|plug| !plug.silent);
        Some(Change { no, view: plug.map(|plug| Box::new(View::of(plug))) })
    }

    /// The connection to the broker.
    pub fn whole(&self) -> Whole {
        Whole {
            connected: self.connected,
            sessions: self.vitals.sessions,
            acknowledged: self.vitals.acknowledged,
            dropped: self.vitals.dropped,
        }
    }

    /// Takes a command as if it had come from the broker; its result comes out of [`Core::next_result`].
    ///
    /// # Errors
    /// Nothing was done, and there will be no result: nobody knows whom it is for.
    pub fn wanted(&mut self, now: Instant, wanted: &Wanted<'_>) -> Result<(), Unknown> {
        let no = self.fleet.find(wanted.plug).ok_or(Unknown)?;
        let has_outlet = |number| self.fleet.get(no).is_some_and(|plug| plug.has_outlet(number));
        let outlets = match wanted.outlet {
            0 => Outlets::All,
            number if has_outlet(number) => Outlets::One(number),
            _ => return Err(Unknown),
        };
        let pending = |actions, transaction| Pending {
            id: 0,
            verb: Verb::Set.text(),
            answer_to: AnswerTo::Onlooker(wanted.ticket),
            actions,
            received: wanted.received,
            transaction,
        };
        match command::parse(Verb::Set, outlets, wanted.payload) {
            Ok(command) => {
                let Command { actions, transaction } = command.ok_or(Unknown)?;
                self.enqueue(now, no, pending(actions, transaction));
            }
            Err(Rejected { failure, transaction }) => {
                self.finish(now, no, &pending(Vec::new(), transaction), Err(failure));
            }
        }
        Ok(())
    }

    /// The next result of a command that did not come from the broker, with its ticket.
    pub fn next_result(&mut self) -> Option<(u64, Vec<u8>)> {
        self.results.pop_front()
    }

    /// What is shown of this plug may have changed.
    pub(super) fn show(&mut self, no: PlugNo) {
        if let Some(changed) = &mut self.changed {
            changed.mark(no);
        }
    }

    /// What is shown of any plug may have changed.
    pub(super) fn show_all(&mut self) {
        if let Some(changed) = &mut self.changed {
            self.fleet.plugs().for_each(|(no, _)| changed.mark(no));
        }
    }
}
