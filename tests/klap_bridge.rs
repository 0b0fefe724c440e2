//! The whole bridge between a broker and plugs that speak KLAP: what is true of plugs is true of these.
#![cfg(feature = "embedded-broker")]

mod support;

use std::time::Duration;

use kasa2mqtt::config::Config;
use kasa2mqtt::plug::scan::target::Target;
use kasa2mqtt::sim::behaviour::{Behaviour, Klap};
use kasa2mqtt::sim::server::Simulator;
use serde_json::{Value, json};
use support::bridge::Bridge;
use support::broker::AnyBroker;
use support::house::{self, Way};
use support::soon;
use support::watcher::Watcher;

const MODELS: [&str; 3] = ["HS110-G3", "HS100-G3", "HS300"];

/// Plugs that speak this version.
async fn plugs(klap: Klap) -> Vec<Simulator> {
    Way::Klap(klap).plugs(&MODELS).await
}

/// The bridge of `all`, which lists only these.
fn config(broker: &AnyBroker, all: &[Simulator], listed: &[Simulator], password: &str) -> Config {
    let mut config = Way::Klap(Klap::First).config(Some(broker.address()), all);
    config.plug = listed.iter().map(|plug| house::plug(plug.address())).collect();
    config.poll.interval = Duration::from_secs(1);
    config.poll.timeout = Duration::from_secs(2);
    config.kasa.password = Some(password.into());
    config
}

async fn watch(broker: &AnyBroker) -> Watcher {
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.subscribe("homeassistant/#").await;
    watcher
}

fn value(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap_or_default()
}

fn state(on: &'static str) -> impl Fn(&str) -> bool {
    move |payload| value(payload)["state"] == on
}

/// A plug that failed a moment ago is not asked again at once, so whoever wants it back asks until it answers.
async fn ask_until_it_answers(watcher: &Watcher, name: &str) {
    let asking = async {
        loop {
            let from = watcher.mark();
            watcher.publish(&format!("{name}/get"), "", false).await;
            let result = watcher.hear_after(from, &format!("{name}/result"), |_| true).await;
            if result.payload.contains(r#""ok":true"#) {
                return;
            }
        }
    };
    soon("the plug to answer", asking).await;
}

/// A restart, a plug that refuses, and one that is gone for a while.
async fn troubles_are_answered(klap: Klap, first: &Simulator, second: &Simulator, watcher: &Watcher) {
    let habits = || Way::Klap(klap).behaviour();
    let from = watcher.mark();
    watcher.publish("kasa/plug-0/set/reboot", "PRESS", false).await;
    watcher.hear_after(from, "kasa/plug-0/result", |result| result.contains(r#""ok":true"#)).await;
    watcher.publish("kasa/plug-0/set", "ON", false).await;
    watcher.hear_after(from, "kasa/plug-0", state("ON")).await;
    first.behave(Behaviour { refuse: true, ..habits() }).await;
    watcher.publish("kasa/plug-0/set", "OFF", false).await;
    watcher.hear_after(from, "kasa/plug-0/result", |result| result.contains("device_error")).await;
    second.behave(Behaviour { deaf: true, ..habits() }).await;
    watcher.publish("kasa/plug-1/set", "ON", false).await;
    watcher.hear_after(from, "kasa/plug-1/result", |result| result.contains(r#""ok":false"#)).await;
    watcher.hear_after(from, "kasa/plug-1/availability", |payload| payload == "offline").await;
    first.behave(habits()).await;
    second.behave(habits()).await;
    ask_until_it_answers(watcher, "kasa/plug-1").await;
    watcher.hear_after(from, "kasa/plug-1/availability", |payload| payload == "online").await;
}

async fn commands_and_presses_arrive(klap: Klap, protocol: &str) {
    let plugs = plugs(klap).await;
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let bridge = Bridge::start(config(&broker, &plugs, &plugs, "secret"));
    for (number, plug) in plugs.iter().enumerate() {
        let name = format!("kasa/plug-{number}");
        watcher.hear(&name, state("OFF")).await;
        assert_eq!(watcher.hear(&format!("{name}/availability"), |_| true).await.payload, "online");
        let command = json!({"state": "on", "transaction": number}).to_string();
        watcher.publish(&format!("{name}/set"), &command, false).await;
        let answers = |payload: &str| value(payload)["transaction"] == number;
        let result = watcher.hear(&format!("{name}/result"), answers).await;
        assert!(result.payload.contains(r#""ok":true"#), "{result:?}");
        watcher.hear(&name, state("ON")).await;
        assert!(plug.look().await.relay());
        plug.press(false).await;
        let outlet = if MODELS[number] == "HS300" { format!("{name}/1") } else { name };
        watcher.hear(&outlet, state("OFF")).await;
        let mac = plug.mac().replace(':', "").to_lowercase();
        let device = if MODELS[number] == "HS300" { format!("kasa_{mac}_1") } else { format!("kasa_{mac}") };
        watcher.hear(&format!("homeassistant/device/{device}/config"), |_| true).await;
        assert_eq!(plug.counts().borrow().handshakes, 1, "one session serves them all");
    }
    let names = |payload: &str| {
        let devices = value(payload);
        let mut devices = devices.as_array().into_iter().flatten();
        devices.all(|device| device["protocol"] == protocol)
    };
    watcher.hear("kasa/bridge/devices", names).await;
    assert!(!watcher.on("kasa/bridge/devices").iter().any(|payload| payload.contains("secret")));
    troubles_are_answered(klap, &plugs[0], &plugs[1], &watcher).await;

    // A bridge that starts afresh says the same of them.
    let config_topic =
        format!("homeassistant/device/kasa_{}/config", plugs[0].mac().replace(':', "").to_lowercase());
    let before = watcher.on(&config_topic).last().unwrap().clone();
    bridge.stop().await.unwrap();
    let from = watcher.mark();
    let _bridge = Bridge::start(config(&broker, &plugs, &plugs, "secret"));
    watcher.hear_after(from, "kasa/plug-0/availability", |payload| payload == "online").await;
    assert!(watcher.on(&config_topic).iter().all(|payload| *payload == before || payload.is_empty()));
}

#[tokio::test]
async fn commands_and_presses_arrive_over_the_first_version() {
    commands_and_presses_arrive(Klap::First, "klap").await;
}

#[tokio::test]
async fn commands_and_presses_arrive_over_the_second_version() {
    commands_and_presses_arrive(Klap::Second, "klap v2").await;
}

#[tokio::test]
async fn a_plug_that_changes_its_protocol_stays_online_and_obeys() {
    let plugs = plugs(Klap::Second).await;
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let _bridge = Bridge::start(config(&broker, &plugs, &plugs[..1], "secret"));
    watcher.hear("kasa/plug-0", state("OFF")).await;
    for (klap, from, to, remedy) in [
        (None, "klap v2", "xor", "keep the plug from the internet"),
        (Some(Klap::First), "xor", "klap", "Third-Party Compatibility"),
    ] {
        let mark = watcher.mark();
        plugs[0].speak(klap).await;
        let is_told = |payload: &str| {
            let event = value(payload);
            let remedy = event["reason"].as_str().is_some_and(|reason| reason.contains(remedy));
            event["type"] == "protocol_changed" && event["from"] == from && event["to"] == to && remedy
        };
        watcher.hear_after(mark, "kasa/bridge/event", is_told).await;
        for on in ["ON", "OFF"] {
            watcher.publish("kasa/plug-0/set", on, false).await;
            watcher.hear_after(mark, "kasa/plug-0", state(on)).await;
        }
    }
    assert_eq!(watcher.on("kasa/plug-0/availability"), ["online"]);
}

#[tokio::test]
async fn a_wrong_password_is_told_once_and_ends_with_offline() {
    let plugs = plugs(Klap::First).await;
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let mut config = config(&broker, &plugs, &plugs[..2], "wrong");
    // The second plug is of an account of its own.
    config.plug[0].name = Some("theirs".into());
    config.plug[1].username = Some("me@example.org".into());
    config.plug[1].password = Some("secret".into());
    let _bridge = Bridge::start(config);
    let is_failed = |payload: &str| value(payload)["type"] == "auth_failed";
    let event = watcher.hear("kasa/bridge/event", is_failed).await.payload;
    assert!(event.contains("kasa.username") && event.contains("Third-Party Compatibility"), "{event}");
    watcher.hear("kasa/plug-1", state("OFF")).await;
    watcher.hear("kasa/theirs/availability", |payload| payload == "offline").await;
    let tells_why = |payload: &str| {
        let theirs = &value(payload)[0];
        let trouble = theirs["trouble"].as_str().unwrap_or_default();
        theirs["availability"] == "offline" && trouble.contains("kasa.username")
    };
    watcher.hear("kasa/bridge/devices", tells_why).await;
    watcher.publish("kasa/theirs/set", "ON", false).await;
    watcher.hear("kasa/theirs/result", |payload| payload.contains("offline")).await;
    let told = watcher.on("kasa/bridge/event").iter().filter(|payload| is_failed(payload)).count();
    assert_eq!((told, plugs[0].counts().borrow().handshakes), (1, 1));
    let everything =
        ["bridge/event", "bridge/devices", "theirs/result"].map(|topic| watcher.on(&format!("kasa/{topic}")));
    assert!(!everything.iter().flatten().any(|payload| payload.contains("example.org")));
    // The port is opened in the app.
    plugs[0].speak(None).await;
    ask_until_it_answers(&watcher, "kasa/theirs").await;
    watcher.hear("kasa/theirs/availability", |payload| payload == "online").await;
}

#[tokio::test]
async fn a_corrected_password_file_brings_the_plug_back_at_the_next_attempt() {
    for klap in [Klap::First, Klap::Second] {
        let plugs = plugs(klap).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "wrong\n").unwrap();
        let broker = AnyBroker::embedded().await;
        let watcher = watch(&broker).await;
        let mut config = config(&broker, &plugs, &plugs[1..2], "");
        (config.kasa.password, config.kasa.password_file) = (None, Some(file.clone()));
        config.plug[0].name = Some("lamp".into());
        let _bridge = Bridge::start(config);
        watcher.hear("kasa/bridge/event", |payload| value(payload)["type"] == "auth_failed").await;
        assert_eq!(plugs[1].counts().borrow().handshakes, 1);
        std::fs::write(&file, "secret\n").unwrap();
        watcher.hear("kasa/lamp", state("OFF")).await;
        assert_eq!(plugs[1].counts().borrow().handshakes, 2, "the first attempt after that");
    }
}

#[tokio::test]
async fn a_plug_that_a_search_finds_is_served() {
    let plugs = plugs(Klap::Second).await;
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let mut config = config(&broker, &plugs, &[], "secret");
    config.scan.enabled = true;
    config.scan.targets = vec![Target::Host(plugs[1].address().to_string().parse().unwrap())];
    let _bridge = Bridge::start(config);
    watcher.hear("kasa/plug-1", state("OFF")).await;
    watcher.publish("kasa/plug-1/set", "ON", false).await;
    watcher.hear("kasa/plug-1", state("ON")).await;
}
