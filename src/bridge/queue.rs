//! The commands waiting for one plug. One runs; of those waiting the newest for each attribute wins.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::plug::command::{Action, Switch};
use crate::plug::error::Error;
use crate::plug::task::Order;

use super::result::{Code, Failure};

/// How many commands may wait for one plug. Latest-wins keeps it to a handful, except for toggles.
const LONGEST: usize = 32;

/// The order that only asks a plug who it is; no command has this number.
pub const INQUIRY: u64 = u64::MAX;

/// A command, from its arrival to its result.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// Unique within this program.
    pub id: u64,
    /// The end of its topic, repeated in the result.
    pub verb: String,
    /// Where its result goes.
    pub answer_to: AnswerTo,
    /// What to do.
    pub actions: Vec<Action>,
    /// When it came off the wire.
    pub received: Instant,
    /// Comes back in the result.
    pub transaction: Option<Value>,
}

/// Where the answer to a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerTo {
    /// The plug's result topic, or that of one of its outlets.
    Result(Option<u8>),
    /// Whoever looks on and gave it this ticket.
    Onlooker(u64),
    /// The response to a request to the bridge.
    Response {
        /// Below the bridge's topic.
        topic: &'static str,
        /// Whether private parts of the plug's reply are to be in it.
        unmasked: bool,
    },
}

/// One plug's commands.
#[derive(Debug, Default)]
pub struct Queue {
    running: Option<Pending>,
    /// An inquiry runs.
    inquires: bool,
    /// A handful, so a `Vec` will do.
    waiting: Vec<Pending>,
}

impl Queue {
    /// Adds a command. Returns those that it makes pointless, each to be answered.
    pub fn push(&mut self, command: Pending) -> Vec<(Pending, Failure)> {
        let pointless = |older: &mut Pending| covers(&command.actions, &older.actions);
        let mut ended: Vec<Pending> = self.waiting.extract_if(.., pointless).collect();
        self.waiting.push(command);
        if self.waiting.len() > LONGEST {
            ended.push(self.waiting.remove(0));
        }
        let failure = || Failure {
            code: Code::Superseded,
            message: "a newer command came before this was begun".into(),
        };
        ended.into_iter().map(|command| (command, failure())).collect()
    }

    /// The next command to send to the plug, when none is running. `ttl` counts from its arrival.
    pub fn next(&mut self, ttl: Duration) -> Option<Order> {
        if self.inquires || self.running.is_some() || self.waiting.is_empty() {
            return None;
        }
        let next = self.waiting.remove(0);
        let order = Order { id: next.id, actions: next.actions.clone(), deadline: next.received + ttl };
        self.running = Some(next);
        Some(order)
    }

    /// The same for a plug of which nobody knows yet whose it is: it is asked who it is, and the commands wait.
    pub fn inquire(&mut self, ttl: Duration) -> Option<Order> {
        let first = self.waiting.first().filter(|_| !self.inquires)?;
        self.inquires = true;
        Some(Order { id: INQUIRY, actions: vec![Action::Refresh], deadline: first.received + ttl })
    }

    /// The running command ended; `None` when `id` is not the one that runs.
    pub fn finish(&mut self, id: u64) -> Option<Pending> {
        self.inquires &= id != INQUIRY;
        self.running.take_if(|running| running.id == id)
    }

    /// What waits cannot be done any more, or is too old: it is taken out, to be answered.
    pub fn refuse(&mut self, why: &Error) -> Vec<(Pending, Failure)> {
        self.waiting.drain(..).map(|command| (command, Failure::from(why))).collect()
    }

    /// The bridge ends: everything is taken out, to be answered.
    pub fn drain(&mut self, why: &str) -> Vec<(Pending, Failure)> {
        let running = || Failure { code: Code::Timeout, message: format!("{why}; the plug may have obeyed") };
        let waiting = || Failure { code: Code::Offline, message: why.into() };
        let running = self.running.take().map(|command| (command, running()));
        running.into_iter().chain(self.waiting.drain(..).map(|command| (command, waiting()))).collect()
    }
}

/// Whether doing `newer` makes `older` pointless: each of its actions is outdone by an absolute one of the same kind.
/// A toggle depends on what came before it, so it outdoes nothing.
fn covers(newer: &[Action], older: &[Action]) -> bool {
    older.iter().all(|older| newer.iter().any(|newer| outdoes(newer, older)))
}

fn outdoes(newer: &Action, older: &Action) -> bool {
    use Action::{Alias, Fade, OffAfter, Relay};
    if let Relay { to: Switch::Toggle, .. }
    | Fade { to: Switch::Toggle, .. }
    | Action::Led(Switch::Toggle)
    | Action::Motion(Switch::Toggle) = newer
    {
        return false;
    }
    match (newer, older) {
        (Relay { outlets: newer, .. }, Relay { outlets: older, .. })
        | (OffAfter { outlets: newer, .. }, OffAfter { outlets: older, .. }) => newer.cover(*older),
        (Alias { outlets: newer, .. }, Alias { outlets: older, .. }) => newer == older,
        // A level that nobody has set again is not lost.
        (Fade { level: newer, .. }, Fade { level: older, .. }) => newer.is_some() || older.is_none(),
        (Fade { .. }, Relay { .. })
        | (Action::Led(_), Action::Led(_))
        | (Action::Motion(_), Action::Motion(_))
        | (Action::Identify, Action::Identify)
        | (Action::Reboot, Action::Reboot)
        | (Action::Refresh, Action::Refresh) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::command::Outlets;

    const TTL: Duration = Duration::from_secs(10);

    fn relay(to: Switch) -> Action {
        Action::Relay { outlets: Outlets::All, to }
    }

    fn pending(id: u64, actions: Vec<Action>) -> Pending {
        Pending {
            id,
            verb: "set".into(),
            answer_to: AnswerTo::Result(None),
            actions,
            received: Instant::now(),
            transaction: None,
        }
    }

    /// Pushes commands numbered from 0 while number 0 runs; returns which were superseded and which run after it.
    fn run(commands: Vec<Vec<Action>>) -> (Vec<u64>, Vec<u64>) {
        let mut queue = Queue::default();
        queue.push(pending(1000, vec![Action::Refresh]));
        assert_eq!(queue.next(TTL).unwrap().id, 1000);
        let mut superseded = vec![];
        for (id, actions) in commands.into_iter().enumerate() {
            superseded.extend(queue.push(pending(id as u64, actions)).into_iter().map(|(ended, _)| ended.id));
        }
        assert_eq!(queue.next(TTL), None, "one at a time");
        assert_eq!(queue.finish(7), None);
        assert!(queue.finish(1000).is_some());
        let mut order = vec![];
        while let Some(next) = queue.next(TTL) {
            order.push(next.id);
            queue.finish(next.id).unwrap();
        }
        (superseded, order)
    }

    #[test]
    fn the_newest_wins_per_attribute() {
        let (on, off, led) = (relay(Switch::On), relay(Switch::Off), Action::Led(Switch::On));
        assert_eq!(run(vec![vec![on.clone()], vec![off.clone()]]), (vec![0], vec![1]));
        assert_eq!(run(vec![vec![on.clone()], vec![led.clone()], vec![off.clone()]]), (vec![0], vec![1, 2]));
        // Half of it would be lost: it stays, and runs first.
        assert_eq!(run(vec![vec![on.clone(), led.clone()], vec![off.clone()]]), (vec![], vec![0, 1]));
        assert_eq!(run(vec![vec![on.clone()], vec![off, led]]), (vec![0], vec![1]));
    }

    #[test]
    fn a_toggle_outdoes_nothing_but_is_outdone() {
        let toggle = relay(Switch::Toggle);
        assert_eq!(run(vec![vec![toggle.clone()], vec![toggle.clone()]]), (vec![], vec![0, 1]));
        assert_eq!(run(vec![vec![toggle.clone()], vec![relay(Switch::On)]]), (vec![0], vec![1]));
        let (superseded, order) = run(vec![vec![toggle]; 40]);
        assert_eq!(superseded, (0..8).collect::<Vec<_>>(), "the oldest go when too many wait");
        assert_eq!(order.len(), LONGEST);
    }
}
