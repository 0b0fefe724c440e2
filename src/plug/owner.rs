//! The sole owner of one plug's link: knows what the plug said, and does one thing with it at a time.
//!
//! What it does, it does when told: [`Owner::due_at`] says when there is something, [`Owner::act`] does it, and
//! [`Owner::obey`] carries out an order. [`task`](super::task) calls them in turn; a command at a shell calls them once.

mod ask;
mod obey;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::agenda::{Agenda, Question};
use super::clock::Keeper;
use super::emeter::{Emeter, REALTIME};
use super::error::Error;
use super::known::Known;
use super::link::{Access, Link};
use super::mac::Mac;
use super::reading::Reading;
use super::request;
use super::schedule::Schedule;
use super::sysinfo::Sysinfo;
use crate::steps::Steps;

pub use obey::Done;

/// Tells the time of day. Not the system's own clock in tests, where hours pass in no time.
pub type Wall = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// After a timer has ended, the plug is looked at with this delay.
const AFTER_TIMER: Duration = Duration::from_millis(500);

/// How to reach a plug, and how often.
#[derive(Clone)]
pub struct Settings {
    /// Address or name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What else it takes to reach it.
    pub access: Access,
    /// Whose address it is, where that is known: nobody else is talked to there.
    pub mac: Option<Mac>,
    /// Time between polls.
    pub interval: Duration,
    /// Time between two questions for what is costly to read.
    pub energy_interval: Duration,
    /// Time given to each connect and each exchange.
    pub timeout: Duration,
    /// Time from now to the first poll.
    pub first_poll: Duration,
    /// The moments at which it may be polled, as others are.
    pub steps: Steps,
    /// What its clock ought to show.
    pub keeper: Arc<Keeper>,
    /// The time of day.
    pub wall: Wall,
}

/// See the module.
pub struct Owner {
    link: Link,
    schedule: Schedule,
    /// Once learnt, the only plug we talk to at this address.
    mac: Option<Mac>,
    reading: Option<Arc<Reading>>,
    known: Known,
    agenda: Agenda,
    last_failure: Option<(Instant, Error)>,
    blink: Option<obey::Blink>,
    clock_is_stuck: bool,
    took: Option<Duration>,
    energy_interval: Duration,
    keeper: Arc<Keeper>,
    wall: Wall,
}

impl Owner {
    /// Of a plug that was not asked anything yet.
    pub fn new(settings: &Settings) -> Owner {
        let first = Instant::now().into_std() + settings.first_poll;
        let phase = settings.interval.mul_f64(fastrand::f64());
        Owner {
            link: Link::new(&settings.host, settings.port, settings.timeout, settings.access.clone()),
            schedule: Schedule::new(settings.interval, first, phase, settings.steps),
            mac: settings.mac,
            reading: None,
            known: Known::default(),
            agenda: Agenda::default(),
            last_failure: None,
            blink: None,
            clock_is_stuck: false,
            took: None,
            energy_interval: settings.energy_interval,
            keeper: Arc::clone(&settings.keeper),
            wall: Arc::clone(&settings.wall),
        }
    }

    /// The plug was found elsewhere.
    pub fn move_to(&mut self, host: &str, port: u16) {
        self.link.move_to(host, port);
        self.last_failure = None;
        self.schedule.hasten(Instant::now().into_std());
    }

    /// The plug as it is known now.
    pub fn reading(&self) -> Option<Arc<Reading>> {
        self.reading.clone()
    }

    /// How long the last poll took to be answered; told once.
    pub fn took(&mut self) -> Option<Duration> {
        self.took.take()
    }

    /// Whether the LED blinks, so that [`Owner::act`] is to be called until it does not.
    pub fn is_blinking(&self) -> bool {
        self.blink.is_some() && self.may_ask()
    }

    /// When [`Owner::act`] has something to do.
    pub fn due_at(&self) -> Instant {
        let question = self.agenda.due_at().filter(|_| self.may_ask());
        let blink = self.blink.as_ref().map(|blink| blink.at).filter(|_| self.may_ask());
        let others = [question, blink].into_iter().flatten();
        Instant::from_std(others.fold(self.schedule.next(), std::time::Instant::min))
    }

    /// Does what is due: a poll, or one of the rarer questions. `None` when it came to nothing new.
    pub async fn act(&mut self) -> Option<Result<Arc<Reading>, Error>> {
        let news = self.do_what_is_due().await;
        self.link.rest();
        news
    }

    async fn do_what_is_due(&mut self) -> Option<Result<Arc<Reading>, Error>> {
        let now = Instant::now().into_std();
        let mut news = None;
        // Whoever answers on a new connection is asked for its identity first.
        if self.schedule.next() <= now || !self.link.is_vouched_for() {
            news = Some(self.poll().await);
        }
        if !self.may_ask() {
            return news;
        }
        if self.blink.as_ref().is_some_and(|blink| blink.at <= now) {
            self.blink_on().await;
        } else if let Some(question) = self.agenda.next_due(now)
            && self.ask(question).await
        {
            news = self.reading.clone().map(Ok);
        }
        news
    }

    /// Questions are for a plug that is well.
    fn may_ask(&self) -> bool {
        self.reading.is_some() && !self.schedule.is_failing() && self.last_failure.is_none()
    }

    async fn poll(&mut self) -> Result<Arc<Reading>, Error> {
        let outcome = self.read().await;
        match &outcome {
            Ok(_) => {}
            Err(Error::Unsupported(_)) => self.schedule.left_alone(Instant::now().into_std()),
            Err(error) => self.failed(error),
        }
        outcome
    }

    fn failed(&mut self, error: &Error) {
        let now = Instant::now();
        self.schedule.failed(now.into_std(), fastrand::f64());
        // A plug that answers, however badly, is there to be asked again.
        self.last_failure = Some((now, error.clone())).filter(|(_, error)| error.is_contact_failure());
    }

    /// Reads what every poll reads: sysinfo, and the meter of a single plug.
    pub async fn read(&mut self) -> Result<Arc<Reading>, Error> {
        let was_failing = self.schedule.is_failing();
        let has_meter = |reading: &Reading| reading.has_meter() && !reading.is_strip();
        let expects_meter = self.reading.as_deref().map(has_meter);
        let mut sysinfo = self.ask_sysinfo(expects_meter.unwrap_or(false)).await?;
        if expects_meter.is_none() && has_meter(&sysinfo.reading) {
            // The first question to a new acquaintance was sysinfo alone; now the meter is known to be there.
            sysinfo = self.ask_sysinfo(true).await?;
        }
        let now = Instant::now().into_std();
        for index in self.known.timers_in_doubt(&sysinfo.timers) {
            self.agenda.hasten(Question::Timer(index), now);
        }
        if let Some(before) = self.reading.as_deref().filter(|reading| reading.is_strip()) {
            let moved = before.outlets.iter().zip(&sysinfo.reading.outlets).map(|(a, b)| a.relay != b.relay);
            for (index, _) in moved.enumerate().filter(|(_, moved)| *moved) {
                self.agenda.hasten(Question::Energy(index), now);
            }
        }
        // It may have restarted, and lost its clock.
        let restarted = was_failing
            || self.reading.as_deref().is_some_and(|before| sysinfo.reading.was_restarted_since(before));
        let mut reading = sysinfo.reading;
        self.known.complete(&mut reading, (self.wall)());
        let reading = self.take(reading);
        self.last_failure = None;
        self.schedule.succeeded(now);
        if let Some(ends_in) =
            reading.outlets.iter().filter_map(|outlet| outlet.timer).map(|timer| timer.remaining).min()
        {
            self.schedule.hasten(now + ends_in + AFTER_TIMER);
        }
        if restarted {
            self.agenda.hasten(Question::Cloud, now);
            self.agenda.hasten(Question::Clock, now);
        }
        Ok(reading)
    }

    async fn ask_sysinfo(&mut self, with_meter: bool) -> Result<Sysinfo, Error> {
        let request = if with_meter { request::GET_SYSINFO_AND_ENERGY } else { request::GET_SYSINFO };
        let asked = Instant::now();
        let reply = self.link.exchange(request, true).await?;
        self.took = Some(asked.elapsed());
        let mut sysinfo = Sysinfo::parse(&reply, (self.wall)())?;
        sysinfo.reading.protocol = self.link.protocol();
        let found = sysinfo.reading.mac;
        if let Some(expected) = self.mac.filter(|mac| *mac != found) {
            self.link.close();
            return Err(Error::WrongPlug { expected, found });
        }
        self.link.vouch();
        let now = Instant::now().into_std();
        if self.reading.as_deref().is_none_or(|before| is_another_kind(before, &sysinfo.reading)) {
            self.known = Known::new(&sysinfo);
            self.agenda = Agenda::new(&sysinfo.reading, sysinfo.tells_next_action, self.energy_interval, now);
        }
        self.mac = Some(found);
        if with_meter {
            // A meter that fails leaves its quantities unknown; it never fails the reading (protocol.md 5).
            let emeter = reply.method(REALTIME).map(Emeter::parse).unwrap_or_default();
            self.known.meters[0].realtime(emeter, now);
        }
        Ok(sysinfo)
    }

    /// A new reading; moments in it stay where they were.
    fn take(&mut self, mut reading: Reading) -> Arc<Reading> {
        if let Some(earlier) = &self.reading {
            reading = reading.steadied_by(earlier);
        }
        if let Some(blink) = &self.blink {
            reading.led = Some(blink.lit);
        }
        let reading = Arc::new(reading);
        self.reading = Some(Arc::clone(&reading));
        reading
    }
}

/// Whether the plug has other parts than before, as after an update of its firmware.
fn is_another_kind(before: &Reading, now: &Reading) -> bool {
    (before.outlets.len(), before.has_meter(), before.motion.is_some(), before.kind)
        != (now.outlets.len(), now.has_meter(), now.motion.is_some(), now.kind)
}
