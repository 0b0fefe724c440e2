//! Orders: what an order takes is told by [`request::steps`]; here it is done, step by step, and believed only when
//! the plug confirms it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::plug::agenda::Question;
use crate::plug::command::{Action, Switch};
use crate::plug::error::{Error, unsupported};
use crate::plug::reading::Reading;
use crate::plug::reply::{Reply, printable};
use crate::plug::request::{self, Effect, Step};
use crate::plug::timer::Timer;

use super::Owner;

/// After a failure, orders within this time are answered without asking the plug again.
const REST: Duration = Duration::from_secs(1);

/// How often a LED that blinks changes after the first time; even, so that the last change is to how it was. LEDs are
/// slow (protocol.md 2.1).
const BLINKS: u8 = 10;
const BLINK: Duration = Duration::from_millis(500);

/// Connections on which a request is tried: enough to learn that a plug closes each of them after one reply.
const CONNECTIONS: u8 = 5;

/// A LED that blinks.
#[derive(Debug, Clone)]
pub struct Blink {
    /// Its next change.
    pub at: std::time::Instant,
    /// How it was, and is to be again.
    pub lit: bool,
    left: u8,
}

/// What an order came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Whether all of it was done.
    pub outcome: Result<(), Error>,
    /// What the plug replied to a request of the user's own.
    pub reply: Option<Box<Value>>,
    /// The plug as it is known now, with what it confirmed, even when a later part failed.
    pub reading: Option<Arc<Reading>>,
}

impl Owner {
    /// Carries out `actions` in this order, none of them begun after `deadline`. Ends at the first failure.
    pub async fn obey(&mut self, actions: &[Action], deadline: std::time::Instant) -> Done {
        let mut reply = None;
        let outcome = self.carry_out(actions, deadline, &mut reply).await;
        self.link.rest();
        match &outcome {
            Ok(()) => self.last_failure = None,
            Err(error) if error.is_contact_failure() => self.failed(error),
            Err(_) => {}
        }
        Done { outcome, reply, reading: self.reading() }
    }

    async fn carry_out(
        &mut self,
        actions: &[Action],
        deadline: std::time::Instant,
        reply: &mut Option<Box<Value>>,
    ) -> Result<(), Error> {
        if let Some((at, error)) = &self.last_failure
            && at.elapsed() < REST
        {
            return Err(Error::Resting(error.to_string()));
        }
        for action in actions {
            in_time(deadline)?;
            // A new connection is asked for its identity, and the relay's position, before it is told anything.
            let reading = match self.reading.clone().filter(|_| self.link.is_vouched_for()) {
                Some(reading) if *action != Action::Refresh => reading,
                _ => self.read().await?,
            };
            match action {
                Action::Raw(request) => {
                    let answer = self.tell(request.to_string().as_bytes(), false, deadline).await?;
                    *reply = Some(Box::new(answer.into_value()));
                    self.schedule.commanded(Instant::now().into_std());
                }
                Action::Identify => self.begin_to_blink(&reading, deadline).await?,
                Action::Refresh => self.hasten_everything(),
                _ => {
                    for step in request::steps(action, &reading)? {
                        self.take_step(&step, deadline).await?;
                    }
                }
            }
        }
        for action in actions {
            if matches!(action, Action::OffAfter { time, .. } if !time.is_zero()) {
                self.prove_timer(action, deadline).await?;
            }
        }
        Ok(())
    }

    async fn take_step(&mut self, step: &Step, deadline: std::time::Instant) -> Result<(), Error> {
        self.tell(&step.request, step.repeatable, deadline).await?.confirm(step.confirms)?;
        self.confirmed(&step.effect);
        Ok(())
    }

    /// Tells the plug something, and nobody else: on a connection on which it has said who it is. Nothing is begun after
    /// `deadline`; what is not `repeatable` is not sent twice, unless it certainly was not carried out.
    ///
    /// A plug that closes after each reply has to be told on another connection, right after it has said who it is; but
    /// only when that is its habit. One connection that ends early may mean that the plug has gone and another has its
    /// address.
    pub(super) async fn tell(
        &mut self,
        request: &[u8],
        repeatable: bool,
        deadline: std::time::Instant,
    ) -> Result<Reply, Error> {
        for _ in 0..CONNECTIONS {
            in_time(deadline)?;
            if self.link.closes_after_each_reply() {
                return self.link.exchange(request, repeatable).await;
            }
            let is_open = self.link.is_vouched_for();
            match self.link.exchange_here(request).await {
                Err(error) if error.is_lost_connection() && (repeatable || !is_open || error.is_undone()) => {
                    self.read().await?;
                }
                outcome => return outcome,
            }
        }
        Err(Error::Closed)
    }

    /// Takes over what the plug confirmed with `err_code` 0.
    fn confirmed(&mut self, effect: &Effect) {
        let Some(before) = self.reading.as_deref() else { return };
        let (now, wall) = (Instant::now().into_std(), (self.wall)());
        let mut reading = before.clone();
        self.schedule.commanded(now);
        match effect {
            Effect::None => return,
            Effect::Relay(outlet, on) => {
                if reading.is_strip() && reading.outlets.get(*outlet).is_some_and(|one| one.relay != *on) {
                    self.agenda.hasten(Question::Energy(*outlet), now);
                }
                reading.relay_moved(*outlet, *on, wall);
            }
            Effect::Level(level) => {
                reading.relay_moved(0, *level > 0, wall);
                if *level > 0 {
                    reading.outlets[0].brightness = Some(*level);
                }
            }
            Effect::Led(lit) => reading.led = Some(*lit),
            Effect::Motion(on) => {
                self.known.motion = Some(*on);
                self.agenda.hasten(Question::Motion, now + BLINK);
            }
            Effect::OffAfter(outlet, time) => {
                let timer = (!time.is_zero()).then(|| Timer::ending_in(*time, false, wall));
                if let Some(known) = self.known.timers.get_mut(*outlet) {
                    *known = timer;
                }
            }
            Effect::Alias(None, alias) => reading.alias = printable(alias, 128),
            Effect::Alias(Some(one), alias) => {
                if let Some(outlet) = reading.outlets.get_mut(*one) {
                    outlet.alias = printable(alias, 128);
                }
            }
            Effect::Rebooting => {
                self.link.close();
                self.schedule.rebooting(now);
                // It goes on answering for a moment.
                let back = self.schedule.next() + BLINK;
                self.agenda.rest_until(back);
                self.agenda.hasten(Question::Cloud, back);
                self.agenda.hasten(Question::Clock, back);
            }
        }
        self.known.complete(&mut reading, wall);
        self.take(reading);
    }

    /// What was read for this order is new; the rarer questions follow at once, one at a time.
    fn hasten_everything(&mut self) {
        let now = Instant::now().into_std();
        let outlets = self.reading.as_deref().map_or(0, |reading| reading.outlets.len());
        for index in 0..outlets {
            self.agenda.hasten(Question::Energy(index), now);
            self.agenda.hasten(Question::Statistics(index), now);
        }
        for question in [Question::Cloud, Question::Clock, Question::Motion] {
            self.agenda.hasten(question, now);
        }
    }

    /// Somebody's heater hangs on it: a timer counts only when the plug itself tells that it runs. Tried twice.
    async fn prove_timer(&mut self, action: &Action, deadline: std::time::Instant) -> Result<(), Error> {
        let Some(reading) = self.reading.clone() else { return Ok(()) };
        for step in request::steps(action, &reading)? {
            let Effect::OffAfter(outlet, _) = step.effect else { continue };
            if self.timer_runs(outlet).await? {
                continue;
            }
            self.take_step(&step, deadline).await?;
            if !self.timer_runs(outlet).await? {
                return Err(Error::Malformed("the plug took the timer and does not run it".into()));
            }
        }
        Ok(())
    }

    async fn timer_runs(&mut self, outlet: usize) -> Result<bool, Error> {
        self.agenda.hasten(Question::Timer(outlet), Instant::now().into_std());
        match self.ask(Question::Timer(outlet)).await {
            true => Ok(self.known.timers[outlet].is_some()),
            false => Err(Error::Closed),
        }
    }

    async fn begin_to_blink(&mut self, reading: &Reading, deadline: std::time::Instant) -> Result<(), Error> {
        let lit = self.blink.as_ref().map(|blink| blink.lit).or(reading.led);
        let lit = lit.ok_or_else(|| unsupported("no LED that can be switched"))?;
        for step in request::steps(&led(!lit), reading)? {
            self.take_step(&Step { effect: Effect::None, ..step }, deadline).await?;
        }
        self.blink = Some(Blink { at: Instant::now().into_std() + BLINK, lit, left: BLINKS });
        Ok(())
    }

    /// One change of a LED that blinks; after the last it is as it was.
    pub(super) async fn blink_on(&mut self) {
        let (Some(mut blink), Some(reading)) = (self.blink.take(), self.reading.clone()) else { return };
        blink.left -= 1;
        let deadline = Instant::now().into_std() + BLINK * 10;
        let to = if blink.left.is_multiple_of(2) { !blink.lit } else { blink.lit };
        for step in request::steps(&led(to), &reading).unwrap_or_default() {
            let told = self.tell(&step.request, true, deadline).await;
            let told = told.and_then(|reply| reply.confirm(step.confirms));
            if told.is_err() {
                // Whoever looks for a plug that cannot be reached sees that in its state.
                return;
            }
        }
        if blink.left > 1 {
            blink.at = Instant::now().into_std() + BLINK;
            self.blink = Some(blink);
        }
    }
}

fn led(lit: bool) -> Action {
    Action::Led(if lit { Switch::On } else { Switch::Off })
}

fn in_time(deadline: std::time::Instant) -> Result<(), Error> {
    if Instant::now().into_std() >= deadline { Err(Error::Stale) } else { Ok(()) }
}
