//! The core as a person would tell of it: what is said to the broker after what happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::*;
use crate::bridge::message::Message;
use crate::bridge::plug::{Entry, Via};
use crate::bridge::queue::INQUIRY;
use crate::bridge::settings::HomeAssistant;
use crate::bridge::shard::Shard;
use crate::bridge::topics::Topics;
use crate::bridge::view::Change;
use crate::plug::command::Action;
use crate::plug::error::Error;
use crate::plug::reading::Reading;
use crate::plug::scan::found::{Found, Protocol};
use crate::plug::scan::settings::Adopt;
use crate::plug::sysinfo::tests::hs110;
use crate::plug::task::Event;

/// A core with one plug and a broker that remembers what is retained and lists what is not.
struct House {
    core: Core,
    now: Instant,
    wall: SystemTime,
    retained: BTreeMap<String, String>,
    said: Vec<(String, String)>,
}

const LAMP: PlugNo = PlugNo(0);

impl House {
    fn new() -> House {
        House::with_names(&[Some("desk-lamp")])
    }

    fn with_names(names: &[Option<&str>]) -> House {
        House::of_shard(names, None)
    }

    fn of_shard(names: &[Option<&str>], shard: Option<Shard>) -> House {
        let homeassistant =
            HomeAssistant { discovery: true, prefix: "homeassistant".into(), mac_connection: true };
        let now = Instant::now();
        let settings = Settings {
            topics: Topics::new("kasa", "homeassistant").of(shard),
            homeassistant,
            heartbeat: Some(Duration::from_secs(60)),
            command_ttl: Duration::from_secs(10),
            raw: true,
            destructive: Vec::new(),
            summary: json!({}),
            started: SystemTime::UNIX_EPOCH,
            adopt: Adopt::All,
            search: Some(Duration::from_secs(300)),
            follow_alias: false,
            instance: "ours".into(),
        };
        let mut core = Core::new(settings, now);
        for (no, name) in names.iter().enumerate() {
            let address = Some(format!("192.0.2.{no}").parse().unwrap());
            let name = name.map(String::from);
            core.add_plug(Entry { address, mac: None, name, interval: None, via: Via::Config });
        }
        House { core, now, wall: SystemTime::UNIX_EPOCH, retained: BTreeMap::new(), said: Vec::new() }
    }

    fn connected(mut self) -> House {
        self.core.session_opened(self.now, self.wall);
        self.settle();
        self
    }

    /// A house whose lamp has answered once, with everything said.
    fn lit() -> House {
        let mut house = House::new().connected();
        house.polled(hs110());
        house.wait(10);
        house.said.clear();
        house
    }

    /// Takes and acknowledges everything that the core has to say.
    fn settle(&mut self) {
        while self.core.has_something_to_say() {
            let Some(publish) = self.core.next_publish(self.now) else { continue };
            let payload = String::from_utf8(publish.payload).unwrap();
            self.said.push((publish.topic.clone(), payload.clone()));
            if publish.retain {
                match payload.is_empty() {
                    true => self.retained.remove(&publish.topic),
                    false => self.retained.insert(publish.topic, payload),
                };
            }
            self.core.acknowledged(publish.ticket);
        }
    }

    /// Lets time pass, doing what is due on the way.
    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(due) = self.core.wake_at().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.core.wake(self.now);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    fn report(&mut self, no: PlugNo, event: Event) {
        self.core.report(self.now, Report { plug: no, at: self.now, event, took: None });
        self.settle();
    }

    fn polled(&mut self, reading: Reading) {
        self.report(LAMP, Event::Polled(Ok(Arc::new(reading))));
    }

    fn failed(&mut self) {
        self.report(LAMP, Event::Polled(Err(Error::Closed)));
    }

    fn message(&mut self, topic: &str, payload: &str) {
        self.deliver(topic, payload, false);
    }

    fn deliver(&mut self, topic: &str, payload: &str, retain: bool) {
        let message = Message { topic: topic.into(), payload: payload.into(), retain, received: self.now };
        self.core.message(self.now, message, Duration::from_secs(3));
        self.settle();
    }

    fn order(&mut self) -> Order {
        self.core.next_order().expect("an order").1
    }

    /// What was said on a topic since the last look.
    fn heard(&mut self, topic: &str) -> Vec<String> {
        let heard =
            self.said.iter().filter(|(said, _)| said == topic).map(|(_, payload)| payload.clone()).collect();
        self.said.retain(|(said, _)| said != topic);
        heard
    }

    fn results(&mut self) -> Vec<Value> {
        let heard = self.heard("kasa/desk-lamp/result");
        heard.iter().map(|result| serde_json::from_str(result).unwrap()).collect()
    }
}

const CONFIG: &str = "homeassistant/device/kasa_50c7bf010203/config";

fn off() -> Reading {
    let mut reading = hs110();
    reading.relay_moved(0, false, SystemTime::UNIX_EPOCH);
    reading
}

#[test]
fn a_first_reading_announces_the_plug_whole() {
    let mut house = House::new().connected();
    assert_eq!(house.retained["kasa/bridge/state"], "online");
    assert!(!house.retained.contains_key("kasa/desk-lamp"), "nothing is said of a plug nobody has heard of");
    house.polled(hs110());
    assert_eq!(house.retained["kasa/desk-lamp/availability"], "online");
    assert!(house.retained["kasa/desk-lamp"].contains(r#""power":12.3"#));
    assert!(house.retained[CONFIG].contains("kasa_50c7bf010203_energy_total"));
    house.wait(2);
    let devices: Value = serde_json::from_str(&house.retained["kasa/bridge/devices"]).unwrap();
    assert_eq!(devices[0]["id"], "50c7bf010203");
}

#[test]
fn a_reading_that_says_nothing_new_is_not_repeated_before_the_heartbeat() {
    let mut house = House::lit();
    house.wait(45);
    house.polled(hs110());
    assert_eq!(house.said, []);
    house.wait(20);
    house.polled(hs110());
    assert_eq!(house.heard("kasa/desk-lamp").len(), 1);
    assert_eq!(house.said, []);
}

#[test]
fn a_silent_meter_delays_the_announcement_but_not_for_ever() {
    let mut house = House::new().connected();
    let mut silent = hs110();
    silent.outlets[0].emeter = Some(Default::default());
    house.polled(silent.clone());
    assert!(!house.retained.contains_key(CONFIG));
    house.polled(silent.clone());
    house.polled(silent);
    assert!(house.retained[CONFIG].contains("_power") && !house.retained[CONFIG].contains("energy_total"));
}

#[test]
fn a_command_is_an_order_and_its_confirmation_is_the_state() {
    let mut house = House::lit();
    house.message("kasa/desk-lamp/set", r#"{"state":"OFF","transaction":"t1"}"#);
    let order = house.order();
    assert_eq!(house.said, [], "state is what the plug confirmed, never what was asked");
    house.report(
        LAMP,
        Event::Done { order: order.id, outcome: Ok(()), reply: None, reading: Some(Arc::new(off())) },
    );
    assert_eq!(
        house.results(),
        [json!({"ok": true, "command": "set", "duration_ms": 0, "transaction": "t1"})]
    );
    let states = house.heard("kasa/desk-lamp");
    assert_eq!(states.len(), 1);
    assert!(states[0].contains(r#""state":"OFF""#));
}

#[test]
fn commands_are_taken_on_the_mac_too_and_answered_on_the_name() {
    let mut house = House::lit();
    house.message("kasa/50c7bf010203/set/led", "OFF");
    let order = house.order();
    house.report(
        LAMP,
        Event::Done { order: order.id, outcome: Ok(()), reply: None, reading: Some(Arc::new(hs110())) },
    );
    assert_eq!(house.results()[0]["command"], "set/led");
}

#[test]
fn a_failed_command_is_answered_and_the_state_said_again() {
    let mut house = House::lit();
    house.message("kasa/desk-lamp/set", "OFF");
    let order = house.order();
    let error = Error::Refused { code: -3, message: "invalid argument".into() };
    house.report(
        LAMP,
        Event::Done { order: order.id, outcome: Err(error), reply: None, reading: Some(Arc::new(hs110())) },
    );
    assert_eq!(house.results()[0]["error"]["code"], "device_error");
    assert!(house.heard("kasa/desk-lamp")[0].contains(r#""state":"ON""#));
}

#[test]
fn a_payload_nobody_understands_is_answered_without_an_order() {
    let mut house = House::lit();
    house.message("kasa/desk-lamp/set", "up");
    assert_eq!(house.core.next_order(), None);
    assert_eq!(house.results()[0]["error"]["code"], "invalid_payload");
    assert_eq!(house.heard("kasa/desk-lamp").len(), 1, "it snaps back");
    house.message("kasa/desk-lamp/set", "");
    house.message("kasa/nobody/set", "ON");
    house.message("kasa/bridge/set", "ON");
    assert_eq!((house.core.next_order(), house.said.len()), (None, 0));
}

#[test]
fn a_retained_command_switches_nothing() {
    let mut house = House::lit();
    house.deliver("kasa/desk-lamp/set", "ON", true);
    house.deliver("kasa/bridge/request/restart", "", true);
    assert_eq!((house.core.next_order(), house.said.len()), (None, 0));
    assert!(!house.core.restart_requested());
    house.deliver("kasa/desk-lamp/set", "OFF", true);
    assert_eq!(house.core.warned.len(), 1, "one warning for each topic");
}

#[test]
fn a_device_that_is_no_plug_is_named_once_and_left_alone() {
    let mut house = House::with_names(&[None]).connected();
    for _ in 0..3 {
        house.report(LAMP, Event::Polled(Err(Error::Unsupported("it is not a plug".into()))));
        house.wait(20);
    }
    let devices = house.heard("kasa/bridge/devices");
    assert_eq!(devices.len(), 1, "said once: {devices:?}");
    assert!(devices[0].contains("it is not a plug"), "{devices:?}");
    assert_eq!(house.retained.keys().filter(|topic| topic.ends_with("availability")).count(), 0);
}

#[test]
fn every_command_has_one_result_whatever_becomes_of_it() {
    let mut house = House::lit();
    for number in 0..50 {
        let state = ["ON", "OFF", "TOGGLE"][number % 3];
        house.message("kasa/desk-lamp/set", &json!({"state": state, "transaction": number}).to_string());
    }
    house.core.stop(house.now);
    house.settle();
    let mut answered: Vec<u64> =
        house.results().iter().map(|result| result["transaction"].as_u64().unwrap()).collect();
    answered.sort();
    assert_eq!(answered, (0..50).collect::<Vec<u64>>());
    assert_eq!(house.retained["kasa/bridge/state"], "offline");
    assert!(house.core.has_said_all());
}

#[test]
fn a_stop_right_after_the_beginning_still_ends_with_offline() {
    let mut house = House::new();
    house.core.session_opened(house.now, house.wall);
    // The first of the bridge's messages is on its way, the others are ready.
    let first = house.core.next_publish(house.now).unwrap();
    assert_eq!((first.topic.as_str(), &first.payload[..]), ("kasa/bridge/state", &b"online"[..]));
    house.core.stop(house.now);
    house.settle();
    assert!(!house.core.has_said_all(), "online is not acknowledged yet");
    house.core.acknowledged(first.ticket);
    house.settle();
    assert_eq!(house.retained["kasa/bridge/state"], "offline");
    assert!(house.core.has_said_all());
}

#[test]
fn offline_takes_three_failures_and_fifteen_seconds_and_online_one_answer() {
    let mut house = House::lit();
    let availability = |house: &House| house.retained["kasa/desk-lamp/availability"].clone();
    for _ in 0..5 {
        house.failed();
        house.now += Duration::from_secs(3);
    }
    assert_eq!(availability(&house), "online", "fourteen seconds");
    house.failed();
    assert_eq!(availability(&house), "offline");
    assert!(house.retained["kasa/desk-lamp"].contains("12.3"), "the last state stays");
    house.polled(hs110());
    assert_eq!(availability(&house), "online");

    house.failed();
    house.now += Duration::from_secs(60);
    house.failed();
    assert_eq!(availability(&house), "online", "two failures, however long");
}

#[test]
fn a_plug_that_wants_an_account_is_told_of_once_however_long_it_does() {
    let mut house = House::lit();
    house.heard("kasa/bridge/event");
    // Half a day of looks, a minute apart.
    for _ in 0..720 {
        house.report(LAMP, Event::Polled(Err(Error::Auth)));
        house.wait(60);
    }
    let kinds = |house: &mut House| -> Vec<String> {
        let told = house.heard("kasa/bridge/event");
        let told = told.iter().map(|event| serde_json::from_str::<Value>(event).unwrap());
        told.map(|event| event["type"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(kinds(&mut house), ["auth_failed", "offline"]);
    let devices = &house.retained["kasa/bridge/devices"];
    assert!(
        devices.contains("kasa.username") && devices.contains(r#""availability":"offline""#),
        "{devices}"
    );
    assert_eq!(house.retained["kasa/desk-lamp/availability"], "offline");
    house.polled(hs110());
    assert_eq!(kinds(&mut house), ["online"]);
    house.wait(5);
    assert!(!house.retained["kasa/bridge/devices"].contains("kasa.username"));
}

#[test]
fn a_new_session_is_told_everything() {
    let mut house = House::lit();
    let before = house.retained.clone();
    house.core.session_lost();
    house.polled(off());
    assert_eq!(house.said, []);
    house.retained.clear();
    house.core.session_opened(house.now, house.wall);
    house.settle();
    house.wait(2);
    assert_eq!(house.said[0].0, "kasa/bridge/state", "the bridge first");
    assert_eq!(house.retained.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(house.retained["kasa/desk-lamp"].contains(r#""state":"OFF""#));
    assert_eq!(house.retained[CONFIG], before[CONFIG], "no churn in Home Assistant");
}

#[test]
fn a_birth_is_answered_in_order_and_after_a_while() {
    let mut house = House::lit();
    house.message("homeassistant/status", "online");
    house.wait(2);
    assert_eq!(house.said, []);
    house.wait(1);
    let position = |house: &House, topic: &str| house.said.iter().position(|(said, _)| said == topic);
    assert_eq!(position(&house, "kasa/bridge/state"), Some(0));
    assert!(position(&house, CONFIG).is_some() && position(&house, "kasa/desk-lamp").is_none());
    house.wait(1);
    assert!(position(&house, CONFIG) < position(&house, "kasa/desk-lamp/availability"));
    assert!(position(&house, "kasa/desk-lamp/availability") < position(&house, "kasa/desk-lamp"));
    house.said.clear();
    house.message("homeassistant/status", "offline");
    house.deliver("homeassistant/status", "online", true);
    house.wait(20);
    assert_eq!(house.said, []);
}

#[test]
fn two_versions_of_a_config_are_two_seconds_apart() {
    let mut house = House::new().connected();
    house.polled(hs110());
    house.said.clear();
    house.now += Duration::from_secs(1);
    let mut renamed = hs110();
    renamed.alias = "Reading lamp".into();
    house.polled(renamed);
    assert_eq!(house.heard(CONFIG), Vec::<String>::new(), "one second after the first");
    house.wait(5);
    let configs = house.heard(CONFIG);
    assert_eq!(configs.len(), 1);
    assert!(configs[0].contains(r#""name":"Reading lamp""#));
}

#[test]
fn names_come_from_the_configuration_the_alias_or_the_mac() {
    let mut house = House::with_names(&[None, None, None]).connected();
    for (no, (mac, alias)) in
        [("50:c7:bf:01:02:03", "Büro"), ("50:c7:bf:01:02:04", "buro"), ("50:c7:bf:01:02:05", "")]
            .into_iter()
            .enumerate()
    {
        let mut reading = hs110();
        (reading.mac, reading.alias) = (mac.parse().unwrap(), alias.into());
        house.report(PlugNo(no as u32), Event::Polled(Ok(Arc::new(reading))));
    }
    for name in ["buro", "buro-0204", "50c7bf010205"] {
        assert!(house.retained.contains_key(&format!("kasa/{name}")), "{name}: {:?}", house.retained.keys());
    }
}

#[test]
fn one_plug_listed_twice_is_served_once() {
    let mut house = House::with_names(&[Some("a"), Some("b")]).connected();
    house.report(PlugNo(0), Event::Polled(Ok(Arc::new(hs110()))));
    house.report(PlugNo(1), Event::Polled(Ok(Arc::new(hs110()))));
    assert!(house.retained.contains_key("kasa/a") && !house.retained.contains_key("kasa/b"));
}

#[test]
fn a_restart_is_asked_for_by_request() {
    let mut house = House::lit();
    house.message("kasa/bridge/request/restart", r#"{"transaction":5}"#);
    assert!(house.core.restart_requested());
    let response = house.heard("kasa/bridge/response/restart");
    assert_eq!(response, [r#"{"data":{},"status":"ok","transaction":5}"#]);
    house.message("kasa/bridge/request/+/x", "");
    assert!(house.heard("kasa/bridge/response/unknown")[0].contains("error"));
}

#[test]
fn a_broker_that_is_away_costs_nothing() {
    let mut house = House::new();
    for number in 0..10_000 {
        let mut reading = hs110();
        reading.relay_moved(0, number % 2 == 0, SystemTime::UNIX_EPOCH);
        house.polled(reading);
    }
    assert!(!house.core.has_something_to_say());
    assert_eq!(house.core.next_publish(house.now), None);
    let mut house = house.connected();
    assert_eq!(house.heard("kasa/desk-lamp").len(), 1);
}

/// What a bridge that is no more has left of a plug that nobody lists.
fn left(house: &mut House, list: bool) {
    let config = json!({"origin": {"name": "kasa2mqtt"}, "state_topic": "kasa/attic",
        "availability": [{"topic": "kasa/bridge/state"}, {"topic": "kasa/attic/availability"}],
        "components": {"relay": {"p": "switch", "unique_id": "x"}}});
    let topic = "homeassistant/device/kasa_0090aabbccdd/config";
    let devices = json!([{"id": "0090aabbccdd", "slug": "attic", "discovered_via": "config",
        "configured": "192.0.2.99:9999", "address": "192.0.2.99:9999"}]);
    let mut retained = vec![
        (topic, config.to_string()),
        ("kasa/attic", r#"{"state":"ON"}"#.to_string()),
        ("kasa/attic/availability", "online".to_string()),
        ("kasa/notes", "somebody else's".to_string()),
    ];
    retained.extend(list.then(|| ("kasa/bridge/devices", devices.to_string())));
    for (topic, payload) in retained {
        house.deliver(topic, &payload, true);
        house.retained.insert(topic.into(), payload);
    }
}

#[test]
fn what_nobody_knows_is_offline_at_once_and_gone_when_it_is_removed() {
    let mut house = House::new();
    left(&mut house, false);
    let mut house = house.connected();
    assert_eq!(house.retained["kasa/attic/availability"], "offline");
    assert_eq!(house.retained["kasa/attic"], r#"{"state":"ON"}"#, "what was known last stays");
    assert!(house.retained.contains_key("homeassistant/device/kasa_0090aabbccdd/config"));
    house.message("kasa/attic/set", "ON");
    assert!(house.heard("kasa/attic/result")[0].contains("not found on the network"));
    // The broker forgets us for a moment in the middle of it.
    house.message("kasa/bridge/request/device/remove", "attic");
    house.core.session_lost();
    house.wait(5);
    let mut house = house.connected();
    house.wait(5);
    let of_attic =
        house.retained.keys().any(|topic| topic.contains("attic") || topic.contains("0090aabbccdd"));
    assert!(!of_attic, "{:?}", house.retained.keys());
    assert_eq!(house.retained["kasa/notes"], "somebody else's");
}

#[test]
fn what_is_no_longer_listed_is_cleared_and_home_assistant_told_first() {
    let mut house = House::new();
    left(&mut house, true);
    let mut house = house.connected();
    let has = |house: &House, topic: &str| house.retained.contains_key(topic);
    assert!(!has(&house, "homeassistant/device/kasa_0090aabbccdd/config"));
    assert!(has(&house, "kasa/attic") && has(&house, "kasa/attic/availability"), "two seconds later");
    house.wait(2);
    assert!(!has(&house, "kasa/attic") && !has(&house, "kasa/attic/availability"));
    assert_eq!(house.retained["kasa/notes"], "somebody else's");
    // Only what comes before the first session is memory.
    left(&mut house, true);
    house.core.session_opened(house.now, house.wall);
    house.settle();
    assert!(has(&house, "kasa/attic"));
}

#[test]
fn a_search_that_finds_a_listed_host_first_yields_to_it() {
    let mut house = House::with_names(&[Some("desk-lamp")]).connected();
    let found =
        Found { mac: Some(hs110().mac), ..Found::at("198.51.100.7:9999".parse().unwrap(), Protocol::Xor) };
    house.core.found(house.now, &found);
    let wishes: Vec<Wish> = std::iter::from_fn(|| house.core.next_wish()).collect();
    assert!(matches!(&wishes[..], [Wish::Run { .. }, Wish::Run { no: PlugNo(1), .. }]), "{wishes:?}");
    house.report(PlugNo(1), Event::Polled(Ok(Arc::new(hs110()))));
    assert!(house.retained.contains_key("kasa/desk-lamp-0203"), "{:?}", house.retained.keys());
    house.polled(hs110());
    assert_eq!(house.core.next_wish(), Some(Wish::End(PlugNo(1))));
    house.wait(10);
    let of_plugs = |topic: &&String| !topic.contains("bridge");
    let topics: Vec<&String> = house.retained.keys().filter(of_plugs).collect();
    assert_eq!(topics, [CONFIG, "kasa/desk-lamp", "kasa/desk-lamp/availability"]);
}

#[test]
fn a_plug_is_followed_only_when_it_is_lost() {
    let mut house = House::lit();
    while house.core.next_wish().is_some() {}
    let found = |address: &str| {
        let address = address.parse().unwrap();
        Found { mac: Some(hs110().mac), ..Found::at(address, Protocol::Xor) }
    };
    house.core.found(house.now, &found("198.51.100.7:9999"));
    assert_eq!(house.core.next_wish(), None, "it answers where it is");
    house.failed();
    house.core.found(house.now, &found("198.51.100.7:9999"));
    assert_eq!(house.core.next_wish(), Some(Wish::Move(LAMP, "198.51.100.7".parse().unwrap())));
    house.settle();
    let events = house.heard("kasa/bridge/event");
    assert!(events.iter().any(|event| event.contains(r#""type":"ip_changed""#)), "{events:?}");
    let before = house.retained[CONFIG].clone();
    house.polled(hs110());
    house.wait(10);
    assert_eq!(house.retained[CONFIG], before, "nothing changes in Home Assistant");
}

/// The shard that speaks for the lamp until it has said who it is; whether it also owns it.
fn speaker(owns: bool) -> Shard {
    let shards = (2..50).flat_map(|count| (1..=count).map(move |number| Shard { number, count }));
    let speaks = |shard: &Shard| shard.speaks_for("192.0.2.0:9999") && shard.owns(hs110().mac) == owns;
    shards.into_iter().find(speaks).unwrap()
}

fn answered(order: &Order, outcome: Result<(), Error>) -> Event {
    let reading = outcome.is_ok().then(|| Arc::new(hs110()));
    Event::Done { order: order.id, outcome, reply: None, reading }
}

#[test]
fn a_plug_that_may_be_another_shards_is_told_nothing_before_it_has_said_who_it_is() {
    for owns in [true, false] {
        let mut house = House::of_shard(&[Some("desk-lamp")], Some(speaker(owns))).connected();
        house.message("kasa/desk-lamp/set", "TOGGLE");
        house.message("kasa/desk-lamp/set", "TOGGLE");
        let inquiry = house.order();
        assert_eq!((inquiry.id, &inquiry.actions[..]), (INQUIRY, &[Action::Refresh][..]));
        assert_eq!(house.core.next_order(), None, "one inquiry is enough");
        house.report(LAMP, answered(&inquiry, Ok(())));
        if !owns {
            assert_eq!(house.core.next_order(), None);
            let results = house.results();
            assert!(results.len() == 2 && results.iter().all(|result| result["error"]["code"] == "offline"));
            continue;
        }
        for _ in 0..2 {
            let order = house.order();
            assert!(matches!(order.actions[..], [Action::Relay { .. }]), "{order:?}");
            house.report(LAMP, answered(&order, Ok(())));
            assert_eq!(house.results()[0]["ok"], true);
        }
    }
}

#[test]
fn who_speaks_for_a_plug_that_is_not_there_says_so() {
    let mut house = House::of_shard(&[Some("desk-lamp")], Some(speaker(false))).connected();
    for _ in 0..2 {
        house.message("kasa/desk-lamp/set", "ON");
        let inquiry = house.order();
        house.report(LAMP, answered(&inquiry, Err(Error::Connect("refused".into()))));
        let [result] = &house.results()[..] else { panic!("one result") };
        assert_eq!(result["error"]["code"], "offline");
    }
}

#[test]
fn a_plug_that_another_shard_lists_is_left_to_it() {
    let mut house = House::of_shard(&[Some("desk-lamp")], Some(speaker(false)));
    let listed = json!([{"id": hs110().mac.hex(), "slug": "desk-lamp", "discovered_via": "config",
        "configured": "192.0.2.0:9999", "address": "192.0.2.0:9999"}]);
    house.deliver("kasa/bridge/shard-49/devices", &listed.to_string(), true);
    let mut house = house.connected();
    house.message("kasa/desk-lamp/set", "ON");
    house.failed();
    assert_eq!(house.core.next_order(), None);
    house.polled(hs110());
    house.wait(5);
    assert!(house.said.iter().all(|(topic, _)| !topic.contains("desk-lamp")), "{:?}", house.said);
}

/// A plug that is listed by its host is known by nobody when the other shard is first heard of.
#[test]
fn a_shard_that_counts_differently_is_named_again_with_the_plugs_that_both_claim() {
    for (own, other, is_ours) in [("3/3", "1/2", false), ("1/2", "3/3", true)] {
        let [shard, peer] = [own, other].map(|text| text.parse::<Shard>().unwrap());
        assert!(shard.owns(hs110().mac) && peer.owns(hs110().mac));
        let topic = |what: &str| format!("kasa/bridge/shard-{}/{what}", peer.number);
        let mut house = House::of_shard(&[Some("desk-lamp")], Some(shard));
        house.deliver(&topic("info"), &json!({"shard": other, "yields_to": [own]}).to_string(), true);
        house.deliver(&topic("state"), "online", true);
        let mut house = house.connected();
        house.wait(5);
        house.polled(hs110());
        house.wait(5);
        house.polled(hs110());
        house.wait(100);
        let events = house.heard(&format!("kasa/bridge/shard-{}/event", shard.number));
        let events = events.iter().filter(|event| event.contains("shards_disagree"));
        let events: Vec<Value> = events.map(|event| serde_json::from_str(event).unwrap()).collect();
        let told = |plugs: usize, ids: &[String]| json!({"type": "shards_disagree", "shard": own, "other": other, "plugs": plugs, "ids": ids});
        assert_eq!(events, [told(0, &[]), told(1, &[hs110().mac.hex()])]);
        assert_eq!(house.retained.contains_key("kasa/desk-lamp"), is_ours);
    }
}

/// By a clock that was wrong when the program started, as on a machine without a battery for it, and perhaps still is.
#[test]
fn an_absence_is_told_by_the_clock_as_it_is_now() {
    for (clock, from, to) in [
        (1_800_000_000, "2027-01-15T07:59:57.500Z", "2027-01-15T08:00:00.000Z"),
        (1, "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:01.000Z"),
    ] {
        let mut house = House::of_shard(&[], Some(speaker(true))).connected();
        house.core.heard(house.now);
        house.core.session_lost();
        house.now += Duration::from_millis(2500);
        house.wall = SystemTime::UNIX_EPOCH + Duration::from_secs(clock);
        let mut house = house.connected();
        let topic = house.core.settings.topics.bridge("event");
        let [event] = &house.heard(&topic)[..] else { panic!("one event") };
        let event: Value = serde_json::from_str(event).unwrap();
        assert_eq!(event, json!({"type": "away", "from": from, "to": to}));
    }
}

#[test]
fn a_broker_that_ends_every_session_at_once_leaves_no_more_events_than_there_may_be() {
    let mut house = House::of_shard(&[], Some(speaker(true)));
    for _ in 0..3000 {
        house.core.session_opened(house.now, house.wall);
        house.core.session_lost();
    }
    let house = house.connected();
    let told = house.said.iter().filter(|(_, payload)| payload.contains(r#""away""#)).count();
    assert_eq!(told, EVENTS);
}

/// Whoever looks on is told of each plug that changed, once, as it is when he takes it; where nobody does nothing is kept.
#[test]
fn whoever_looks_on_sees_each_plug_as_it_is_now() {
    let mut house = House::lit();
    assert!(!house.core.has_changes());
    house.core.watch();
    house.failed();
    house.failed();
    let Change { no, view } = house.core.next_change().unwrap();
    let view = view.unwrap();
    assert_eq!((no, view.name.as_deref(), view.errors), (LAMP, Some("desk-lamp"), 2));
    assert_eq!(view.tally.errors.iter().sum::<u32>(), 2);
    assert_eq!(view.last_error, Some(Error::Closed.to_string()));
    assert!(!house.core.has_changes() && house.core.next_change().is_none());
    house.core.session_lost();
    assert!(!house.core.whole().connected);
}

#[test]
fn whoever_looks_on_may_switch() {
    let mut house = House::lit();
    house.core.watch();
    let now = house.now;
    let wanted = |plug, outlet| Wanted { ticket: 7, plug, outlet, payload: b"OFF".as_slice(), received: now };
    for (plug, outlet) in [("nobody", 0), ("desk-lamp", 1), ("", 0)] {
        assert_eq!(house.core.wanted(now, &wanted(plug, outlet)), Err(Unknown), "{plug} {outlet}");
    }
    assert!(house.core.next_order().is_none() && house.core.next_result().is_none());
    house.core.wanted(now, &wanted("desk-lamp", 0)).unwrap();
    let order = house.order();
    house.report(LAMP, answered(&order, Ok(())));
    let (ticket, result) = house.core.next_result().unwrap();
    let result: Value = serde_json::from_slice(&result).unwrap();
    assert_eq!((ticket, &result), (7, &json!({"ok": true, "command": "set", "duration_ms": 0})));
    assert_eq!(house.results(), [] as [Value; 0], "the broker did not ask");
    // A refusal is the plug's error, though it was no failure to read.
    house.core.wanted(now, &wanted("desk-lamp", 0)).unwrap();
    let order = house.order();
    house.report(LAMP, answered(&order, Err(Error::Refused { code: -3, message: "no".into() })));
    let (_, result) = house.core.next_result().unwrap();
    assert!(String::from_utf8(result).unwrap().contains("device_error"));
    let view = house.core.next_change().unwrap().view.unwrap();
    assert_eq!((view.errors, view.tally.errors.iter().sum::<u32>()), (0, 1));
    assert!(view.last_error.unwrap().contains("no"));
    // Whoever waits when all ends hears of it.
    house.core.wanted(now, &wanted("desk-lamp", 0)).unwrap();
    house.core.stop(now);
    let (_, result) = house.core.next_result().unwrap();
    assert!(String::from_utf8(result).unwrap().contains(r#""ok":false"#));
}

#[test]
fn a_plug_is_shown_by_the_shard_that_serves_it() {
    let shards = (2..50).flat_map(|count| (1..=count).map(move |number| Shard { number, count }));
    let silent = |shard: &Shard| !shard.speaks_for("192.0.2.0:9999") && shard.owns(hs110().mac);
    for (shard, before, after) in
        [(speaker(false), true, false), (shards.into_iter().find(silent).unwrap(), false, true)]
    {
        let mut house = House::of_shard(&[Some("desk-lamp")], Some(shard)).connected();
        house.core.watch();
        let change = house.core.next_change().unwrap();
        assert_eq!((change.no, change.view.is_some()), (LAMP, before), "{shard}");
        house.polled(hs110());
        let change = house.core.next_change().unwrap();
        assert_eq!((change.no, change.view.is_some()), (LAMP, after), "{shard}");
        assert!(!house.core.has_changes());
    }
}
