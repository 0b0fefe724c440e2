//! The core against a model of the world: plugs, a broker and people do things in any order, and after each step the
//! promises of `lib.rs` are checked. No network and no clock: a million steps take seconds.
//!
//! `KASA2MQTT_TEST_MODEL_CASES` runs more than the usual few; each has a hundred steps.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kasa2mqtt::bridge::core::{Core, Wanted, Wish};
use kasa2mqtt::bridge::message::{Message, Publish};
use kasa2mqtt::bridge::plug::{Entry, PlugNo, Via};
use kasa2mqtt::bridge::render::Settings;
use kasa2mqtt::bridge::settings::HomeAssistant;
use kasa2mqtt::bridge::shard::Shard;
use kasa2mqtt::bridge::topics::Topics;
use kasa2mqtt::bridge::view::View;
use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::plug::error::Error;
use kasa2mqtt::plug::reading::Reading;
use kasa2mqtt::plug::reply::Reply;
use kasa2mqtt::plug::request::{GET_SYSINFO, steps};
use kasa2mqtt::plug::scan::found::{Found, Protocol};
use kasa2mqtt::plug::scan::settings::Adopt;
use kasa2mqtt::plug::settings::HostPort;
use kasa2mqtt::plug::sysinfo::Sysinfo;
use kasa2mqtt::plug::task::{Event, Order, Report};
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::{SimPlug, Way};
use proptest::prelude::*;
use serde_json::Value;

const TTL: Duration = Duration::from_secs(10);

/// The first three are listed by their addresses, the fourth by its MAC, and the others are found or not.
const PLUGS: [(&str, &str); 6] = [
    ("HS100-G3", "Lamp"),
    ("HS300", "Strip"),
    ("HS220", "Lamp"),
    ("EP10", "Freezer"),
    ("HS110-G3", ""),
    ("HS103", "Lamp"),
];

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    Poll(usize),
    Fail(usize),
    /// Somebody presses a button.
    Press(usize),
    /// A plug's task carries out its order; false when the plug does not answer.
    Obey(usize, bool),
    Command(usize, usize, bool),
    Request(usize),
    Found(usize, u8),
    Searched,
    Deliver(u8),
    Acknowledge(u8),
    /// The broker goes, with or without its memory.
    Lose(bool),
    Open,
    Birth,
    /// Somebody who looks on switches.
    Want(usize, usize),
    /// Another shard says something of itself, where there are shards.
    Peer(usize),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let plug = 0..PLUGS.len();
    prop_oneof![
        6 => plug.clone().prop_map(Step::Poll),
        3 => plug.clone().prop_map(Step::Fail),
        2 => plug.clone().prop_map(Step::Press),
        5 => (plug.clone(), prop::bool::weighted(0.8)).prop_map(|(plug, well)| Step::Obey(plug, well)),
        6 => (plug.clone(), 0..PAYLOADS.len(), prop::bool::weighted(0.1))
            .prop_map(|(plug, payload, retained)| Step::Command(plug, payload, retained)),
        2 => (0..REQUESTS.len()).prop_map(Step::Request),
        2 => (plug.clone(), 1..4u8).prop_map(|(plug, host)| Step::Found(plug, host)),
        1 => Just(Step::Searched),
        6 => any::<u8>().prop_map(Step::Deliver),
        6 => any::<u8>().prop_map(Step::Acknowledge),
        1 => any::<bool>().prop_map(Step::Lose),
        2 => Just(Step::Open),
        1 => Just(Step::Birth),
        2 => (plug.clone(), 0..PAYLOADS.len()).prop_map(|(plug, payload)| Step::Want(plug, payload)),
        2 => (0..PEERS.len()).prop_map(Step::Peer),
        3 => (0..5000u16).prop_map(Step::Wait),
    ]
}

/// Attribute, payload with a transaction in the place of `T`.
const PAYLOADS: &[(&str, &str)] = &[
    ("set", r#"{"state":"ON","transaction":T}"#),
    ("set", r#"{"state":"OFF","transaction":T}"#),
    ("set", r#"{"state":"TOGGLE","transaction":T}"#),
    ("2/set", r#"{"state":"ON","transaction":T}"#),
    ("set", r#"{"brightness":40,"transaction":T}"#),
    ("set", r#"{"led":"OFF","state":"ON","transaction":T}"#),
    ("set", r#"{"alias":"Lamp","transaction":T}"#),
    ("set", r#"{"on_time":60,"transaction":T}"#),
    ("set", r#"{"nonsense":1,"transaction":T}"#),
    ("get", r#"{"transaction":T}"#),
];

const REQUESTS: &[(&str, &str)] = &[
    ("device/rename", r#"{"from":"lamp","to":"other"}"#),
    ("device/rename", r#"{"from":"other","to":"lamp"}"#),
    ("device/rename", r#"{"from":"50c7bf5e0005","to":"a-name"}"#),
    ("device/remove", "50c7bf5e0005"),
    ("device/remove", "50c7bf5e0006"),
    ("device/refresh", "lamp"),
    ("scan", ""),
    ("health_check", ""),
    ("rubbish", "{"),
];

/// Which of several bridges the core is, where it is one of several.
const SHARD: Shard = Shard { number: 2, count: 3 };

/// What others say: one that counts as we do, one that counts fewer and to which we give way, one that counts more and
/// gives way to us, or not yet.
const PEERS: &[(u32, &str, &str)] = &[
    (1, "info", r#"{"shard":"1/3"}"#),
    (1, "info", r#"{"shard":"1/2"}"#),
    (1, "state", "online"),
    (1, "state", "offline"),
    (4, "info", r#"{"shard":"4/4","yields_to":[]}"#),
    (4, "info", r#"{"shard":"4/4","yields_to":["2/3"]}"#),
    (4, "state", "online"),
    (4, "state", "offline"),
    (3, "info", "rubbish"),
];

struct World {
    core: Core,
    topics: Topics,
    begin: Instant,
    now: Instant,
    plugs: Vec<SimPlug>,
    /// Which of the core's plugs has a task, and which of ours that task talks to.
    tasks: HashMap<PlugNo, usize>,
    inboxes: HashMap<PlugNo, Order>,
    retained: BTreeMap<String, String>,
    open: bool,
    /// Handed out, and not with the broker yet; then not acknowledged yet.
    outgoing: VecDeque<Publish>,
    unacknowledged: VecDeque<Publish>,
    transactions: u64,
    /// Commands to plugs that were known when they came.
    owed: BTreeSet<u64>,
    results: BTreeMap<u64, u32>,
    orders: BTreeSet<u64>,
    /// Tickets of commands of those who look on, and what they were shown.
    tickets: BTreeSet<u64>,
    shown: HashMap<PlugNo, View>,
}

fn address(plug: usize, host: u8) -> HostPort {
    HostPort { host: format!("192.0.2.{}", plug * 10 + usize::from(host)), port: 9999 }
}

impl World {
    fn new(is_sharded: bool) -> World {
        let begin = Instant::now();
        let topics = Topics::new("kasa", "homeassistant").of(is_sharded.then_some(SHARD));
        let settings = Settings {
            topics: topics.clone(),
            homeassistant: HomeAssistant::default(),
            heartbeat: Some(Duration::from_secs(60)),
            command_ttl: TTL,
            raw: false,
            destructive: Vec::new(),
            adopt: Adopt::All,
            search: Some(Duration::from_secs(300)),
            follow_alias: false,
            instance: "model".into(),
            summary: Value::Null,
            started: SystemTime::UNIX_EPOCH,
        };
        let mut core = Core::new(settings, begin);
        core.watch();
        let plugs: Vec<SimPlug> = (0..)
            .zip(PLUGS)
            .map(|(number, (model, alias))| SimPlug::new(Model::named(model).unwrap(), alias, mac(number)))
            .collect();
        for number in 0..4 {
            let (address, mac) = match number {
                3 => (None, Some(plugs[3].mac().parse().unwrap())),
                _ => (Some(address(number, 0)), None),
            };
            core.add_plug(Entry { address, mac, name: None, interval: None, via: Via::Config });
        }
        let mut world = World {
            core,
            topics,
            begin,
            now: begin,
            plugs,
            tasks: HashMap::new(),
            inboxes: HashMap::new(),
            retained: BTreeMap::new(),
            open: false,
            outgoing: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            transactions: 0,
            owed: BTreeSet::new(),
            results: BTreeMap::new(),
            orders: BTreeSet::new(),
            tickets: BTreeSet::new(),
            shown: HashMap::new(),
        };
        world.after();
        world
    }

    /// Since 1970.
    fn wall(&self) -> Duration {
        Duration::from_secs(1_800_000_000) + (self.now - self.begin)
    }

    fn reading(&mut self, plug: usize) -> Reading {
        let wall = self.wall();
        let reply = self.plugs[plug].answer(GET_SYSINFO, Way::Tcp, wall).reply.unwrap();
        let reply = Reply::parse(reply.as_bytes()).unwrap();
        Sysinfo::parse(&reply, SystemTime::UNIX_EPOCH + wall).unwrap().reading
    }

    /// The tasks that talk to this plug; a plug has one at most, but for a moment when it was listed and found at once.
    fn tasks_of(&self, plug: usize) -> Vec<PlugNo> {
        self.tasks.iter().filter(|(_, of)| **of == plug).map(|(no, _)| *no).collect()
    }

    fn report(&mut self, no: PlugNo, event: Event) {
        self.core.report(self.now, Report { plug: no, at: self.now, event, took: None });
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Poll(plug) => {
                for no in self.tasks_of(*plug) {
                    let reading = self.reading(*plug);
                    self.report(no, Event::Polled(Ok(Arc::new(reading))));
                }
            }
            Step::Fail(plug) => {
                for no in self.tasks_of(*plug) {
                    self.report(no, Event::Polled(Err(Error::Closed)));
                }
            }
            Step::Press(plug) => {
                let (on, wall) = (!self.plugs[*plug].relay(), self.wall());
                self.plugs[*plug].switch(on, wall);
            }
            Step::Obey(plug, well) => {
                for no in self.tasks_of(*plug) {
                    self.obey(no, *plug, *well);
                }
            }
            Step::Command(plug, payload, retained) => self.command(*plug, *payload, *retained),
            Step::Request(request) => {
                let (request, payload) = REQUESTS[*request];
                self.message(&format!("kasa/bridge/request/{request}"), payload, false);
            }
            Step::Found(plug, host) => {
                let mac = self.plugs[*plug].mac().parse().unwrap();
                let address = address(*plug, *host).to_string().parse().unwrap();
                let found = Found { mac: Some(mac), ..Found::at(address, Protocol::Xor) };
                self.core.found(self.now, &found);
            }
            Step::Searched => self.core.searched(self.now),
            Step::Deliver(count) => {
                for _ in 0..*count % 8 {
                    self.deliver();
                }
            }
            Step::Acknowledge(count) => {
                for _ in 0..*count % 8 {
                    if let Some(publish) = self.unacknowledged.pop_front() {
                        self.core.acknowledged(publish.ticket);
                    }
                }
            }
            Step::Lose(memory) => self.lose(*memory),
            Step::Open => self.open(),
            Step::Want(plug, payload) => self.want(*plug, *payload),
            Step::Peer(said) => self.peer(*said),
            Step::Birth => self.message("homeassistant/status", "online", false),
            Step::Wait(milliseconds) => self.wait(Duration::from_millis((*milliseconds).into())),
        }
        self.after();
    }

    fn message(&mut self, topic: &str, payload: &str, retain: bool) {
        if self.open {
            let message =
                Message { topic: topic.into(), payload: payload.into(), retain, received: self.now };
            self.core.message(self.now, message, Duration::from_secs(3));
        }
    }

    fn command(&mut self, plug: usize, payload: usize, retained: bool) {
        if !self.open {
            return;
        }
        // By its MAC, which does not change.
        let name = self.plugs[plug].mac().replace(':', "").to_lowercase();
        let (verb, payload) = PAYLOADS[payload];
        self.transactions += 1;
        // A retained command is none, and one for a plug that nobody knows is answered by nobody.
        if !retained && self.core.fleet().find(&name).is_some() && verb != "get" {
            self.owed.insert(self.transactions);
        }
        let payload = payload.replace('T', &self.transactions.to_string());
        let payload = payload.replace(&format!("{}OGGLE", self.transactions), "TOGGLE");
        self.message(&format!("kasa/{name}/{verb}"), &payload, retained);
    }

    fn want(&mut self, plug: usize, payload: usize) {
        self.transactions += 1;
        let (_, payload) = PAYLOADS[payload];
        let payload = payload.replace(r#","transaction":T"#, "").replace(r#""transaction":T"#, "");
        let name = self.plugs[plug].mac().replace(':', "").to_lowercase();
        let wanted = Wanted {
            ticket: self.transactions,
            plug: &name,
            outlet: 0,
            payload: payload.as_bytes(),
            received: self.now,
        };
        if self.core.wanted(self.now, &wanted).is_ok() {
            self.tickets.insert(self.transactions);
        }
    }

    fn peer(&mut self, said: usize) {
        if self.topics.shard().is_some() {
            let (number, what, payload) = PEERS[said];
            self.message(&format!("kasa/bridge/shard-{number}/{what}"), payload, false);
        }
    }

    fn obey(&mut self, no: PlugNo, plug: usize, well: bool) {
        let Some(order) = self.inboxes.remove(&no) else { return };
        let (mut outcome, wall) = (Ok(()), self.wall());
        if !well {
            outcome = Err(Error::Closed);
        } else if order.deadline <= self.now {
            outcome = Err(Error::Stale);
        } else {
            for action in &order.actions {
                let reading = self.reading(plug);
                match steps(action, &reading) {
                    Ok(steps) => {
                        for step in steps {
                            self.plugs[plug].answer(&step.request, Way::Tcp, wall);
                        }
                    }
                    Err(error) => outcome = Err(error),
                }
            }
        }
        let reading = outcome.is_ok().then(|| Arc::new(self.reading(plug)));
        self.report(no, Event::Done { order: order.id, outcome, reply: None, reading });
    }

    fn deliver(&mut self) {
        let Some(publish) = self.outgoing.pop_front() else { return };
        if publish.retain {
            let payload = String::from_utf8(publish.payload.clone()).unwrap();
            match payload.is_empty() {
                true => self.retained.remove(&publish.topic),
                false => self.retained.insert(publish.topic.clone(), payload),
            };
        }
        self.unacknowledged.push_back(publish);
    }

    fn lose(&mut self, memory: bool) {
        self.open = false;
        self.core.session_lost();
        if !memory {
            self.retained.clear();
        }
        // What was on its way is lost, or not; nobody can tell.
        self.outgoing.clear();
        self.unacknowledged.clear();
    }

    fn open(&mut self) {
        if !self.open {
            self.open = true;
            self.core.session_opened(self.now, SystemTime::UNIX_EPOCH);
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.core.wake_at().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.core.wake(self.now);
            self.after();
        }
        self.now = end;
    }

    /// What follows every step: wishes and orders are taken, messages are handed out, and promises are kept.
    fn after(&mut self) {
        while let Some(wish) = self.core.next_wish() {
            match wish {
                Wish::Run { no, address, .. } => {
                    let plug = self.plug_at(&address);
                    self.tasks.insert(no, plug);
                }
                Wish::Move(no, address) => {
                    let plug = self.plug_at(&address);
                    assert_eq!(self.tasks.insert(no, plug), Some(plug), "followed to itself");
                }
                Wish::End(no) => {
                    self.tasks.remove(&no);
                    // It is told to nobody what became of it, and the core has answered it.
                    self.inboxes.remove(&no);
                }
                Wish::Search => {}
            }
        }
        while let Some((no, order)) = self.core.next_order() {
            assert!(order.deadline <= self.now + TTL, "it may wait no longer than it is allowed to");
            assert!(self.orders.insert(order.id), "an order is given once");
            // One whose plug was removed in the same moment goes nowhere.
            if self.tasks.contains_key(&no) {
                assert!(self.inboxes.insert(no, order).is_none(), "one order at a time");
            }
        }
        while let Some((ticket, result)) = self.core.next_result() {
            assert!(self.tickets.remove(&ticket), "one result for each who looks on");
            serde_json::from_slice::<Value>(&result).unwrap();
        }
        while let Some(change) = self.core.next_change() {
            match change.view {
                Some(view) => drop(self.shown.insert(change.no, *view)),
                None => drop(self.shown.remove(&change.no)),
            }
        }
        if !self.open {
            assert!(self.core.next_publish(self.now).is_none(), "nothing is said to nobody");
            return;
        }
        // As many as the outbox takes.
        while self.outgoing.len() < 4 {
            let Some(publish) = self.core.next_publish(self.now) else { break };
            self.check(&publish);
            self.outgoing.push_back(publish);
        }
    }

    fn plug_at(&self, address: &HostPort) -> usize {
        address.host.rsplit('.').next().unwrap().parse::<usize>().unwrap() / 10
    }

    fn check(&mut self, publish: &Publish) {
        let (topic, payload) = (&publish.topic, &publish.payload);
        assert!(!topic.contains(['+', '#']) && !topic.contains(char::is_control), "{topic}");
        let in_flight = self.outgoing.iter().chain(&self.unacknowledged);
        assert!(
            !publish.retain || !in_flight.into_iter().any(|other| other.retain && other.topic == *topic),
            "two messages on their way to {topic}: {:?} {} | {:?}",
            self.outgoing,
            String::from_utf8_lossy(payload),
            self.unacknowledged
        );
        if topic.ends_with("/result") {
            assert!(!publish.retain, "{topic}");
            let result: Value = serde_json::from_slice(payload).unwrap();
            if let Some(transaction) = result["transaction"].as_u64() {
                *self.results.entry(transaction).or_default() += 1;
                assert_eq!(self.results[&transaction], 1, "one result for each command: {result}");
                assert!(self.owed.remove(&transaction) || result["command"] == "get", "{result}");
            }
        }
    }

    /// Everything that is under way comes to its end.
    fn settle(&mut self) {
        self.open();
        self.after();
        for _ in 0..40 {
            for plug in 0..PLUGS.len() {
                self.take(&Step::Obey(plug, true));
            }
            for _ in 0..400 {
                if self.outgoing.is_empty() && self.unacknowledged.is_empty() {
                    break;
                }
                self.take(&Step::Deliver(7));
                self.take(&Step::Acknowledge(7));
            }
            self.wait(Duration::from_millis(500));
            self.after();
        }
        assert!(!self.core.has_something_to_say() && self.inboxes.is_empty());
    }

    /// What the broker holds, but for what tells of the session itself.
    fn lasting(&self) -> BTreeMap<String, String> {
        let mut lasting = self.retained.clone();
        lasting.remove(&self.topics.bridge("health"));
        lasting
    }

    fn check_the_end(&mut self) {
        self.settle();
        // No other shard keeps a plug of ours for ever.
        for (number, what, _) in PEERS.iter().filter(|(_, _, said)| *said == "offline") {
            if self.topics.shard().is_some() {
                self.message(&format!("kasa/bridge/shard-{number}/{what}"), "offline", false);
            }
        }
        self.settle();
        // Three: a meter that says nothing is waited for so long before a plug is announced.
        for _ in 0..3 {
            for plug in 0..PLUGS.len() {
                self.take(&Step::Poll(plug));
            }
        }
        // A plug's own timer may move it afterwards.
        let is_on = |reading: Reading| reading.outlets.iter().any(|outlet| outlet.relay);
        let on: Vec<bool> = (0..PLUGS.len()).map(|plug| is_on(self.reading(plug))).collect();
        self.settle();
        assert!(self.owed.is_empty(), "commands without a result: {:?}", self.owed);
        assert!(self.tickets.is_empty(), "wishes without a result: {:?}", self.tickets);
        for (no, plug) in self.core.fleet().plugs() {
            let shown = self.shown.remove(&no);
            assert_eq!(shown.is_none(), plug.silent, "who looks on sees all plugs: {:?}", plug.called());
            assert!(
                shown.is_none_or(|view| !view.differs(&View::of(plug))),
                "{:?} is shown as it is",
                plug.called()
            );
        }
        assert!(self.shown.is_empty(), "a plug that has gone is still shown");
        let held = self.lasting();
        for (plug, on) in on.into_iter().enumerate() {
            for no in self.tasks_of(plug) {
                let Some(known) = self.core.fleet().get(no).filter(|known| known.met) else { continue };
                let name = known.name.clone().unwrap();
                let state: Value = serde_json::from_str(&held[&format!("kasa/{name}")]).unwrap();
                assert_eq!(state["state"] == "ON", on, "{name} is where it is said to be");
            }
        }
        // A broker without any memory would hold the same.
        self.lose(false);
        self.settle();
        let fresh = self.lasting();
        for topic in held.keys().chain(fresh.keys()) {
            assert_eq!(held.get(topic), fresh.get(topic), "{topic}");
        }
        // The end: everything is answered, and the bridge says that it goes.
        self.core.stop(self.now);
        for _ in 0..1000 {
            self.after();
            self.deliver();
            if let Some(publish) = self.unacknowledged.pop_front() {
                self.core.acknowledged(publish.ticket);
            }
        }
        assert!(self.core.has_said_all());
        assert_eq!(self.retained[&self.topics.bridge_state()], "offline");
    }
}

fn cases() -> u32 {
    let cases = std::env::var("KASA2MQTT_TEST_MODEL_CASES").ok();
    cases.map_or(100, |cases| cases.parse().expect("KASA2MQTT_TEST_MODEL_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_core_keeps_its_promises(
        is_sharded in prop::bool::weighted(0.3),
        steps in prop::collection::vec(step(), 100),
    ) {
        let mut world = World::new(is_sharded);
        for step in &steps {
            world.take(step);
        }
        world.check_the_end();
    }
}
