//! Hostile input to everything that reads: random bytes, and good input with random damage. Nothing may panic, hang or
//! ask for much memory; what comes out must keep the promises of its reader.
//!
//! `KASA2MQTT_TEST_FUZZ_INPUTS` is how many inputs each reader gets; a few thousand by default. What browsers and the
//! Supervisor say is in `tests/fuzz_web.rs`, KLAP's conversations in `tests/klap_fuzz.rs`.

mod support;

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime};

use kasa2mqtt::bridge::command;
use kasa2mqtt::bridge::core::Core;
use kasa2mqtt::bridge::memory::Memory;
use kasa2mqtt::bridge::message::Message;
use kasa2mqtt::bridge::names;
use kasa2mqtt::bridge::plug::{Entry, Via};
use kasa2mqtt::bridge::render::Settings;
use kasa2mqtt::bridge::request;
use kasa2mqtt::bridge::settings::HomeAssistant;
use kasa2mqtt::bridge::shard::Shard;
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
use kasa2mqtt::plug::scan::settings::Adopt;
use kasa2mqtt::plug::sysinfo::Sysinfo;
use kasa2mqtt::plug::timer::{GET_RULES, NextAction, Timer};
use kasa2mqtt::sim::model::MODELS;
use kasa2mqtt::sim::plug::{SimPlug, Way};
use support::fuzz::{ATTRIBUTES, corpus, feed, seeds};

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
    let read = |payload: &[u8]| {
        for topic in command_topics() {
            let Some(Incoming::Command { outlet, verb, .. }) = topics.parse(&topic) else {
                panic!("{topic}")
            };
            let outlets = if outlet.is_some() { Outlets::One(2) } else { Outlets::All };
            if let Ok(Some(command)) = command::parse(verb, outlets, payload) {
                assert!(!command.actions.is_empty());
            }
        }
    };
    feed([seeds(&payloads), corpus()].concat(), read);
    // Every sequence of two bytes at most.
    read(b"");
    for byte in 0..=u8::MAX {
        read(&[byte]);
        (0..=u8::MAX).for_each(|second| read(&[byte, second]));
    }
}

/// Every topic on which a plug takes commands, and one on which it does not.
fn command_topics() -> impl Iterator<Item = String> {
    let verbs = ["set".into(), "get".into()].into_iter();
    let verbs = verbs.chain(ATTRIBUTES.map(|attribute| format!("set/{attribute}")));
    verbs.flat_map(|verb| [format!("kasa/x/{verb}"), format!("kasa/x/2/{verb}")])
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

/// Whatever is said on any topic that a bridge listens to, one of several or alone: what it says itself is well-formed.
#[test]
fn what_comes_from_the_broker() {
    let now = Instant::now();
    let core = |shard: Option<Shard>| {
        let settings = Settings {
            topics: Topics::new("kasa", "homeassistant").of(shard),
            homeassistant: HomeAssistant::default(),
            heartbeat: None,
            command_ttl: Duration::from_secs(10),
            raw: true,
            destructive: Vec::new(),
            adopt: Adopt::All,
            search: Some(Duration::from_secs(300)),
            follow_alias: true,
            instance: "fuzz".into(),
            summary: serde_json::Value::Null,
            started: SystemTime::UNIX_EPOCH,
        };
        let mut core = Core::new(settings, now);
        let address = Some("192.0.2.1:9999".parse().unwrap());
        core.add_plug(Entry { address, mac: None, name: Some("x".into()), interval: None, via: Via::Config });
        core.session_opened(now, SystemTime::UNIX_EPOCH);
        core
    };
    let cores = RefCell::new([core(None), core(Some(Shard { number: 2, count: 3 }))]);
    let topics: Vec<String> = [
        "bridge/info",
        "bridge/state",
        "bridge/shard-1/info",
        "bridge/shard-1/state",
        "bridge/shard-2/info",
        "bridge/shard-9/info",
        "bridge/shard-9/state",
        "bridge/request/device/raw",
        "bridge/request/device/rename",
        "bridge/request/scan",
        "bridge/shard-2/request/health_check",
        "x/set",
        "x/get",
        "bridge/shard-3/devices",
    ]
    .map(|topic| format!("kasa/{topic}"))
    .into_iter()
    .chain(["homeassistant/status".into()])
    .collect();
    let info =
        r#"{"version":"0.1.0","instance":"other","shard":"9/9","yields_to":["2/3","1/2"],"config":{}}"#;
    let inputs =
        [info, "online", "offline", r#"{"state":"ON","transaction":1}"#, r#"{"id":"x","request":{}}"#];
    feed([seeds(&inputs), corpus()].concat(), |payload| {
        for (topic, core) in topics.iter().flat_map(|topic| [(topic, 0), (topic, 1)]) {
            let core = &mut cores.borrow_mut()[core];
            for retain in [false, true] {
                let message =
                    Message { topic: topic.clone(), payload: payload.into(), retain, received: now };
                core.message(now, message, Duration::ZERO);
            }
            while let Some(publish) = core.next_publish(now) {
                assert!(!publish.topic.contains(['+', '#']) && !publish.topic.contains(char::is_control));
                core.acknowledged(publish.ticket);
            }
            while core.next_order().is_some() || core.next_wish().is_some() {}
            assert_eq!(core.fleet().plugs().filter(|(_, plug)| plug.name.as_deref() == Some("x")).count(), 1);
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
