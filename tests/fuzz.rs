//! Hostile input to everything that reads: random bytes, and good input with random damage. Nothing may panic, hang or
//! ask for much memory; what comes out must keep the promises of its reader.
//!
//! `KASA2MQTT_TEST_FUZZ_INPUTS` is how many inputs each reader gets; a few thousand by default.

use std::time::{Duration, Instant, SystemTime};

use kasa2mqtt::bridge::command;
use kasa2mqtt::bridge::memory::Memory;
use kasa2mqtt::bridge::names;
use kasa2mqtt::bridge::request;
use kasa2mqtt::bridge::state;
use kasa2mqtt::bridge::topics::{Incoming, Topics};
use kasa2mqtt::config;
use kasa2mqtt::plug::cipher::{self, Body, MAX_BODY};
use kasa2mqtt::plug::client::Client;
use kasa2mqtt::plug::clock;
use kasa2mqtt::plug::command::Outlets;
use kasa2mqtt::plug::emeter::{DAYS, Emeter, REALTIME, energy_of};
use kasa2mqtt::plug::klap::auth::{Auth, Version};
use kasa2mqtt::plug::klap::keys::Keys;
use kasa2mqtt::plug::klap::parts::parts;
use kasa2mqtt::plug::raw;
use kasa2mqtt::plug::reply::Reply;
use kasa2mqtt::plug::scan::answer;
use kasa2mqtt::plug::sysinfo::Sysinfo;
use kasa2mqtt::plug::timer::{GET_RULES, NextAction, Timer};
use kasa2mqtt::sim::model::MODELS;
use kasa2mqtt::sim::plug::{SimPlug, Way};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn inputs() -> u32 {
    let inputs = std::env::var("KASA2MQTT_TEST_FUZZ_INPUTS").ok();
    inputs.map_or(3000, |inputs| inputs.parse().expect("KASA2MQTT_TEST_FUZZ_INPUTS is a number"))
}

/// One change of an input.
#[derive(Debug, Clone)]
enum Damage {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, u8),
    /// A piece of it once more, somewhere else.
    Repeat(prop::sample::Index, prop::sample::Index, u8),
}

/// What breaks readers of JSON and of numbers.
const TOKENS: &[&str] = &[
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "0",
    "1e308",
    "1e999",
    "NaN",
    "18446744073709551616",
    "-32407",
    "0.1",
    "{\"a\":",
    "[[[[[[[[",
    "\\u0000",
    "\\ud800",
    "\u{202e}",
    "+/#",
    "..",
    "99999999999999999999",
    ":",
    ",",
    "\"",
];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let token = prop::sample::select(TOKENS).prop_map(|token| token.as_bytes().to_vec());
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (at(), prop_oneof![token, prop::collection::vec(any::<u8>(), 1..4)])
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), 1..20u8).prop_map(|(at, count)| Damage::Remove(at, count)),
        (at(), at(), 1..60u8).prop_map(|(from, to, count)| Damage::Repeat(from, to, count)),
    ]
}

fn damaged(mut input: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = input.len() + 1;
        match damage {
            Damage::Replace(at, byte) => {
                let at = at.index(length);
                if let Some(place) = input.get_mut(at) {
                    *place = *byte;
                }
            }
            Damage::Insert(at, bytes) => {
                let at = at.index(length);
                input.splice(at..at, bytes.iter().copied());
            }
            Damage::Remove(at, count) => {
                let at = at.index(length);
                input.drain(at..(at + usize::from(*count)).min(length - 1).max(at).min(input.len()));
            }
            Damage::Repeat(from, to, count) => {
                let (from, to) = (from.index(length), to.index(length));
                let piece: Vec<u8> = input.iter().copied().skip(from).take((*count).into()).collect();
                input.splice(to..to, piece);
            }
        }
    }
    input
}

/// Feeds a reader with `seeds`, damaged or not, and with noise.
fn feed(seeds: Vec<Vec<u8>>, read: impl Fn(&[u8])) {
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let broken = (prop::sample::select(seeds), prop::collection::vec(damage(), 0..6))
        .prop_map(|(seed, damages)| damaged(seed, &damages));
    let input = prop_oneof![9 => broken, 1 => noise];
    let config = Config { cases: inputs(), failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&input, |input| {
            read(&input);
            Ok(())
        })
        .unwrap();
}

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// What every simulated device says to these modules.
fn said(modules: &str) -> Vec<Vec<u8>> {
    let now = Duration::from_secs(1_800_000_000);
    let request = format!("{{{modules}}}");
    let said = |model| {
        let mut plug = SimPlug::new(model, "Büro ☃", [1; 6]);
        plug.switch(true, now);
        plug.answer(request.as_bytes(), Way::Tcp, now + Duration::from_secs(100_000))
            .reply
            .unwrap()
            .into_bytes()
    };
    MODELS.iter().copied().map(said).collect()
}

#[test]
fn frames() {
    let frames = said(r#""system":{"get_sysinfo":{}}"#).iter().map(|reply| cipher::frame(reply)).collect();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    feed(frames, |wire| {
        if let Some(header) = wire.first_chunk()
            && let Ok(Body::Bytes(length)) = cipher::body_length(*header)
        {
            assert!(length <= MAX_BODY);
        }
        let mut bytes = wire.to_vec();
        cipher::decrypt(&mut bytes);
        assert_eq!(cipher::encrypt(&bytes), wire, "the cipher loses nothing");
        // A whole conversation with a peer that says this and no more.
        runtime.block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 17);
            tokio::io::AsyncWriteExt::write_all(&mut far, wire).await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut far).await.unwrap();
            let reply = Client::new(near).exchange(b"{}", Duration::from_secs(1)).await;
            if let Ok(reply) = reply {
                assert!(reply.len() <= MAX_BODY);
            }
        });
    });
}

#[test]
fn klap_replies() {
    let plain = br#"{"system":{"get_sysinfo":{"err_code":0}}}"#;
    let auth = Auth::new(Version::V2, b"me@example.org", b"secret");
    // After a first reply that was signed.
    let session = || {
        let mut keys = Keys::new(&auth, &[1; 16], &[2; 16]);
        let (_, first) = keys.seal(b"{}");
        keys.open(&first).unwrap();
        keys
    };
    let (_, reply) = session().seal(plain);
    feed(vec![reply], |wire| {
        let mut keys = session();
        keys.seal(plain);
        if let Ok(opened) = keys.open(wire) {
            assert_eq!(opened, plain, "what is not signed is not believed");
        }
        let together = parts(wire);
        assert!(together.len() != 1 && together.iter().all(|part| parts(part).is_empty()));
    });
}

#[test]
fn what_plugs_say() {
    let replies = [
        r#""system":{"get_sysinfo":{}}"#,
        r#""system":{"get_sysinfo":{}},"emeter":{"get_realtime":{},"get_daystat":{"year":2027,"month":1}}"#,
        r#""time":{"get_time":{}},"schedule":{"get_next_action":{}},"count_down":{"get_rules":{}}"#,
    ];
    feed(replies.iter().flat_map(|modules| said(modules)).collect(), |reply| {
        let Ok(reply) = Reply::parse(reply) else { return };
        if let Ok(sysinfo) = Sysinfo::parse(&reply, SystemTime::now()) {
            let reading = sysinfo.reading;
            assert!(!reading.outlets.is_empty());
            for text in [&reading.alias, &reading.model, &reading.sw_ver, &reading.hw_ver] {
                assert!(text.len() <= 1024 && !text.contains(char::is_control), "{text:?}");
            }
            let told: serde_json::Value = serde_json::from_slice(&state::render(&reading)).unwrap();
            assert!(told["state"].is_string());
            for outlet in &reading.outlets {
                serde_json::from_slice::<serde_json::Value>(&state::outlet(outlet)).unwrap();
            }
            assert!(names::slug(&reading.alias).is_none_or(|name| names::is_name(&name)));
        }
        if let Ok(realtime) = reply.method(REALTIME) {
            Emeter::sum(&[Emeter::parse(realtime), Emeter::parse(realtime)]);
        }
        if let Ok(days) = reply.method(DAYS) {
            energy_of(days, "day_list", "day", 15);
        }
        if let Ok(time) = reply.method(clock::GET_TIME) {
            clock::parse(time);
        }
        if let Ok(rules) = reply.method(GET_RULES) {
            Timer::parse(rules, SystemTime::now());
        }
        if let Ok(next) = reply.method(("schedule", "get_next_action")) {
            NextAction::parse(next);
        }
        raw::masked(reply.into_value());
    });
}

#[test]
fn what_answers_a_search() {
    let address = "192.0.2.1:9999".parse().unwrap();
    let datagrams: Vec<Vec<u8>> =
        said(r#""system":{"get_sysinfo":{}}"#).iter().map(|reply| cipher::encrypt(reply)).collect();
    feed(datagrams, |datagram| drop(answer::datagram(&mut datagram.to_vec(), address)));
    let announced = r#"{"result":{"device_id":"00","device_type":"IOT.SMARTPLUGSWITCH","device_model":"HS100(UK)","ip":"192.0.2.1","mac":"CC-32-E5-01-02-03","hw_ver":"4.1","mgt_encrypt_schm":{"is_support_https":false,"encrypt_type":"KLAP","http_port":80,"lv":2,"new_klap":1}},"error_code":0}"#;
    let announcement = [&[2, 0, 0, 1, 1, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0], announced.as_bytes()].concat();
    feed(vec![announcement], |datagram| drop(answer::announcement(datagram, address, 9999)));
}

#[test]
fn what_people_command() {
    let payloads = [
        "ON",
        "toggle",
        r#"{"state":"ON","brightness":40,"transition":1.5,"on_time":600,"led":false,"transaction":[7]}"#,
        r#"{"alias":"Büro ☃","pir":1,"identify":"PRESS","flash":"long"}"#,
        "42",
    ];
    let topics = Topics::new("kasa", "homeassistant");
    let verbs = ["kasa/x/set", "kasa/x/get", "kasa/x/2/set", "kasa/x/set/brightness", "kasa/x/set/alias"];
    feed(seeds(&payloads), |payload| {
        for topic in verbs {
            let Some(Incoming::Command { outlet, verb, .. }) = topics.parse(topic) else { panic!("{topic}") };
            let outlets = if outlet.is_some() { Outlets::One(2) } else { Outlets::All };
            if let Ok(Some(command)) = command::parse(verb, outlets, payload) {
                assert!(!command.actions.is_empty());
            }
        }
    });
}

#[test]
fn topics() {
    let topics = Topics::new("kasa", "homeassistant");
    let names = [
        "kasa/desk-lamp/set",
        "kasa/strip/3/set/led",
        "kasa/bridge/request/device/rename",
        "homeassistant/device/kasa_50c7bf010203_1/config",
        "homeassistant/status",
        "kasa/x/availability",
    ];
    feed(seeds(&names), |topic| {
        let topic = String::from_utf8_lossy(topic);
        if let Some(Incoming::Request(request)) = topics.parse(&topic) {
            let asked = request::parse(request, topic.as_bytes());
            assert!(asked.topic.starts_with("response/") && !asked.topic.contains(['+', '#']));
        }
        topics.own(&topic);
        topics.is_of(&topic, "desk-lamp");
    });
}

#[test]
fn what_was_left_with_the_broker() {
    let list = r#"[{"id":"50c7bf010203","slug":"desk","address":"192.0.2.1:9999","configured":"plug.lan:9999","discovered_via":"config"}]"#;
    let config = r#"{"origin":{"name":"kasa2mqtt"},"state_topic":"kasa/lamp","availability":[{"topic":"kasa/bridge/state"}],"components":{"relay":{"p":"switch"}}}"#;
    let topics = Topics::new("kasa", "homeassistant");
    feed(seeds(&[list, config]), |payload| {
        let mut memory = Memory::default();
        memory.take(&topics, "kasa/bridge/devices", payload);
        memory.take(&topics, "homeassistant/device/kasa_50c7bf010203/config", payload);
        for plug in &memory.plugs {
            assert!(names::is_name(&plug.name), "{:?}", plug.name);
        }
    });
}

#[test]
fn requests() {
    let asked = [
        r#"{"id":"lamp","request":{"time":{"get_time":{}}},"transaction":1}"#,
        r#"{"from":"lamp","to":"desk"}"#,
        "lamp",
    ];
    feed(seeds(&asked), |payload| {
        for request in ["device/raw", "device/rename", "device/remove", "device/refresh", "scan", "x"] {
            request::parse(request, payload);
        }
        if let Ok(request) = serde_json::from_slice::<serde_json::Value>(payload) {
            raw::destructive(&request);
        }
    });
}

#[test]
fn configurations() {
    let example =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml")).unwrap();
    let full = "[mqtt]\nurl = \"mqtts://broker.lan\"\npassword_file = \"/x\"\nusername = \"me\"\n[scan]\ntargets = [\"192.0.2.0/24\"]\n\
        [[plug]]\nhost = \"[fe80::1]:9999\"\nmac = \"50:C7:BF:01:02:03\"\nname = \"x\"\ninterval = \"2s\"\n[clock]\nzone = \"UTC\"\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kasa.toml");
    let begin = Instant::now();
    feed(seeds(&[&example, full]), |text| {
        // Each is a file: a tenth of the inputs, and no more than a while.
        if text.len() % 10 == 0 && begin.elapsed() < Duration::from_secs(60) {
            std::fs::write(&file, text).unwrap();
            if let Err(error) = config::load_with(Some(&file), std::iter::empty()) {
                assert!(!error.to_string().is_empty());
            }
        }
    });
}
