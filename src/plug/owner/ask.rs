//! The questions beside the poll: each one exchange, and none of them able to fail a reading.

use jiff::civil::DateTime;
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::plug::agenda::Question;
use crate::plug::clock::{self, GET_TIME, SET_TIMEZONE};
use crate::plug::emeter::{DAYS, Emeter, MONTHS, REALTIME, energy_of};
use crate::plug::error::{Error, unsupported};
use crate::plug::json::Json;
use crate::plug::meter::PROOF_AFTER;
use crate::plug::reading::Outlet;
use crate::plug::reply::{Method, Reply};
use crate::plug::request;
use crate::plug::timer::{self, NextAction, Timer};

use super::Owner;

const CLOUD: Method = ("cnCloud", "get_info");
const MOTION: Method = ("smartlife.iot.PIR", "get_config");
const NEXT_ACTION: Method = ("schedule", "get_next_action");

impl Owner {
    /// Asks, and takes the answer in. False when the plug was lost over it: the next poll tells what that means.
    pub(super) async fn ask(&mut self, question: Question) -> bool {
        let outcome = self.put(question).await;
        let now = Instant::now().into_std();
        match outcome {
            Ok(()) => self.agenda.answered(question, now),
            Err(error) => {
                self.forget(question);
                let answered_somehow = !error.is_contact_failure() || matches!(error, Error::Malformed(_));
                if error.is_unknown_to_plug() {
                    self.agenda.unknown(question);
                } else if answered_somehow {
                    self.agenda.answered(question, now);
                } else if self.agenda.lost(question, now) {
                    let mac = self.mac.map(|mac| mac.to_string());
                    warn!(
                        mac,
                        ?question,
                        "the plug does not survive this question and is not asked it for a week"
                    );
                    return false;
                } else {
                    return false;
                }
            }
        }
        self.ask_again(question, now);
        self.fill_in();
        true
    }

    /// Asks everything that is known to be answerable, for a person who wants to see it all.
    pub async fn ask_everything(&mut self) {
        let far = Instant::now().into_std() + self.energy_interval.saturating_mul(10);
        let mut asked = Vec::new();
        while let Some(question) = self.agenda.next_due(far).filter(|question| !asked.contains(question)) {
            asked.push(question);
            self.ask(question).await;
        }
    }

    /// The reading with what is known now.
    pub(super) fn fill_in(&mut self) {
        if let Some(before) = self.reading.as_deref() {
            let mut reading = before.clone();
            self.known.complete(&mut reading, (self.wall)());
            self.take(reading);
        }
    }

    async fn put(&mut self, question: Question) -> Result<(), Error> {
        match question {
            Question::Energy(index) => {
                let request = self.of_outlet(index, request::realtime)?;
                let reply = self.link.exchange(&request, true).await?;
                let emeter = Emeter::parse(reply.method(REALTIME)?);
                self.known.meters[index].realtime(emeter, Instant::now().into_std());
            }
            Question::Statistics(index) => self.put_statistics(index).await?,
            Question::Cloud => {
                let reply = self.simple(CLOUD).await?;
                self.known.cloud = reply.method(CLOUD)?.get("cld_connection").and_then(Json::as_bit);
            }
            Question::Motion => {
                let reply = self.simple(MOTION).await?;
                self.known.motion = reply.method(MOTION)?.get("enable").and_then(Json::as_bit);
            }
            Question::NextAction => {
                let reply = self.simple(NEXT_ACTION).await?;
                self.known.next_action = NextAction::parse(reply.method(NEXT_ACTION)?);
            }
            Question::Timer(index) => {
                let child = self.of_outlet(index, |outlet| outlet.child.clone())?;
                let request = request::request(child.as_deref(), timer::GET_RULES, json!({}));
                let reply = self.link.exchange(&request, true).await?;
                self.known.timers[index] = Timer::parse(reply.method(timer::GET_RULES)?, (self.wall)());
            }
            Question::Clock => self.put_clock().await?,
        }
        Ok(())
    }

    /// Both lists in one exchange. "Today" is the plug's own day (protocol.md 4).
    async fn put_statistics(&mut self, index: usize) -> Result<(), Error> {
        let now = Instant::now().into_std();
        let local = self.known.local(now);
        let local = local.or_else(|| self.keeper.local((self.wall)()).map(|zoned| zoned.datetime()));
        let local = local.ok_or_else(|| unsupported("no date"))?;
        let request =
            self.of_outlet(index, |outlet| request::statistics(outlet, local.year(), local.month()))?;
        let reply = self.link.exchange(&request, true).await?;
        let days = reply.method(DAYS).map(|days| energy_of(days, "day_list", "day", local.day().into()));
        let months =
            reply.method(MONTHS).map(|months| energy_of(months, "month_list", "month", local.month().into()));
        if let (Err(error), Err(_)) = (&days, &months) {
            return Err(error.clone());
        }
        self.known.meters[index].statistics(days.ok().flatten(), months.ok().flatten(), now);
        Ok(())
    }

    /// Reads the plug's clock, sets it if that is ours to do, and looks whether it obeyed.
    async fn put_clock(&mut self) -> Result<(), Error> {
        let shown = self.read_clock().await?;
        let wall = (self.wall)();
        if !self.keeper.is_to_set(shown, self.known.cloud, wall) {
            self.clock_is_stuck = false;
            return Ok(());
        }
        let Some(right) = self.keeper.right_time(wall) else { return Ok(()) };
        let request = request::request(None, SET_TIMEZONE, right);
        let deadline = Instant::now().into_std() + self.energy_interval;
        let set = self.tell(&request, true, deadline).await?.confirm(SET_TIMEZONE);
        let now_shown = self.read_clock().await?;
        let mac = self.mac.map(|mac| mac.to_string());
        // Early HS110 firmware takes the zone and leaves the clock (protocol.md 2.2).
        let is_stuck = self.keeper.is_to_set(now_shown, self.known.cloud, (self.wall)());
        if !is_stuck {
            info!(mac, "the plug's clock showed {shown} and was set to {now_shown}");
            for index in 0..self.known.meters.len() {
                self.agenda.hasten(Question::Statistics(index), Instant::now().into_std());
            }
            self.agenda.hasten(Question::NextAction, Instant::now().into_std());
        } else if !self.clock_is_stuck {
            let reason = set.err().map(|error| error.to_string());
            warn!(mac, reason, "the plug's clock shows {now_shown} and cannot be set");
        }
        self.clock_is_stuck = is_stuck;
        Ok(())
    }

    async fn read_clock(&mut self) -> Result<DateTime, Error> {
        let reply = self.simple(GET_TIME).await?;
        let shown = clock::parse(reply.method(GET_TIME)?);
        let shown = shown.ok_or_else(|| Error::Malformed("time.get_time is no time".into()))?;
        self.known.clock = Some((shown, Instant::now().into_std()));
        Ok(shown)
    }

    async fn simple(&mut self, method: Method) -> Result<Reply, Error> {
        let request = request::request(None, method, json!({}));
        self.link.exchange(&request, true).await
    }

    fn of_outlet<T>(&self, index: usize, of: impl FnOnce(&Outlet) -> T) -> Result<T, Error> {
        let outlet = self.reading.as_deref().and_then(|reading| reading.outlets.get(index));
        outlet.map(of).ok_or_else(|| unsupported("no such outlet"))
    }

    /// An answer that failed is unknown, never the one before.
    fn forget(&mut self, question: Question) {
        let now = Instant::now().into_std();
        match question {
            Question::Energy(index) => self.known.meters[index].realtime(Emeter::default(), now),
            Question::Statistics(index) => self.known.meters[index].statistics(None, None, now),
            Question::Cloud => self.known.cloud = None,
            Question::Motion => self.known.motion = None,
            Question::NextAction => self.known.next_action = None,
            Question::Timer(index) => self.known.timers[index] = None,
            Question::Clock => self.known.clock = None,
        }
    }

    /// What an answer makes worth asking before its usual time.
    fn ask_again(&mut self, question: Question, now: std::time::Instant) {
        match question {
            Question::Energy(index) if self.known.meters[index].doubts_total() => {
                self.agenda.hasten(question, now + PROOF_AFTER);
            }
            Question::Statistics(index) if self.known.meters[index].doubts_statistics() => {
                self.agenda.hasten(question, now + PROOF_AFTER);
            }
            // Somebody may change it meanwhile.
            Question::Timer(index) if self.known.timers[index].is_some() => {
                self.agenda.hasten(question, now + self.energy_interval);
            }
            Question::Clock => {
                let wall = (self.wall)();
                let change =
                    self.keeper.next_change(wall).and_then(|change| change.duration_since(wall).ok());
                if let Some(change) = change {
                    self.agenda.hasten(question, now + change + PROOF_AFTER);
                }
            }
            _ => {}
        }
    }
}
