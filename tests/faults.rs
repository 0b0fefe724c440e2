//! Fifty plugs on one bridge, the real program, half of them broken in every way that plugs are: the others must not
//! notice.
#![cfg(feature = "embedded-broker")]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::sim::behaviour::{Behaviour, Reply};
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;
use serde_json::{Value, json};
use support::bridge::Program;
use support::broker::AnyBroker;
use support::house::FREE;
use support::memory::Memory;
use support::soon;
use support::watcher::Watcher;
use tempfile::TempDir;

const PLUGS: usize = 50;

/// Resident memory that may come of twenty broken plugs, in KiB: errors, and buffers of 64 KiB that were freed since.
const GROWTH: i64 = 4096;

/// What is to be seen of a broken plug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It is served like any other.
    Served,
    /// It is offline, or was never there.
    Offline,
    /// It may come and go; what is said of it is true.
    Honest,
}

/// Ways to be broken, and what is to be seen of each.
fn faults() -> Vec<(&'static str, Behaviour, Seen)> {
    let normal = Behaviour::default;
    let reply = |reply| Behaviour { reply, ..normal() };
    let delay = |milliseconds| Behaviour { delay: Duration::from_millis(milliseconds), ..normal() };
    vec![
        ("refuses connections", Behaviour { deaf: true, ..normal() }, Seen::Offline),
        ("never answers", reply(Reply::Silence), Seen::Offline),
        // What is allowed is 5 s.
        ("answers after 4.9 s", delay(4900), Seen::Served),
        ("answers after 5.1 s", delay(5100), Seen::Offline),
        ("one byte at a time", Behaviour { fragment: 1, ..normal() }, Seen::Served),
        ("half a frame, then closes", reply(Reply::Half), Seen::Offline),
        ("resets mid-reply", reply(Reply::Reset), Seen::Offline),
        ("announces 4 GiB", reply(Reply::Huge), Seen::Offline),
        ("well-framed rubbish", reply(Reply::Rubbish), Seen::Offline),
        ("JSON ten thousand deep", reply(Reply::Deep), Seen::Offline),
        ("numbers as text", reply(Reply::Text), Seen::Served),
        ("NaN", reply(Reply::Nan), Seen::Offline),
        ("1e308", reply(Reply::Large), Seen::Served),
        ("negative numbers", reply(Reply::Negative), Seen::Served),
        ("an error for everything", Behaviour { refuse: true, ..normal() }, Seen::Offline),
        ("closes after each reply", Behaviour { close: true, ..normal() }, Seen::Served),
        ("a length of zero", reply(Reply::ZeroLength), Seen::Served),
        (
            "loses a third of its connections",
            Behaviour { bad_wifi: true, close: true, ..normal() },
            Seen::Honest,
        ),
        (
            "leaves for half a minute every few seconds",
            Behaviour { watchdog: Some(Duration::from_secs(3)), ..normal() },
            Seen::Honest,
        ),
        ("restarts at each poll", Behaviour { max_reply: Some(1), ..normal() }, Seen::Offline),
    ]
}

/// Sysinfo with nonsense in every place; `None` for a plug that must not be believed at all.
fn nonsense() -> Vec<(Value, Option<&'static str>)> {
    let with = |changes: Value| {
        let mut sysinfo = json!({"alias": "Odd", "deviceId": "8006", "err_code": 0, "feature": "TIM", "hw_ver": "1.0",
            "led_off": 0, "mac": "50:C7:BF:0D:0D:00", "mic_type": "IOT.SMARTPLUGSWITCH", "model": "EP10(US)",
            "on_time": 5, "relay_state": 1, "rssi": -44, "sw_ver": "1.0.0"});
        for (key, value) in changes.as_object().unwrap() {
            sysinfo[key] = value.clone();
        }
        sysinfo
    };
    vec![
        (
            with(
                json!({"mac": "50:C7:BF:0D:0D:01", "rssi": "loud", "on_time": 1e308, "led_off": [], "alias": 7}),
            ),
            Some("ON"),
        ),
        (
            with(
                json!({"mac": "50:C7:BF:0D:0D:02", "on_time": -9_223_372_036_854_775_807i64, "rssi": 1e308}),
            ),
            Some("ON"),
        ),
        (with(json!({"mac": "50:C7:BF:0D:0D:03", "alias": "\u{0}\u{202e}/+#\n".repeat(500)})), Some("ON")),
        (with(json!({"mac": "no mac"})), None),
        // The MAC of the first of the healthy ones.
        (with(json!({"mac": "50:C7:BF:5E:00:01", "relay_state": 0})), None),
    ]
}

async fn simulator(plug: SimPlug) -> Simulator {
    Simulator::start(plug, FREE).await.unwrap()
}

fn state_of(number: usize) -> String {
    format!("kasa/plug-{number}")
}

fn wellness(number: usize) -> String {
    format!("{}/availability", state_of(number))
}

/// Lines of the program's log.
fn lines(log: &Path, is: impl Fn(&str) -> bool) -> Vec<String> {
    fs::read_to_string(log).unwrap().lines().filter(|line| is(line)).map(String::from).collect()
}

fn value(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or_else(|error| panic!("{payload}: {error}"))
}

/// What is told of a plug last is what it is, or is that nothing is known of it.
async fn is_honest(watcher: &Watcher, number: usize, plug: &Simulator, what: &str) {
    let honest = async {
        loop {
            let known = watcher.on(&wellness(number)).last().is_some_and(|told| told == "online");
            let told = watcher.on(&state_of(number)).last().map(|state| value(state)["state"] == "ON");
            if !known || told == Some(plug.look().await.relay()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon(&format!("the truth of one that {what}"), honest).await;
}

/// Whatever a meter says, what is told of it can be so.
fn is_possible(state: &str) -> bool {
    let state = value(state);
    let within = |key: &str, most: f64| {
        state[key].as_f64().is_none_or(|number| (0.0..=most).contains(&number)) && !state[key].is_string()
    };
    within("power", 1e5) && within("voltage", 1e3) && within("current", 1e3) && within("energy_total", 1e7)
}

struct House {
    plugs: Vec<Simulator>,
    watcher: Watcher,
    /// Before it.
    from: usize,
}

impl House {
    /// Sends a command to each of these plugs at once, and gives their results.
    async fn command(&self, numbers: &[usize], round: &str, state: &str) -> Vec<String> {
        let transaction = |number: usize| format!("{round}-{number}");
        for number in numbers {
            let payload = json!({"state": state, "transaction": transaction(*number)}).to_string();
            self.watcher.publish(&format!("{}/set", state_of(*number)), &payload, false).await;
        }
        let mut results = Vec::new();
        for number in numbers {
            let is_it = |result: &str| result.contains(&format!(r#""{}""#, transaction(*number)));
            let topic = format!("{}/result", state_of(*number));
            results.push(self.watcher.hear_after(self.from, &topic, is_it).await.payload);
        }
        results
    }
}

fn is_ok(result: &str) -> bool {
    result.contains(r#""ok":true"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_plugs_hurt_nobody_else_and_are_told_of_honestly() {
    let broker = AnyBroker::embedded().await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.subscribe("homeassistant/#").await;
    let (faults, nonsense) = (faults(), nonsense());
    let healthy = PLUGS - faults.len() - nonsense.len();
    let named = |number: usize, name: &str| {
        SimPlug::new(Model::named("HS110-G3").unwrap(), name, mac(u16::try_from(number).unwrap()))
    };
    let mut plugs = Vec::new();
    for number in 0..healthy {
        plugs.push(simulator(named(number, &format!("Healthy {number}"))).await);
    }
    for (number, (what, _, _)) in faults.iter().enumerate() {
        plugs.push(simulator(named(healthy + number, what)).await);
    }
    for (sysinfo, _) in &nonsense {
        let dump = json!({"system": {"get_sysinfo": sysinfo}}).to_string();
        plugs.push(
            simulator(SimPlug::from_dump(dump.as_bytes(), Duration::from_secs(1_800_000_000)).unwrap()).await,
        );
    }
    assert_eq!(plugs.len(), PLUGS);
    let listed: Vec<String> = plugs
        .iter()
        .enumerate()
        .map(|(number, plug)| {
            // Of two that say to be one, the listed one is.
            let mac = if number == 0 { format!(", mac=\"{}\"", plug.mac()) } else { String::new() };
            format!("{{host=\"{}\", name=\"plug-{number}\"{mac}}}", plug.address())
        })
        .collect();
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let mut command = Program::logged(&broker.address().to_string(), &[], &log);
    let program = Program::spawn(command.env("KASA2MQTT_PLUG", format!("[{}]", listed.join(","))));
    let served: Vec<usize> = (0..healthy + faults.len()).collect();
    for number in &served {
        watcher.hear(&wellness(*number), |payload| payload == "online").await;
        watcher.hear(&state_of(*number), |_| true).await;
    }

    // Now they break.
    let from = watcher.mark();
    let house = House { plugs, watcher, from };
    let House { plugs, watcher, .. } = &house;
    let before = Memory::of(program.id()).now;
    for (number, (_, behaviour, _)) in faults.iter().enumerate() {
        plugs[healthy + number].behave(behaviour.clone()).await;
    }
    // All of them once; the healthy ones again and again, until the last of the others is known to be broken.
    let well = &served[..healthy];
    let (asked, _) = tokio::join!(house.command(&served, "all", "ON"), async {
        for (number, (_, _, seen)) in faults.iter().enumerate() {
            let mut round = 0;
            let topic = wellness(healthy + number);
            while *seen == Seen::Offline && watcher.on(&topic).last().is_none_or(|told| told != "offline") {
                let state = if round % 2 == 0 { "OFF" } else { "ON" };
                let results = house.command(well, &format!("{number}-{round}"), state).await;
                assert!(results.iter().all(|result| is_ok(result)), "{results:?}");
                round += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert!(round < 600, "{} is not told to be offline", faults[number].0);
            }
        }
    });
    for (number, result) in asked.iter().enumerate() {
        let what = faults.get(number.wrapping_sub(healthy));
        let is_served = what.is_none_or(|(_, _, seen)| *seen == Seen::Served);
        assert!(!is_served || is_ok(result), "{number} {what:?}: {result}");
    }
    let results = house.command(well, "last", "OFF").await;
    assert!(results.iter().all(|result| is_ok(result)), "{results:?}");
    for number in well {
        assert!(!plugs[*number].look().await.relay());
        let told = watcher.on(&wellness(*number));
        assert!(told.iter().all(|payload| payload == "online"), "healthy {number}: {told:?}");
    }
    for (number, (what, _, seen)) in faults.iter().enumerate() {
        let number = healthy + number;
        is_honest(watcher, number, &plugs[number], what).await;
        if *seen == Seen::Served {
            assert!(watcher.on(&wellness(number)).iter().all(|told| told == "online"), "{what}");
            watcher.hear_after(from, &state_of(number), |told| told.contains(r#""state":"ON""#)).await;
        }
        let states = watcher.on(&state_of(number));
        assert!(states.iter().all(|state| is_possible(state)), "{what}: {states:?}");
    }
    // Nonsense is unknown, or is nothing.
    for (number, (sysinfo, state)) in nonsense.iter().enumerate() {
        let number = healthy + faults.len() + number;
        let told = watcher.on(&state_of(number));
        match state {
            Some(state) => {
                let told = value(told.last().unwrap());
                assert_eq!(
                    (&told["state"], &told["rssi"].is_u64()),
                    (&json!(state), &false),
                    "{sysinfo}: {told}"
                );
            }
            None => assert!(told.is_empty(), "{sysinfo}: {told:?}"),
        }
    }
    let beside = Memory::of(program.id()).now;
    println!("resident: {before} KiB before, {beside} KiB beside broken plugs");
    assert!(beside - before < GROWTH, "resident memory grew from {before} to {beside} KiB");

    // Well again, each is served again; but for those that are away for half a minute.
    for plug in plugs.iter().skip(healthy).take(faults.len()) {
        plug.behave(Behaviour::default()).await;
    }
    for (number, (what, _, seen)) in
        faults.iter().enumerate().filter(|(_, (_, _, seen))| *seen != Seen::Honest)
    {
        let number = healthy + number;
        let healed = watcher.mark();
        let (begin, mut round) = (Instant::now(), 0);
        while !is_ok(&house.command(&[number], &format!("healed-{round}"), "OFF").await[0]) {
            round += 1;
            assert!(begin.elapsed() < support::DEADLINE, "{what}");
        }
        if *seen == Seen::Offline {
            watcher.hear_after(from, &wellness(number), |told| told == "online").await;
        }
        watcher.hear_after(healed, &state_of(number), |told| told.contains(r#""state":"OFF""#)).await;
        is_honest(watcher, number, &plugs[number], what).await;
    }
    // One line when a plug goes and one when it comes, whatever is wrong with it; those that come and go may do so
    // several times.
    for (number, (what, _, seen)) in faults.iter().enumerate() {
        let name = format!("plug=\"plug-{}\"", healthy + number);
        let said = |part: &str| lines(&log, |line| line.contains(&name) && line.contains(part)).len();
        let (gone, back) = (said("plug is offline"), said("plug is back"));
        match seen {
            Seen::Served => assert_eq!((gone, back), (0, 0), "{what}"),
            Seen::Offline => assert_eq!((gone, back), (1, 1), "{what}"),
            Seen::Honest => assert!(gone <= 20 && gone - back <= 1, "{what}: {gone} times gone, {back} back"),
        }
    }
    let warnings = lines(&log, |line| line.contains(" WARN ") || line.contains(" ERROR "));
    assert!(warnings.len() < 100, "{} warnings: {warnings:#?}", warnings.len());
}
