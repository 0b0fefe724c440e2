//! More than anybody should ask, and what nobody should send: every command gets its one result, the newest wins, and
//! the bridge goes on.
#![cfg(feature = "embedded-broker")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rumqttc::QoS;
use serde_json::{Value, json};
use support::bridge::{Bridge, Program};
use support::broker::AnyBroker;
use support::fuzz::{ATTRIBUTES, corpus};
use support::house::{config, plugs};
use support::memory::Memory;
use support::soon;
use support::watcher::{Log, Watcher};

/// `KASA2MQTT_TEST_FLOOD_COMMANDS` sends more than the usual few thousand.
fn commands() -> usize {
    let commands = std::env::var("KASA2MQTT_TEST_FLOOD_COMMANDS").ok();
    commands.map_or(5_000, |commands| commands.parse().expect("KASA2MQTT_TEST_FLOOD_COMMANDS is a number"))
}

/// What the program may need more for a flood than before it, in KiB: answers that wait for the broker.
const GROWTH: i64 = 31_250;

/// Results by their transactions.
fn results(log: &Log) -> BTreeMap<u64, Vec<Value>> {
    let mut results: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for heard in log.heard.iter().filter(|heard| heard.topic.ends_with("/result")) {
        let result: Value = serde_json::from_str(&heard.payload).unwrap();
        if let Some(transaction) = result["transaction"].as_u64() {
            results.entry(transaction).or_default().push(result);
        }
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_answered_command_by_command_and_the_last_one_wins() {
    let plugs = plugs(&["HS100-G3", "HS100-G3", "HS300", "HS220"]).await;
    let broker = AnyBroker::embedded().await;
    let (watcher, other) =
        (Watcher::connect(broker.address()).await, Watcher::connect(broker.address()).await);
    watcher.subscribe("kasa/+/result").await;
    watcher.subscribe("kasa/+/availability").await;
    let addresses: Vec<_> = plugs.iter().map(|plug| plug.address()).collect();
    let folder = tempfile::tempdir().unwrap();
    let program = Program::run_logged(&broker.address().to_string(), &addresses, &folder.path().join("log"));
    for number in 0..plugs.len() {
        watcher.hear(&format!("kasa/plug-{number}/availability"), |payload| payload == "online").await;
    }
    let before = Memory::of(program.id()).now;
    // Half of them to one plug, the others to all.
    let count = commands();
    let begin = Instant::now();
    for number in 0..count {
        let plug = if number % 2 == 0 { 0 } else { number / 2 % plugs.len() };
        // The last one for each plug says where it ends.
        let state = if number + 2 * plugs.len() >= count || number % 3 == 0 { "ON" } else { "OFF" };
        let payload = json!({"state": state, "transaction": number}).to_string();
        // Not one by one: as many as may wait for their acknowledgement.
        let topic = format!("kasa/plug-{plug}/set");
        other.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
        // 5,000 a second, as far as this machine goes.
        let due = begin + Duration::from_micros(200) * u32::try_from(number).unwrap();
        tokio::time::sleep_until(due.into()).await;
    }
    for enough in (0..=count).step_by(500).chain([count]) {
        other.wait("more acknowledgements", |log| log.acknowledged >= enough).await;
    }
    let sent = begin.elapsed();
    // However long it takes, as long as some more come.
    for enough in (0..=count).step_by(500).chain([count]) {
        watcher.wait("more results", |log| log.heard.len() >= enough).await;
    }
    watcher.wait("every result", |log| results(log).len() == count).await;
    let mut log = Log::default();
    watcher
        .wait("the log", |heard| {
            log = heard.clone();
            true
        })
        .await;
    let mut ended: BTreeMap<String, usize> = BTreeMap::new();
    for (transaction, results) in results(&log) {
        assert_eq!(results.len(), 1, "{transaction}: {results:?}");
        let how =
            if results[0]["ok"] == true { "ok".into() } else { results[0]["error"]["code"].to_string() };
        *ended.entry(how).or_default() += 1;
    }
    // Done, or outdone by a newer one before it was begun; nothing else happens to a plug that answers.
    let expected = ended.keys().all(|how| how == "ok" || how == "\"superseded\"");
    assert!(expected && ended["ok"] > 0, "{ended:?}");
    for (number, plug) in plugs.iter().enumerate() {
        assert!(plug.look().await.outlets().iter().all(|outlet| outlet.relay()), "plug {number}");
    }
    let Memory { now: after, highest } = Memory::of(program.id());
    println!(
        "{count} commands in {sent:?}, each answered after {:?}: {ended:?}; {before} KiB before, {after} KiB after, {highest} KiB at most",
        begin.elapsed()
    );
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(!log.contains("are dropped"), "{log}");
    assert!(highest < before + GROWTH, "{before} KiB before, {highest} KiB at most");
    let told: u64 = plugs[0].counts().borrow().relay_commands;
    assert!(told < (count / 2 + count) as u64, "{told} relay commands");
}

#[tokio::test]
async fn what_nobody_should_send_is_refused_and_forgotten() {
    let plugs = plugs(&["HS100-G3"]).await;
    let broker = AnyBroker::embedded().await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    let _bridge = Bridge::start(config(Some(broker.address()), &plugs));
    watcher.hear("kasa/plug-0/availability", |payload| payload == "online").await;
    // A megabyte, and every length of nesting and of topic.
    let large = "x".repeat(1 << 20);
    let deep = "[".repeat(10_000);
    let levels = format!("kasa/plug-0/set/{}", "x/".repeat(1000));
    for (topic, payload) in [
        ("kasa/plug-0/set", large.as_str()),
        ("kasa/plug-0/set", &deep),
        ("kasa/plug-0/set/led", &large),
        ("kasa/plug-0/get", &large),
        ("kasa/bridge/request/scan", &deep),
        ("kasa/bridge/request/device/rename", &large),
        (&levels, "ON"),
        ("kasa//set", "ON"),
        ("kasa/plug-0//set", "ON"),
        ("homeassistant/status", &large),
    ] {
        watcher.publish(topic, payload, false).await;
    }
    // Somebody writes over what is ours. That the bridge is there is said again at once, everything when Home Assistant
    // asks, a state at its next change; nobody believes it meanwhile.
    let from = watcher.mark();
    for topic in ["kasa/plug-0", "kasa/plug-0/availability", "kasa/bridge/state"] {
        watcher.publish(topic, "rubbish", true).await;
    }
    watcher.hear_after(from, "kasa/bridge/state", |state| state == "online").await;
    watcher.publish("homeassistant/status", "online", false).await;
    watcher.hear_after(from, "kasa/plug-0/availability", |state| state == "online").await;
    watcher.hear_after(from, "kasa/plug-0", |state| state.contains(r#""state":"OFF""#)).await;
    let retained = Watcher::retained(broker.address(), "kasa/#").await;
    assert!(retained.values().all(|payload| payload != "rubbish"), "{retained:?}");
    let from = watcher.mark();
    watcher.publish("kasa/plug-0/set", r#"{"state":"ON","transaction":1}"#, false).await;
    let ok = |result: &str| result.contains(r#""ok":true"#) && result.contains(r#""transaction":1"#);
    watcher.hear_after(from, "kasa/plug-0/result", ok).await;
    watcher.hear_after(from, "kasa/plug-0", |state| state.contains(r#""state":"ON""#)).await;
    soon("the relay", plugs[0].relay().wait_for(|relay| *relay)).await.unwrap();
    assert_eq!(plugs[0].counts().borrow().relay_commands, 1, "nothing else was a command");
}

/// Every file of the corpus, and noise, on every topic that takes commands, to the running bridge: each is answered once, no
/// answer is anything but JSON, and the plugs do what the valid ones say and nothing else.
#[tokio::test]
async fn any_bytes_on_any_command_topic_have_one_answer() {
    let plugs = plugs(&["HS220", "HS300"]).await;
    let broker = AnyBroker::embedded().await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    let _bridge = Bridge::start(config(Some(broker.address()), &plugs));
    for number in 0..plugs.len() {
        watcher.hear(&format!("kasa/plug-{number}/availability"), |payload| payload == "online").await;
    }
    let noise = (0..20).map(|_| (0..fastrand::usize(1..80)).map(|_| fastrand::u8(..)).collect());
    let inputs: Vec<Vec<u8>> = corpus().into_iter().chain(noise).collect();
    let places = ["kasa/plug-0", "kasa/plug-1", "kasa/plug-1/2"];
    let verbs = ["set".to_string()].into_iter().chain(ATTRIBUTES.map(|attribute| format!("set/{attribute}")));
    let topics: Vec<String> = verbs.flat_map(|verb| places.map(|place| format!("{place}/{verb}"))).collect();
    let results = |log: &Log| log.heard.iter().filter(|heard| heard.topic.ends_with("/result")).count();
    let mut sent = 0;
    for input in &inputs {
        for topic in &topics {
            watcher.client.publish(topic, QoS::AtLeastOnce, false, input.clone()).await.unwrap();
        }
        // Nothing at all is no command: so a retained one is cleared.
        sent += if input.is_empty() { 0 } else { topics.len() };
        watcher.wait("each result", |log| results(log) >= sent).await;
    }
    assert_eq!(results(&watcher.log.borrow()), sent);
    for heard in watcher.log.borrow().heard.iter().filter(|heard| heard.topic.ends_with("/result")) {
        let result: Value = serde_json::from_str(&heard.payload).unwrap();
        assert!(result["ok"].is_boolean() && result["ok"] == result["error"].is_null(), "{result}");
    }
    println!("{sent} commands, of {} inputs on {} topics", inputs.len(), topics.len());
    // Requests to the bridge have an answer or none, and everything still works.
    for input in &inputs {
        for request in ["scan", "device/rename", "device/remove", "device/raw", "device/refresh", "nonsense"]
        {
            let topic = format!("kasa/bridge/request/{request}");
            watcher.client.publish(topic, QoS::AtLeastOnce, false, input.clone()).await.unwrap();
        }
    }
    for number in 0..plugs.len() {
        let from = watcher.mark();
        let payload = format!(r#"{{"state":"ON","transaction":"end-{number}"}}"#);
        watcher.publish(&format!("kasa/plug-{number}/set"), &payload, false).await;
        let is_it =
            |result: &str| result.contains(&format!("end-{number}")) && result.contains(r#""ok":true"#);
        watcher.hear_after(from, &format!("kasa/plug-{number}/result"), is_it).await;
    }
}
