//! The sole owner of one plug's connection: polls it, carries out orders, reports. Ends when its inbox closes.
//!
//! One request is in flight at any time. An order overtakes every poll that has not begun; a poll that was begun is
//! finished first, so its result is always older than the order's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::command::Action;
use super::error::Error;
use super::link::Link;
use super::mac::Mac;
use super::reading::Reading;
use super::reply::{Reply, printable};
use super::request;
use super::schedule::Schedule;

/// After a failure, orders within this time are answered without asking the plug again.
const REST: Duration = Duration::from_secs(1);

/// A command on its way to a plug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Comes back in [`Event::Done`].
    pub id: u64,
    /// What to do, in this order. Ends at the first failure.
    pub actions: Vec<Action>,
    /// Nothing of it is begun after this moment.
    pub deadline: std::time::Instant,
}

/// What became of a poll or an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A poll ended.
    Polled(Result<Arc<Reading>, Error>),
    /// An order ended. The reading is the latest known, with what the plug confirmed, even when a later part failed.
    Done {
        /// [`Order::id`].
        order: u64,
        /// Whether all of it was done.
        outcome: Result<(), Error>,
        /// The plug as it is known now.
        reading: Option<Arc<Reading>>,
    },
}

/// Sent to the core for every poll and every order.
#[derive(Debug, Clone, PartialEq)]
pub struct Report<P> {
    /// Which plug.
    pub plug: P,
    /// When the plug had answered, or had failed to.
    pub at: std::time::Instant,
    /// What happened.
    pub event: Event,
}

/// What a task needs to know of its plug.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address or name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Time between polls.
    pub interval: Duration,
    /// Time given to each connect and each exchange.
    pub timeout: Duration,
    /// Time from now to the first poll.
    pub first_poll: Duration,
}

/// Runs one plug until `inbox` closes, or nobody listens to `reports` any more. Orders come in boxes because a channel
/// keeps room for 32 of them, in each of 10,000 tasks.
pub async fn run<P: Copy>(
    plug: P,
    settings: Settings,
    mut inbox: mpsc::Receiver<Box<Order>>,
    reports: mpsc::Sender<Report<P>>,
) {
    let mut owner = Owner::new(&settings);
    loop {
        let event = tokio::select! {
            biased;
            order = inbox.recv() => match order {
                Some(order) => owner.obey(order).await,
                None => return,
            },
            () = sleep_until(Instant::from_std(owner.schedule.next())) => Event::Polled(owner.poll().await),
        };
        let report = Report { plug, at: Instant::now().into_std(), event };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

struct Owner {
    link: Link,
    schedule: Schedule,
    /// Once learnt, the only plug we talk to at this address.
    mac: Option<Mac>,
    reading: Option<Arc<Reading>>,
    last_failure: Option<(Instant, Error)>,
}

impl Owner {
    fn new(settings: &Settings) -> Owner {
        let first = Instant::now().into_std() + settings.first_poll;
        let phase = settings.interval.mul_f64(fastrand::f64());
        Owner {
            link: Link::new(&settings.host, settings.port, settings.timeout),
            schedule: Schedule::new(settings.interval, first, phase),
            mac: None,
            reading: None,
            last_failure: None,
        }
    }

    async fn poll(&mut self) -> Result<Arc<Reading>, Error> {
        let outcome = self.read().await;
        match &outcome {
            Ok(_) => self.last_failure = None,
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

    /// Reads everything.
    async fn read(&mut self) -> Result<Arc<Reading>, Error> {
        let met_before = self.reading.as_ref().map(|reading| reading.has_meter());
        let mut reading = self.ask(met_before.unwrap_or(false)).await?;
        if met_before.is_none() && reading.has_meter() {
            // The first question to a new acquaintance was sysinfo alone; now the meter is known to be there.
            reading = self.ask(true).await?;
        }
        if let Some(earlier) = &self.reading {
            reading = reading.steadied_by(earlier);
        }
        let reading = Arc::new(reading);
        self.reading = Some(Arc::clone(&reading));
        self.schedule.succeeded(Instant::now().into_std());
        Ok(reading)
    }

    async fn ask(&mut self, with_meter: bool) -> Result<Reading, Error> {
        let request = if with_meter { request::GET_SYSINFO_AND_ENERGY } else { request::GET_SYSINFO };
        let reply = self.link.exchange(request, true).await?;
        let reading = Reading::parse(&reply, SystemTime::now())?;
        match self.mac.replace(reading.mac) {
            Some(expected) if expected != reading.mac => {
                self.mac = Some(expected);
                self.link.close();
                Err(Error::WrongPlug { expected, found: reading.mac })
            }
            _ => Ok(reading),
        }
    }

    async fn obey(&mut self, order: Box<Order>) -> Event {
        let outcome = self.carry_out(&order).await;
        match &outcome {
            Ok(()) => self.last_failure = None,
            Err(error) if error.is_contact_failure() => self.failed(error),
            Err(_) => {}
        }
        Event::Done { order: order.id, outcome, reading: self.reading.clone() }
    }

    async fn carry_out(&mut self, order: &Order) -> Result<(), Error> {
        if let Some((at, error)) = &self.last_failure
            && at.elapsed() < REST
        {
            return Err(Error::Resting(error.to_string()));
        }
        for action in &order.actions {
            if Instant::now().into_std() >= order.deadline {
                return Err(Error::Stale);
            }
            self.carry_out_one(action, order.deadline).await?;
        }
        Ok(())
    }

    async fn carry_out_one(&mut self, action: &Action, deadline: std::time::Instant) -> Result<(), Error> {
        // A new connection is asked for its identity, and the relay's position, before it is told anything.
        let known = self.reading.clone().filter(|_| self.link.is_open());
        let reading = match known {
            Some(reading) if *action != Action::Refresh => reading,
            _ => self.read().await?,
        };
        let Some((request, method)) = request::request(action, &reading)? else { return Ok(()) };
        let mut outcome = self.tell(&request, deadline, false).await;
        if action.is_repeatable() && outcome.as_ref().is_err_and(Error::is_lost_connection) {
            // The plug closed the connection under the request. Whoever answers now is asked for its identity first; a
            // plug that closes after each reply has to be told on yet another connection, right after that.
            self.read().await?;
            outcome = self.tell(&request, deadline, true).await;
        }
        outcome?.confirm(method)?;
        self.reading = Some(Arc::new(confirmed(&reading, action)));
        let now = Instant::now().into_std();
        match action {
            Action::Reboot => {
                self.link.close();
                self.schedule.rebooting(now);
            }
            _ => self.schedule.commanded(now),
        }
        Ok(())
    }

    /// One exchange, not begun after `deadline`.
    async fn tell(
        &mut self,
        request: &[u8],
        deadline: std::time::Instant,
        repeatable: bool,
    ) -> Result<Reply, Error> {
        if Instant::now().into_std() >= deadline {
            return Err(Error::Stale);
        }
        self.link.exchange(request, repeatable).await
    }
}

/// The plug after it confirmed `action` with `err_code` 0.
fn confirmed(before: &Reading, action: &Action) -> Reading {
    let mut reading = before.clone();
    match action {
        Action::Relay { outlet, to } => {
            let present = reading.outlets.get(*outlet).is_some_and(|outlet| outlet.relay);
            reading.relay_moved(*outlet, to.from(present), SystemTime::now());
        }
        Action::Led(to) => reading.led = reading.led.map(|lit| to.from(lit)),
        Action::Alias(alias) => reading.alias = printable(alias, 128),
        Action::Reboot | Action::Refresh => {}
    }
    reading
}
