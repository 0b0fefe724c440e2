//! Several brokers, of which one is used at a time: what users notice when it dies. The brokers here share nothing, as
//! the nodes of a cluster would, so that what the bridge itself brings to the next one is seen.
#![cfg(feature = "embedded-broker")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::bridge::Bridge;
use support::broker::AnyBroker;
use support::house::{config, plugs, url};
use support::port;
use support::watcher::Watcher;

const PLUGS: usize = 20;

/// Everything, on each of the brokers that are there.
async fn watch(broker: &AnyBroker) -> Watcher {
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher
}

async fn online(watcher: &Watcher) {
    watcher.hear("kasa/bridge/state", |payload| payload == "online").await;
    for number in 0..PLUGS {
        watcher.hear(&format!("kasa/plug-{number}/availability"), |payload| payload == "online").await;
        watcher.hear(&format!("kasa/plug-{number}"), |payload| payload.contains(r#""state""#)).await;
    }
}

/// One command for each plug, not waited for.
async fn command(watcher: &Watcher, round: usize) {
    for number in 0..PLUGS {
        let payload = json!({"state": "TOGGLE", "transaction": format!("{round}-{number}")}).to_string();
        let topic = format!("kasa/plug-{number}/set");
        watcher.client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).await.unwrap();
    }
}

/// Transaction -> results heard of it.
fn results(watcher: &Watcher) -> BTreeMap<String, BTreeSet<String>> {
    let mut results: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for number in 0..PLUGS {
        for result in watcher.on(&format!("kasa/plug-{number}/result")) {
            let parsed: Value = serde_json::from_str(&result).unwrap();
            results.entry(parsed["transaction"].as_str().unwrap().into()).or_default().insert(result);
        }
    }
    results
}

async fn commands_survive_the_death_of_one_broker_after_the_other(
    mut first: AnyBroker,
    mut second: AnyBroker,
) {
    let plugs = plugs(&["HS110-G3"; PLUGS]).await;
    let mut config = config(None, &plugs);
    config.mqtt.urls = vec![url(first.address()), url(second.address())];
    config.poll.interval = Duration::from_secs(1);
    let mut watcher = watch(&first).await;
    let bridge = Bridge::start(config);
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut sent = 0;
    let commanded =
        || -> Vec<u64> { plugs.iter().map(|plug| plug.counts().borrow().relay_commands).collect() };
    for round in 0..4 {
        online(&watcher).await;
        let before = commanded();
        // Whole, before it becomes hard.
        command(&watcher, 2 * round).await;
        for number in 0..PLUGS {
            let is_it = |result: &str| result.contains(&format!(r#""{}-{number}""#, 2 * round));
            watcher.hear(&format!("kasa/plug-{number}/result"), is_it).await;
        }
        // None twice, and none of the round before, late.
        let whole = commanded();
        assert!(
            whole.iter().zip(&before).all(|(now, before)| now - before == 1),
            "{before:?}, then {whole:?}"
        );
        // These are on their way when the broker dies.
        command(&watcher, 2 * round + 1).await;
        sent += 2 * PLUGS;
        let (dies, lives) =
            if round % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        let next = watch(lives).await;
        dies.kill().await;
        let began = Instant::now();
        // Somebody presses a button meanwhile.
        let pressed = !plugs[0].look().await.relay();
        plugs[0].press(pressed).await;
        online(&next).await;
        println!("round {round}: everything is at the next broker after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(15));
        // Nothing is lost: each plug's state there comes to what it is, whatever happened meanwhile.
        for (number, plug) in plugs.iter().enumerate() {
            let (topic, relay) = (format!("kasa/plug-{number}"), plug.relay());
            next.wait("the state of a plug", |log| {
                let is_true = if *relay.borrow() { r#""state":"ON""# } else { r#""state":"OFF""# };
                let last = log.heard.iter().rev().find(|heard| heard.topic == topic);
                last.is_some_and(|last| last.payload.contains(is_true))
            })
            .await;
        }
        let after = commanded();
        assert!(after.iter().zip(&whole).all(|(now, before)| now - before <= 1), "{whole:?}, then {after:?}");
        dies.restart().await;
        for (transaction, results) in results(&watcher) {
            all.entry(transaction).or_default().extend(results);
        }
        watcher = next;
    }
    online(&watcher).await;
    bridge.stop().await.unwrap();
    watcher.hear("kasa/bridge/state", |payload| payload == "offline").await;
    for (transaction, results) in results(&watcher) {
        all.entry(transaction).or_default().extend(results);
    }
    assert!(all.values().all(|results| results.len() == 1), "{all:?}");
    // Results that a broker took with it into death were acknowledged by it; those are of commands that it had just been
    // given.
    for round in (0..8).step_by(2) {
        for number in 0..PLUGS {
            let result = all.get(&format!("{round}-{number}")).and_then(BTreeSet::first);
            assert!(
                result.is_some_and(|result| result.contains(r#""ok":true"#)),
                "{round}-{number}: {result:?}"
            );
        }
    }
    let mut ran = 0;
    for (number, plug) in plugs.iter().enumerate() {
        let commands = plug.counts().borrow().relay_commands;
        let done = |round: &usize| {
            all.get(&format!("{round}-{number}"))
                .is_some_and(|results| results.iter().any(|result| result.contains(r#""ok":true"#)))
        };
        let answered = (0..8).filter(done).count() as u64;
        assert!(
            (answered..=8).contains(&commands),
            "plug {number}: {commands} run of 8, {answered} answered"
        );
        ran += commands;
    }
    println!("{sent} sent, {ran} run, {} answered", all.len());
}

#[tokio::test]
async fn embedded_commands_survive_the_death_of_one_broker_after_the_other() {
    let (first, second) = (AnyBroker::embedded().await, AnyBroker::embedded().await);
    commands_survive_the_death_of_one_broker_after_the_other(first, second).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn mosquitto_commands_survive_the_death_of_one_broker_after_the_other() {
    let (first, second) = (AnyBroker::mosquitto().await, AnyBroker::mosquitto().await);
    commands_survive_the_death_of_one_broker_after_the_other(first, second).await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_passed_over() {
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let plugs = plugs(&["HS100-G1"]).await;
    let mut config = config(None, &plugs);
    config.mqtt.urls = vec![url(port::unused()), url(port::unused()), url(broker.address())];
    let began = Instant::now();
    let _bridge = Bridge::start(config);
    watcher.hear("kasa/plug-0", |state| state.contains("OFF")).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A node of a cluster may notice the end of a session long after the bridge has come to another node.
#[tokio::test]
async fn a_will_that_is_spoken_late_is_contradicted() {
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let bridge = Bridge::start(config(Some(broker.address()), &[]));
    watcher.hear("kasa/bridge/state", |payload| payload == "online").await;
    let from = watcher.mark();
    watcher.publish("kasa/bridge/state", "offline", true).await;
    watcher.hear_after(from, "kasa/bridge/state", |payload| payload == "online").await;
    bridge.stop().await.unwrap();
    watcher.publish("kasa/end", "", false).await;
    watcher.hear("kasa/end", |_| true).await;
    assert_eq!(watcher.on("kasa/bridge/state"), ["online", "offline", "online", "offline"]);
}
