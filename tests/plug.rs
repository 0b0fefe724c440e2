//! One plug's task against a simulated plug with the habits and faults of real ones.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kasa2mqtt::plug::command::{Action, Outlets, Switch};
use kasa2mqtt::plug::error::Error;
use kasa2mqtt::plug::owner::Settings;
use kasa2mqtt::plug::reading::Reading;
use kasa2mqtt::plug::task::{self, Event, Order, Post, Report};
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::{Behaviour, Reply, Simulator};
use support::house::{FREE, owner, plugs};
use support::soon;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const ON: Action = Action::Relay { outlets: Outlets::All, to: Switch::On };

/// A task, and what the core would have of it.
struct Owner {
    inbox: mpsc::Sender<Post>,
    reports: mpsc::Receiver<Report<()>>,
    task: JoinHandle<()>,
    orders: u64,
}

impl Owner {
    fn new(plug: &Simulator, interval: Duration) -> Owner {
        Owner::with_timeout(plug, interval, Duration::from_secs(1))
    }

    fn with_timeout(plug: &Simulator, interval: Duration, timeout: Duration) -> Owner {
        let settings = Settings { timeout, ..owner(plug.address(), interval) };
        let (inbox, orders) = mpsc::channel(1);
        let (sender, reports) = mpsc::channel(16);
        let task = tokio::spawn(task::run((), settings, orders, sender));
        Owner { inbox, reports, task, orders: 0 }
    }

    async fn report(&mut self) -> Event {
        soon("a report", self.reports.recv()).await.expect("the task lives").event
    }

    async fn polled(&mut self) -> Result<Arc<Reading>, Error> {
        match self.report().await {
            Event::Polled(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    async fn good_poll(&mut self) -> Arc<Reading> {
        loop {
            if let Event::Polled(Ok(reading)) = self.report().await {
                return reading;
            }
        }
    }

    async fn order_by(&mut self, deadline: Instant, actions: &[Action]) {
        self.orders += 1;
        self.inbox
            .send(Post::Order(Box::new(Order { id: self.orders, actions: actions.into(), deadline })))
            .await
            .unwrap();
    }

    async fn order(&mut self, actions: &[Action]) -> (Result<(), Error>, Option<Arc<Reading>>) {
        self.order_by(Instant::now() + Duration::from_secs(10), actions).await;
        self.done().await
    }

    async fn done(&mut self) -> (Result<(), Error>, Option<Arc<Reading>>) {
        loop {
            if let Event::Done { order, outcome, reading, .. } = self.report().await {
                assert_eq!(order, self.orders);
                return (outcome, reading);
            }
        }
    }
}

async fn one(model: &str) -> Simulator {
    plugs(&[model]).await.remove(0)
}

const OFTEN: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn one_connection_serves_many_polls_and_orders() {
    let plug = one("HS110-G1").await;
    let mut owner = Owner::new(&plug, OFTEN);
    for _ in 0..20 {
        assert!(owner.polled().await.unwrap().has_meter());
    }
    owner.order(&[ON]).await.0.unwrap();
    assert_eq!(plug.counts().borrow().connections, 1);
}

#[tokio::test]
async fn an_order_is_one_exchange_and_its_confirmation_is_the_state() {
    let plug = one("HS100-G3").await;
    let mut owner = Owner::new(&plug, SELDOM);
    owner.good_poll().await;
    let before = plug.counts().borrow().requests;
    let (outcome, reading) = owner.order(&[ON]).await;
    outcome.unwrap();
    assert!(reading.unwrap().outlets[0].relay);
    assert_eq!(plug.counts().borrow().requests, before + 1);
    assert!(owner.good_poll().await.outlets[0].relay, "and a poll confirms it soon");
    let (_, reading) = owner
        .order(&[Action::Relay { outlets: Outlets::All, to: Switch::Toggle }, Action::Led(Switch::Off)])
        .await;
    let reading = reading.unwrap();
    assert_eq!((reading.outlets[0].relay, reading.led), (false, Some(false)));
}

#[tokio::test]
async fn every_habit_of_a_healthy_plug_is_fine() {
    let habits = [
        Behaviour { close: true, ..Behaviour::default() },
        Behaviour { reply: Reply::ZeroLength, ..Behaviour::default() },
        Behaviour { fragment: 1, ..Behaviour::default() },
        Behaviour { fragment: 100, close: true, ..Behaviour::default() },
        Behaviour { delay: Duration::from_millis(200), ..Behaviour::default() },
    ];
    for habit in habits {
        let plug = one("HS110-G2").await;
        plug.behave(habit.clone()).await;
        let mut owner = Owner::new(&plug, OFTEN);
        for round in 0..5 {
            assert!(owner.polled().await.is_ok(), "{habit:?}");
            let to = if round % 2 == 0 { Switch::On } else { Switch::Off };
            owner
                .order(&[Action::Relay { outlets: Outlets::All, to }])
                .await
                .0
                .unwrap_or_else(|error| panic!("{habit:?}: {error}"));
        }
        assert_eq!(plug.counts().borrow().relay_commands, 5, "{habit:?}: no command twice");
    }
}

/// As the configuration has it when nobody says otherwise, a reply has five seconds.
#[tokio::test]
async fn a_reply_after_4_9_seconds_is_taken_and_one_after_5_1_is_not() {
    let timeout = kasa2mqtt::config::Config::default().poll.timeout;
    let delayed = async |milliseconds| {
        let plug = plugs(&["HS100-G1"]).await.remove(0);
        plug.behave(Behaviour { delay: Duration::from_millis(milliseconds), ..Behaviour::default() }).await;
        let owner = Owner::with_timeout(&plug, Duration::from_secs(60), timeout);
        (plug, owner)
    };
    let ((_in_time, mut taken), (_late, mut left)) = (delayed(4900).await, delayed(5100).await);
    let (taken, left) = tokio::join!(taken.good_poll(), left.polled());
    assert!(!taken.outlets[0].relay);
    assert_eq!(left.unwrap_err(), Error::Timeout(timeout));
}

#[tokio::test]
async fn every_fault_is_an_error_and_passes() {
    type Fits = fn(&Error) -> bool;
    let faults: [(Reply, Fits); 6] = [
        (Reply::Silence, |error| matches!(error, Error::Timeout(_))),
        (Reply::Rubbish, |error| matches!(error, Error::Malformed(_))),
        (Reply::Huge, |error| matches!(error, Error::TooLong(_))),
        (Reply::Half, |error| matches!(error, Error::Closed)),
        (Reply::Reset, |error| matches!(error, Error::Closed | Error::Broken(_))),
        (Reply::Whole, |error| matches!(error, Error::Closed | Error::Broken(_))),
    ];
    for (reply, fits) in faults {
        let plug = one("HS110-G3").await;
        let deaf = reply == Reply::Whole;
        plug.behave(Behaviour { reply, deaf, ..Behaviour::default() }).await;
        let mut owner = Owner::new(&plug, SELDOM);
        let error = owner.polled().await.unwrap_err();
        assert!(fits(&error), "{reply:?}: {error:?}");
        plug.behave(Behaviour::default()).await;
        owner.good_poll().await;
    }
}

#[tokio::test]
async fn a_plug_that_refuses_everything_is_heard() {
    let plug = one("HS100-G3").await;
    let mut owner = Owner::new(&plug, SELDOM);
    owner.good_poll().await;
    plug.behave(Behaviour { refuse: true, ..Behaviour::default() }).await;
    let (outcome, reading) = owner.order(&[ON]).await;
    assert!(matches!(outcome, Err(Error::Refused { code: -7, .. })), "{outcome:?}");
    assert!(!reading.unwrap().outlets[0].relay, "state is what the plug confirmed");
    owner.order(&[Action::Refresh]).await.0.unwrap_err();
    let (outcome, _) = owner.order(&[ON]).await;
    assert!(
        matches!(outcome, Err(Error::Refused { code: -7, .. })),
        "asked again and not taken for offline: {outcome:?}"
    );
}

#[tokio::test]
async fn an_order_that_came_too_late_is_not_run() {
    let plug = one("HS100-G3").await;
    let mut owner = Owner::new(&plug, SELDOM);
    owner.good_poll().await;
    owner.order_by(Instant::now(), &[ON]).await;
    assert_eq!(owner.done().await.0, Err(Error::Stale));
    assert_eq!(plug.counts().borrow().relay_commands, 0);
}

#[tokio::test]
async fn a_reboot_is_asked_for_once() {
    let plug = one("HS100-G3").await;
    let mut owner = Owner::new(&plug, SELDOM);
    owner.good_poll().await;
    owner.order(&[Action::Reboot]).await.0.unwrap();
    soon("the restart", plug.counts().wait_for(|counts| counts.reboots == 1)).await.unwrap();
    let asked = plug.log().await.into_iter().filter(|request| request.contains("reboot")).count();
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn another_plug_at_the_same_address_is_never_used() {
    let first = one("HS100-G3").await;
    let address = first.address();
    let mut owner = Owner::new(&first, OFTEN);
    owner.good_poll().await;
    drop(first);
    let other = SimPlug::new(Model::named("HS100-G3").unwrap(), "Heater", [0x50, 0xc7, 0xbf, 9, 9, 9]);
    let second = soon("the port", async {
        loop {
            match Simulator::start(other.clone(), address).await {
                Ok(simulator) => return simulator,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    loop {
        match owner.polled().await {
            Err(Error::WrongPlug { .. }) => break,
            Err(_) => {}
            Ok(reading) => assert_ne!(reading.mac.hex(), "50c7bf090909"),
        }
    }
    let (outcome, _) = owner.order(&[ON]).await;
    assert!(outcome.is_err());
    assert_eq!(second.counts().borrow().relay_commands, 0);
}

#[tokio::test]
async fn a_connection_that_ends_under_an_order_is_made_anew_and_the_order_done_once() {
    let plug = one("HS100-G3").await;
    let mut owner = Owner::new(&plug, SELDOM);
    owner.good_poll().await;
    for round in 0..20 {
        // Every connection ends at once, and comes back; sometimes the task has noticed, sometimes not.
        plug.behave(Behaviour { deaf: true, ..Behaviour::default() }).await;
        plug.behave(Behaviour::default()).await;
        let to = if round % 2 == 0 { Switch::On } else { Switch::Off };
        owner.order(&[Action::Relay { outlets: Outlets::All, to }]).await.0.unwrap();
    }
    assert_eq!(plug.counts().borrow().relay_commands, 20);
}

#[tokio::test]
async fn a_task_ends_when_nobody_can_order_any_more() {
    let plug = one("HS100-G1").await;
    let owner = Owner::new(&plug, SELDOM);
    drop(owner.inbox);
    soon("the task", owner.task).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_a_refusal_at_once() {
    // Bound, so that nobody else listens there.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind(FREE).unwrap();
    let free = bound.local_addr().unwrap();
    let (_inbox, orders) = mpsc::channel(1);
    let (sender, mut reports) = mpsc::channel(16);
    let settings = owner(free, SELDOM);
    let _task = tokio::spawn(task::run((), settings, orders, sender));
    let report = soon("a report", reports.recv()).await.unwrap();
    assert!(matches!(report.event, Event::Polled(Err(Error::Connect(_)))), "{report:?}");
}
