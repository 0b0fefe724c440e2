//! The whole bridge between simulated plugs and a broker, against our own broker and against mosquitto alike.
#![cfg(feature = "embedded-broker")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kasa2mqtt::app::Ended;
use kasa2mqtt::sim::behaviour::Klap;
use kasa2mqtt::sim::server::{Behaviour, Reply, Simulator};
use serde_json::{Value, json};
use support::bridge::{Bridge, Program};
use support::broker::AnyBroker;
use support::house::{Way, plugs};
use support::soon;
use support::watcher::Watcher;

/// One test for each function over XOR, against both brokers, and once more over each version of KLAP, with plugs that closed
/// port 9999: to the broker that makes no difference.
macro_rules! over_everything {
    ($($name:ident)*) => {
        against_both_brokers! {
            with crate::support::house::Way::Xor;
            $($name)*
        }
        mod klap_first {
            use super::*;
            $(#[tokio::test] async fn $name() {
                super::$name(AnyBroker::embedded().await, Way::Klap(Klap::First)).await;
            })*
        }
        mod klap_second {
            use super::*;
            $(#[tokio::test] async fn $name() {
                super::$name(AnyBroker::embedded().await, Way::Klap(Klap::Second)).await;
            })*
        }
    };
}

over_everything! {
    a_command_moves_the_relay_and_the_state_follows
    the_button_is_noticed_and_the_led_and_a_restart_obey
    each_plug_has_its_own_interval
    a_command_that_cannot_be_done_is_answered
    a_broker_that_lost_its_memory_is_told_everything
    a_retained_command_switches_nothing
    a_command_sent_while_the_bridge_was_away_is_not_run_later
    a_restart_changes_no_discovery_payload
    home_assistants_birth_is_answered
    two_hundred_commands_at_once_all_arrive
    a_restart_can_be_asked_for
    the_broker_dies_again_and_again_under_commands
}

/// The real program, which reaches KLAP at the ports of real plugs only: tests/netns.rs.
mod program {
    use super::*;

    against_both_brokers! {
        killing_the_program_fires_the_will
        a_terminated_program_says_goodbye
    }
}

/// Hears everything, from before the bridge.
async fn watch(broker: &AnyBroker) -> Watcher {
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher
}

async fn moved(plug: &Simulator, on: bool) {
    soon("the relay", plug.relay().wait_for(|relay| *relay == on)).await.unwrap();
}

fn state(on: &'static str) -> impl Fn(&str) -> bool {
    move |payload| serde_json::from_str::<Value>(payload).is_ok_and(|state| state["state"] == on)
}

fn transaction(id: impl Into<Value>) -> impl Fn(&str) -> bool {
    let id = id.into();
    move |payload| serde_json::from_str::<Value>(payload).is_ok_and(|result| result["transaction"] == id)
}

async fn a_command_moves_the_relay_and_the_state_follows(broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS110-G1", "HS100-G2", "HS110-G3"]).await;
    let watcher = watch(&broker).await;
    let bridge = Bridge::start(way.config(Some(broker.address()), &plugs));
    for (number, plug) in plugs.iter().enumerate() {
        let name = format!("kasa/plug-{number}");
        watcher.hear(&name, state("OFF")).await;
        assert_eq!(watcher.hear(&format!("{name}/availability"), |_| true).await.payload, "online");
        watcher
            .publish(
                &format!("{name}/set"),
                &json!({"state": "on", "transaction": number}).to_string(),
                false,
            )
            .await;
        moved(plug, true).await;
        let result = watcher.hear(&format!("{name}/result"), transaction(number)).await;
        assert!(!result.retain && result.payload.contains(r#""ok":true"#), "{result:?}");
        watcher.hear(&name, state("ON")).await;
    }
    let info = watcher.hear("kasa/bridge/info", |_| true).await.payload;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    // The load of a plug that is on shows at the poll that confirms.
    watcher
        .hear("kasa/plug-0", |payload| {
            serde_json::from_str::<Value>(payload).unwrap()["power"].as_f64() > Some(1.0)
        })
        .await;
    assert_eq!(bridge.stop().await.unwrap(), Ended::Stopped);
}

async fn the_button_is_noticed_and_the_led_and_a_restart_obey(broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS110-G2"]).await;
    let watcher = watch(&broker).await;
    let mut config = way.config(Some(broker.address()), &plugs);
    config.poll.interval = Duration::from_secs(1);
    let _bridge = Bridge::start(config);
    watcher.hear("kasa/plug-0", state("OFF")).await;
    plugs[0].press(true).await;
    watcher.hear("kasa/plug-0", state("ON")).await;
    let mac = plugs[0].mac().replace(':', "").to_lowercase();
    watcher.publish(&format!("kasa/{mac}/set/led"), "off", false).await;
    watcher.hear("kasa/plug-0", |payload| payload.contains(r#""led":"OFF""#)).await;
    assert!(!plugs[0].look().await.led());
    watcher.publish("kasa/plug-0/get", "", false).await;
    watcher.hear("kasa/plug-0/result", |payload| payload.contains(r#""ok":true,"command":"get""#)).await;
    watcher.publish("kasa/plug-0/set/reboot", "PRESS", false).await;
    soon("a restart", plugs[0].counts().wait_for(|counts| counts.reboots == 1)).await.unwrap();
}

async fn each_plug_has_its_own_interval(broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS100-G1", "HS100-G1"]).await;
    let watcher = watch(&broker).await;
    let mut config = way.config(Some(broker.address()), &plugs);
    config.poll.interval = Duration::from_secs(3600);
    config.plug[1].interval = Some(Duration::from_secs(1));
    let _bridge = Bridge::start(config);
    watcher.hear("kasa/plug-0", state("OFF")).await;
    watcher.hear("kasa/plug-1", state("OFF")).await;
    soon("polls", plugs[1].counts().wait_for(|counts| counts.requests >= 7)).await.unwrap();
    // One for the acquaintance, one at most at the random moment from which the hours count, and one for each of the
    // questions that are asked once at first: cloud, clock, next action.
    assert!(plugs[0].counts().borrow().requests <= 5);
}

async fn a_command_that_cannot_be_done_is_answered(broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS100-G3", "HS100-G3"]).await;
    let watcher = watch(&broker).await;
    let mut config = way.config(Some(broker.address()), &plugs);
    config.poll.timeout = Duration::from_secs(1);
    let _bridge = Bridge::start(config);
    watcher.hear("kasa/plug-0", state("OFF")).await;
    watcher.hear("kasa/plug-1", state("OFF")).await;
    for (payload, code) in [("up", "invalid_payload"), (r#"{"colour":1}"#, "unknown_attribute")] {
        watcher.publish("kasa/plug-0/set", payload, false).await;
        watcher.hear("kasa/plug-0/result", |result| result.contains(code)).await;
    }
    plugs[0].behave(Behaviour { refuse: true, ..way.behaviour() }).await;
    watcher.publish("kasa/plug-0/set", "ON", false).await;
    watcher.hear("kasa/plug-0/result", |result| result.contains("device_error")).await;
    plugs[0].behave(Behaviour { reply: Reply::Silence, ..way.behaviour() }).await;
    watcher.publish("kasa/plug-0/set", "ON", false).await;
    watcher.hear("kasa/plug-0/result", |result| result.contains("timeout")).await;
    plugs[1].behave(Behaviour { deaf: true, ..way.behaviour() }).await;
    watcher.publish("kasa/plug-1/set", "ON", false).await;
    watcher.hear("kasa/plug-1/result", |result| result.contains(r#""offline""#)).await;
}

async fn killing_the_program_fires_the_will(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G1"]).await;
    let watcher = watch(&broker).await;
    let program = Program::run(broker.address(), &[plugs[0].address()]);
    watcher.hear("kasa/bridge/state", |payload| payload == "online").await;
    watcher.hear("kasa/plug-0", state("OFF")).await;
    program.kill();
    watcher.hear("kasa/bridge/state", |payload| payload == "offline").await;
    let retained = Watcher::retained(broker.address(), "kasa/#").await;
    assert_eq!(retained["kasa/bridge/state"], "offline");
    assert_eq!(retained["kasa/plug-0/availability"], "online", "the will speaks for all plugs");
}

async fn a_terminated_program_says_goodbye(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G1"]).await;
    let watcher = watch(&broker).await;
    let program = Program::run(broker.address(), &[plugs[0].address()]);
    watcher.hear("kasa/plug-0", state("OFF")).await;
    program.signal("TERM");
    assert!(program.ended().await.success());
    watcher.hear("kasa/bridge/state", |payload| payload == "offline").await;
    assert_eq!(
        Watcher::retained(broker.address(), "kasa/bridge/state").await["kasa/bridge/state"],
        "offline"
    );
    // A will beside it would be heard as a second one.
    watcher.publish("kasa/end", "", false).await;
    watcher.hear("kasa/end", |_| true).await;
    assert_eq!(watcher.on("kasa/bridge/state"), ["online", "offline"]);
}

async fn a_broker_that_lost_its_memory_is_told_everything(mut broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS110-G1", "HS100-G2"]).await;
    let first = watch(&broker).await;
    let _bridge = Bridge::start(way.config(Some(broker.address()), &plugs));
    first.hear("kasa/plug-0", state("OFF")).await;
    first.hear("kasa/plug-1", state("OFF")).await;
    first
        .hear("kasa/bridge/devices", |devices| devices.matches(r#""availability":"online""#).count() == 2)
        .await;
    let before = topics(&broker).await;
    broker.kill().await;
    plugs[1].press(true).await;
    broker.restart().await;
    let second = watch(&broker).await;
    second.hear("kasa/bridge/state", |payload| payload == "online").await;
    second.hear("kasa/plug-1", state("ON")).await;
    second.hear("kasa/bridge/devices", |_| true).await;
    second.hear("kasa/plug-0", state("OFF")).await;
    assert_eq!(topics(&broker).await, before);
    second.publish("kasa/plug-0/set", "ON", false).await;
    moved(&plugs[0], true).await;
}

async fn topics(broker: &AnyBroker) -> Vec<String> {
    let mut all = Watcher::retained(broker.address(), "kasa/#").await;
    all.extend(Watcher::retained(broker.address(), "homeassistant/#").await);
    all.into_keys().collect()
}

async fn a_retained_command_switches_nothing(broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS100-G1"]).await;
    let watcher = watch(&broker).await;
    watcher.publish("kasa/plug-0/set", "ON", true).await;
    let bridge = Bridge::start(way.config(Some(broker.address()), &plugs));
    watcher.hear("kasa/plug-0", state("OFF")).await;
    bridge.stop().await.unwrap();
    let bridge = Bridge::start(way.config(Some(broker.address()), &plugs));
    // A command that is one, to know that the retained one was seen before it.
    let from = watcher.mark();
    watcher.hear_after(from, "kasa/bridge/state", |payload| payload == "online").await;
    watcher.hear_after(from, "kasa/plug-0", state("OFF")).await;
    watcher.publish("kasa/plug-0/set/led", r#"off"#, false).await;
    watcher.hear_after(from, "kasa/plug-0/result", |_| true).await;
    bridge.stop().await.unwrap();
    assert_eq!(plugs[0].counts().borrow().relay_commands, 0);
}

async fn a_command_sent_while_the_bridge_was_away_is_not_run_later(broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS100-G1"]).await;
    let watcher = watch(&broker).await;
    let mut config = way.config(Some(broker.address()), &plugs);
    config.mqtt.client_id = Some("the-same-each-time".into());
    let bridge = Bridge::start(config.clone());
    watcher.hear("kasa/plug-0", state("OFF")).await;
    bridge.stop().await.unwrap();
    watcher.publish("kasa/plug-0/set", "ON", false).await;
    let from = watcher.mark();
    let bridge = Bridge::start(config);
    watcher.hear_after(from, "kasa/plug-0", state("OFF")).await;
    watcher.publish("kasa/plug-0/set/led", "off", false).await;
    watcher.hear_after(from, "kasa/plug-0/result", |_| true).await;
    bridge.stop().await.unwrap();
    assert_eq!(plugs[0].counts().borrow().relay_commands, 0);
}

async fn a_restart_changes_no_discovery_payload(broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS110-G1", "HS100-G2", "HS110-G3"]).await;
    let watcher = watch(&broker).await;
    let mut runs: Vec<BTreeMap<String, String>> = Vec::new();
    for _ in 0..2 {
        let from = watcher.mark();
        let bridge = Bridge::start(way.config(Some(broker.address()), &plugs));
        for name in ["kasa/plug-0", "kasa/plug-1", "kasa/plug-2"] {
            watcher.hear_after(from, name, state("OFF")).await;
        }
        bridge.stop().await.unwrap();
        runs.push(Watcher::retained(broker.address(), "homeassistant/#").await);
    }
    assert_eq!(runs[0].len(), 4);
    assert_eq!(runs[0], runs[1]);
}

async fn home_assistants_birth_is_answered(broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS110-G1"]).await;
    let watcher = watch(&broker).await;
    watcher.subscribe("homeassistant/device/+/config").await;
    let _bridge = Bridge::start(way.config(Some(broker.address()), &plugs));
    watcher.hear("kasa/plug-0", state("OFF")).await;
    let from = watcher.mark();
    watcher.publish("homeassistant/status", "online", false).await;
    let mac = plugs[0].mac().replace(':', "").to_lowercase();
    watcher.hear_after(from, &format!("homeassistant/device/kasa_{mac}/config"), |_| true).await;
    watcher.hear_after(from, "kasa/plug-0/availability", |_| true).await;
    watcher.hear_after(from, "kasa/plug-0", |_| true).await;
}

async fn two_hundred_commands_at_once_all_arrive(broker: AnyBroker, way: Way) {
    let mut models = ["HS100-G1", "HS110-G2", "HS110-G3", "HS100-G3"].repeat(50);
    models.push("HS100-G1");
    let plugs = way.plugs(&models).await;
    // The last one takes connections and never answers.
    plugs[200].behave(Behaviour { reply: Reply::Silence, ..way.behaviour() }).await;
    let watcher = watch(&broker).await;
    let _bridge = Bridge::start(way.config(Some(broker.address()), &plugs));
    for number in 0..200 {
        watcher.hear(&format!("kasa/plug-{number}"), state("OFF")).await;
    }
    let began = Instant::now();
    for number in 0..200 {
        let payload = json!({"state": "ON", "transaction": number}).to_string();
        let topic = format!("kasa/plug-{number}/set");
        watcher.client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    for (number, plug) in plugs.iter().take(200).enumerate() {
        moved(plug, true).await;
        watcher.hear(&format!("kasa/plug-{number}"), state("ON")).await;
        watcher.hear(&format!("kasa/plug-{number}/result"), transaction(number)).await;
    }
    println!("200 commands, results and states in {:?}", began.elapsed());
    for (number, plug) in plugs.iter().take(200).enumerate() {
        assert_eq!(plug.counts().borrow().relay_commands, 1, "no command twice");
        assert_eq!(watcher.on(&format!("kasa/plug-{number}/result")).len(), 1, "one result each");
    }
}

async fn a_restart_can_be_asked_for(broker: AnyBroker, way: Way) {
    let plugs = way.plugs(&["HS100-G1"]).await;
    let watcher = watch(&broker).await;
    let mut bridge = Bridge::start(way.config(Some(broker.address()), &plugs));
    watcher.hear("kasa/plug-0", state("OFF")).await;
    watcher.publish("kasa/bridge/request/restart", r#"{"transaction":"r"}"#, false).await;
    watcher.hear("kasa/bridge/response/restart", transaction("r")).await;
    assert_eq!(bridge.ended().await.unwrap(), Ended::Restart);
}

/// The client crate's known ways to hang or to lose messages on a reconnect all need a broker that goes away with
/// messages in flight.
async fn the_broker_dies_again_and_again_under_commands(mut broker: AnyBroker, way: Way) {
    let models = ["HS110-G3"; 20];
    let plugs = way.plugs(&models).await;
    let mut config = way.config(Some(broker.address()), &plugs);
    config.poll.interval = Duration::from_secs(1);
    let _bridge = Bridge::start(config);
    let mut on = false;
    for round in 0..5 {
        let watcher = watch(&broker).await;
        for number in 0..plugs.len() {
            watcher.hear(&format!("kasa/plug-{number}/availability"), |payload| payload == "online").await;
        }
        on = !on;
        for number in 0..plugs.len() {
            let topic = format!("kasa/plug-{number}/set");
            let payload = if on { "ON" } else { "OFF" };
            watcher.client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).await.unwrap();
        }
        if round % 2 == 0 {
            // Mid-flight: some were delivered, some not.
            moved(&plugs[0], on).await;
        }
        broker.kill().await;
        broker.restart().await;
        let watcher = watch(&broker).await;
        watcher.hear("kasa/bridge/state", |payload| payload == "online").await;
        // By now what was received has run, so that the buttons have the last word.
        for plug in &plugs {
            plug.press(!on).await;
        }
        for number in 0..plugs.len() {
            watcher.hear(&format!("kasa/plug-{number}"), state(if on { "OFF" } else { "ON" })).await;
        }
        on = !on;
    }
}

/// The program with nothing but plugs configured: its own broker, with a user, also after a restart by request.
#[tokio::test]
async fn the_program_brings_its_own_broker_and_starts_afresh_when_asked() {
    let plugs = plugs(&["HS110-G3"]).await;
    let address = support::port::unused();
    let mut command = Program::command();
    command.arg("run").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.env("KASA2MQTT_BROKER__LISTEN", address.to_string());
    command.env("KASA2MQTT_BROKER__USERNAME", "kasa").env("KASA2MQTT_BROKER__PASSWORD", "0123");
    command.env("KASA2MQTT_PLUG", format!("[{{host=\"{}\", name=\"lamp\"}}]", plugs[0].address()));
    let program = Program::spawn(&mut command);
    for on in [true, false] {
        let watcher = soon("the broker", async {
            loop {
                let mut options = support::watcher::options(address);
                options.set_credentials("kasa", "0123");
                let watcher = Watcher::connect_with(options).await;
                if !watcher.log.borrow().ended {
                    return watcher;
                }
                // Refused: it does not listen yet, and says so in no other way.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        watcher.subscribe("kasa/#").await;
        watcher.hear("kasa/lamp", |_| true).await;
        watcher.publish("kasa/lamp/set", if on { "ON" } else { "OFF" }, false).await;
        moved(&plugs[0], on).await;
        watcher.publish("kasa/bridge/request/restart", "{}", false).await;
        watcher.wait("the broker to go", |log| log.ended).await;
    }
    program.signal("TERM");
    assert!(program.ended().await.success());
}
