//! Fifty plugs on one bridge, a third of them broken in every way that plugs are: the others must not notice.
#![cfg(feature = "embedded-broker")]

mod support;

use std::time::{Duration, SystemTime};

use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::sim::behaviour::{Behaviour, Reply};
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;
use serde_json::{Value, json};
use support::bridge::Bridge;
use support::broker::AnyBroker;
use support::house::{FREE, config};
use support::log::Logged;
use support::watcher::Watcher;

const PLUGS: usize = 50;

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
        ("closes its port", Behaviour { deaf: true, ..normal() }, Seen::Offline),
        ("never answers", reply(Reply::Silence), Seen::Offline),
        ("answers late, but in time", delay(400), Seen::Served),
        ("answers too late", delay(1600), Seen::Offline),
        ("one byte at a time", Behaviour { fragment: 1, ..normal() }, Seen::Served),
        ("half a frame, then closes", reply(Reply::Half), Seen::Offline),
        ("resets mid-reply", reply(Reply::Reset), Seen::Offline),
        ("announces 4 GiB", reply(Reply::Huge), Seen::Offline),
        ("well-framed rubbish", reply(Reply::Rubbish), Seen::Offline),
        ("JSON ten thousand deep", reply(Reply::Deep), Seen::Offline),
        ("an error for everything", Behaviour { refuse: true, ..normal() }, Seen::Offline),
        ("closes after each reply", Behaviour { close: true, ..normal() }, Seen::Served),
        ("a length of zero", reply(Reply::ZeroLength), Seen::Served),
        (
            "loses a third of its connections",
            Behaviour { bad_wifi: true, close: true, ..normal() },
            Seen::Honest,
        ),
        (
            "restarts all the time",
            Behaviour { watchdog: Some(Duration::from_secs(3)), ..normal() },
            Seen::Honest,
        ),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_plugs_hurt_nobody_else_and_are_told_of_honestly() {
    let logged = Logged::start(tracing::Level::WARN);
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
    let mut config = config(Some(broker.address()), &plugs);
    config.poll.interval = Duration::from_secs(1);
    config.poll.timeout = Duration::from_secs(1);
    for (number, plug) in config.plug.iter_mut().enumerate() {
        plug.name = Some(format!("plug-{number}"));
    }
    // Of two that say to be one, the listed one is.
    config.plug[0].mac = Some(plugs[0].mac().parse().unwrap());
    let _bridge = Bridge::start(config);
    let state_of = |number: usize| format!("kasa/plug-{number}");
    let wellness = |number: usize| format!("{}/availability", state_of(number));
    for number in 0..healthy + faults.len() {
        watcher.hear(&wellness(number), |payload| payload == "online").await;
    }

    // Now they break.
    let from = watcher.mark();
    for (number, (_, behaviour, _)) in faults.iter().enumerate() {
        plugs[healthy + number].behave(behaviour.clone()).await;
    }
    let command = async |number: usize, round: usize| {
        let state = if round.is_multiple_of(2) { "ON" } else { "OFF" };
        let transaction = format!("{number}-{round}");
        let payload = json!({"state": state, "transaction": transaction}).to_string();
        watcher.publish(&format!("{}/set", state_of(number)), &payload, false).await;
        let is_it = |result: &str| result.contains(&format!(r#""{transaction}""#));
        watcher.hear_after(from, &format!("{}/result", state_of(number)), is_it).await.payload
    };
    for round in 0..4 {
        // All of them once; the healthy ones again and again.
        for number in 0..if round == 1 { healthy + faults.len() } else { healthy } {
            let result = command(number, round).await;
            let what = faults.get(number.wrapping_sub(healthy));
            let is_served = what.is_none_or(|(_, _, seen)| *seen == Seen::Served);
            assert!(!is_served || result.contains(r#""ok":true"#), "{number} {what:?}: {result}");
        }
    }
    for (number, plug) in plugs.iter().enumerate().take(healthy) {
        assert!(!plug.look().await.relay());
        let told = watcher.on(&wellness(number));
        assert!(told.iter().all(|payload| payload == "online"), "healthy {number}: {told:?}");
    }
    for (number, (what, _, seen)) in faults.iter().enumerate() {
        let number = healthy + number;
        match seen {
            Seen::Offline => {
                drop(watcher.hear_after(from, &wellness(number), |told| told == "offline").await)
            }
            Seen::Served => {
                assert!(watcher.on(&wellness(number)).iter().all(|told| told == "online"), "{what}");
                watcher.hear_after(from, &state_of(number), |told| told.contains(r#""state":"OFF""#)).await;
            }
            Seen::Honest => {}
        }
    }
    // Nonsense is unknown, or is nothing.
    for (number, (sysinfo, state)) in nonsense.iter().enumerate() {
        let number = healthy + faults.len() + number;
        let told = watcher.on(&state_of(number));
        match state {
            Some(state) => {
                let told: Value = serde_json::from_str(told.last().unwrap()).unwrap();
                assert_eq!(
                    (&told["state"], &told["rssi"].is_u64()),
                    (&json!(state), &false),
                    "{sysinfo}: {told}"
                );
            }
            None => assert!(told.is_empty(), "{sysinfo}: {told:?}"),
        }
    }
    // Well again, each is served again.
    for plug in plugs.iter().skip(healthy).take(faults.len()) {
        plug.behave(Behaviour::default()).await;
    }
    let healed = watcher.mark();
    // But for those that are away for half a minute.
    for (number, (what, _, _)) in faults.iter().enumerate().filter(|(_, (_, _, seen))| *seen != Seen::Honest)
    {
        let number = healthy + number;
        let begin = SystemTime::now();
        loop {
            let round = begin.elapsed().unwrap().as_millis() as usize * 2 + 1000;
            if command(number, round).await.contains(r#""ok":true"#) {
                break;
            }
            assert!(begin.elapsed().unwrap() < support::DEADLINE, "{what}");
        }
        watcher.hear_after(from, &state_of(number), |told| told.contains(r#""state":"ON""#)).await;
    }
    assert!(watcher.mark() > healed);
    // One line when a plug goes, whatever is wrong with it; those that come and go may go several times.
    for (number, (what, _, seen)) in faults.iter().enumerate() {
        let name = format!("\"plug-{}\"", healthy + number);
        let lines = logged.lines(|line| line.contains(&name) && line.contains("offline")).len();
        let expected = if *seen == Seen::Offline { 1..=1 } else { 0..=20 };
        assert!(expected.contains(&lines), "{what}: {lines} lines");
    }
    assert!(logged.lines(|line| line.contains("kasa2mqtt")).len() < 100);
}
