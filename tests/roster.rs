//! Who is served, under which name, and what is left of those who are not: through the whole bridge.
#![cfg(feature = "embedded-broker")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::plug::scan::settings::Adopt;
use kasa2mqtt::plug::settings::HostPort;
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;
use serde_json::{Value, json};
use support::bridge::{Bridge, Program};
use support::broker::AnyBroker;
use support::house::{FREE, config, plugs};
use support::soon;
use support::watcher::Watcher;

against_both_brokers! {
    any_alias_gives_a_topic_and_the_same_in_any_order
    after_a_change_of_the_configuration_the_broker_holds_what_a_fresh_one_would
    a_silent_plug_keeps_its_entities_and_is_told_to_be_offline
    what_is_found_is_served_until_it_is_removed
    components_leave_in_two_steps
}

type Topics = BTreeMap<String, String>;

/// What the broker retains of ours, once it has `count` states of plugs and outlets, and lists all plugs with names.
async fn retained(broker: SocketAddr, count: usize) -> Topics {
    retained_after(&Topics::new(), broker, count).await
}

fn instance(topics: &Topics) -> Option<Value> {
    let info: Value = serde_json::from_str(topics.get("kasa/bridge/info")?).unwrap();
    Some(info["instance"].clone())
}

/// The same of another bridge than the one that left `before`.
async fn retained_after(before: &Topics, broker: SocketAddr, count: usize) -> Topics {
    soon("every state", async {
        loop {
            let mut topics = Watcher::retained(broker, "kasa/#").await;
            topics.extend(Watcher::retained(broker, "homeassistant/#").await);
            let states = topics.values().filter(|payload| payload.starts_with(r#"{"state":"#)).count();
            let listed =
                |list: &String| !list.contains(r#""slug":null"#) && !list.contains(r#""availability":null"#);
            let devices = topics.get("kasa/bridge/devices").is_some_and(listed);
            let online = topics.get("kasa/bridge/state").is_some_and(|state| state == "online");
            let another = instance(&topics).is_some() && instance(&topics) != instance(before);
            // One that has another name since a moment is announced anew two seconds after the first time.
            let configs = topics.iter().filter(|(topic, _)| topic.starts_with("homeassistant/device/kasa_5"));
            let announced = |config: &String| -> Value {
                let config: Value = serde_json::from_str(config).unwrap();
                config["state_topic"].clone()
            };
            let announced: BTreeSet<String> =
                configs.map(|(_, config)| announced(config).to_string()).collect();
            if states == count && announced.len() == count && devices && online && another {
                return topics;
            }
        }
    })
    .await
}

/// The same without what differs from one run to the next: moments, addresses, measurements.
fn lasting(topics: &Topics) -> Topics {
    let mut lasting = Topics::new();
    for (topic, payload) in topics {
        let text = match topic.as_str() {
            "kasa/bridge/info" | "kasa/bridge/health" => String::new(),
            // The keys of a state; what was measured is another thing.
            _ if payload.starts_with(r#"{"state":"#) => {
                let state: BTreeMap<String, Value> = serde_json::from_str(payload).unwrap();
                format!("{} {:?}", state["state"], state.keys().collect::<Vec<_>>())
            }
            // In the order of the configuration.
            "kasa/bridge/devices" => {
                let devices: Vec<Value> = serde_json::from_str(payload).unwrap();
                let listed = |device: &Value| (format!("listed: {}", device["id"]), device.to_string());
                lasting.extend(devices.iter().map(listed));
                continue;
            }
            _ => payload.clone(),
        };
        lasting.insert(topic.clone(), text);
    }
    lasting
}

fn assert_same(one: &Topics, other: &Topics) {
    for topic in one.keys().chain(other.keys()) {
        assert_eq!(one.get(topic), other.get(topic), "{topic}");
    }
}

async fn named(alias: &str, number: u16) -> Simulator {
    let plug = SimPlug::new(Model::named("HS100-G3").unwrap(), alias, mac(number));
    Simulator::start(plug, FREE).await.unwrap()
}

/// MAC -> name.
fn names(topics: &Topics) -> BTreeMap<String, String> {
    let devices: Vec<Value> = serde_json::from_str(&topics["kasa/bridge/devices"]).unwrap();
    let text = |device: &Value, key: &str| device[key].as_str().unwrap().to_string();
    devices.iter().map(|device| (text(device, "id"), text(device, "slug"))).collect()
}

async fn any_alias_gives_a_topic_and_the_same_in_any_order(broker: AnyBroker) {
    let long = "x".repeat(200);
    let aliases =
        ["", &long, "☕🔌", "\u{202e}مصباح", "a/b/#/+", "\u{1}\u{7f}\n", "Lamp", "lamp!", "Lamp", "Bridge"];
    let mut plugs = Vec::new();
    for (number, alias) in (0..).zip(aliases) {
        plugs.push(named(alias, number).await);
    }
    let (mut maps, mut last) = (Vec::new(), Topics::new());
    for (fresh, reversed) in [(false, false), (false, true), (true, true), (true, false)] {
        let other = AnyBroker::embedded().await;
        let broker = if fresh { other.address() } else { broker.address() };
        let mut config = config(Some(broker), &plugs);
        if reversed {
            config.plug.reverse();
        }
        let bridge = Bridge::start(config);
        last = retained_after(&last, broker, plugs.len()).await;
        maps.push(lasting(&last));
        bridge.stop().await.unwrap();
    }
    let names = names(&last);
    let mut distinct: Vec<&String> = names.values().collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), plugs.len(), "{names:?}");
    for name in names.values() {
        let fits = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '-' | '_');
        assert!(!name.is_empty() && name.len() <= 64 && name.chars().all(fits), "{name}");
    }
    let lamps: Vec<&String> = names.values().filter(|name| name.starts_with("lamp")).collect();
    // The one with the lowest MAC is the lamp; the others have the last digits of theirs.
    assert_eq!(lamps, ["lamp", "lamp-0008", "lamp-0009"]);
    assert_same(&maps[0], &maps[1]);
    assert_same(&maps[2], &maps[3]);
    assert_same(&maps[0], &maps[2]);
}

#[tokio::test]
async fn a_name_stays_when_the_alias_changes_unless_it_is_to_follow() {
    for follows in [false, true] {
        let plug = named("Lamp", 0).await;
        let broker = AnyBroker::embedded().await;
        let watcher = Watcher::connect(broker.address()).await;
        watcher.subscribe("kasa/#").await;
        watcher.subscribe("homeassistant/#").await;
        let mut config = config(Some(broker.address()), std::slice::from_ref(&plug));
        config.publish.follow_alias = follows;
        config.poll.interval = Duration::from_secs(1);
        let _bridge = Bridge::start(config);
        watcher.hear("kasa/lamp", |_| true).await;
        let changed = br#"{"system":{"set_dev_alias":{"alias":"Heater"}}}"#;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        plug.change(move |plug| drop(plug.answer(changed, kasa2mqtt::sim::plug::Way::Tcp, now))).await;
        let discovery = "homeassistant/device/kasa_50c7bf5e0001/config";
        let config = watcher.hear(discovery, |config| config.contains(r#""name":"Heater""#)).await;
        let name = if follows { "heater" } else { "lamp" };
        assert!(config.payload.contains(&format!(r#""state_topic":"kasa/{name}""#)), "{config:?}");
        if follows {
            watcher.hear("kasa/lamp", str::is_empty).await;
            watcher.hear("kasa/lamp/availability", str::is_empty).await;
            watcher.hear("kasa/bridge/event", |event| event.contains(r#""type":"renamed""#)).await;
        }
        let states = Watcher::retained(broker.address(), "kasa/+").await;
        assert_eq!(states.into_keys().collect::<Vec<_>>(), [format!("kasa/{name}")]);
    }
}

/// Killed, and started again with another configuration: one plug less, one renamed, one that has lost its meter.
async fn after_a_change_of_the_configuration_the_broker_holds_what_a_fresh_one_would(broker: AnyBroker) {
    let plugs = plugs(&["HS110-G3", "HS300", "HS100-G3", "KP115"]).await;
    let listed = |plug: &Simulator| format!(r#"{{host="{}"}}"#, plug.address());
    let before: Vec<String> = plugs.iter().map(listed).collect();
    let first = Program::run_with(broker.address(), &before);
    let old = retained(broker.address(), 10).await;
    assert!(old.contains_key("kasa/plug-2") && old.contains_key("kasa/plug-0"), "{:?}", old.keys());
    first.kill();
    // The KP115 comes back as a plug without a meter: its firmware was changed.
    let plain = SimPlug::new(Model::named("EP10").unwrap(), "Plug 3", mac(3));
    plugs[3].change(move |plug| *plug = plain).await;
    let after =
        [format!(r#"{{host="{}",name="desk"}}"#, plugs[0].address()), listed(&plugs[1]), listed(&plugs[3])];
    let second = Program::run_with(broker.address(), &after);
    let fresh = AnyBroker::embedded().await;
    let third = Program::run_with(fresh.address(), &after);
    let expected = lasting(&retained(fresh.address(), 9).await);
    let is_so = async {
        loop {
            let found = lasting(&retained_after(&old, broker.address(), 9).await);
            // Home Assistant is told for two seconds that the meter's sensors have gone.
            if found == expected {
                return;
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), is_so).await.is_err() {
        assert_same(&lasting(&retained_after(&old, broker.address(), 9).await), &expected);
    }
    drop((second, third));
}

/// homeassistant.md 1.4: a component that disappears is told to be gone for two seconds, and then left out.
async fn components_leave_in_two_steps(broker: AnyBroker) {
    let plug = plugs(&["KP115"]).await.remove(0);
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("homeassistant/#").await;
    let bridge = Bridge::start(config(Some(broker.address()), std::slice::from_ref(&plug)));
    let topic = "homeassistant/device/kasa_50c7bf5e0001/config";
    watcher.hear(topic, |config| config.contains("energy_total")).await;
    bridge.stop().await.unwrap();
    let plain = SimPlug::new(Model::named("EP10").unwrap(), "Plug 0", mac(0));
    plug.change(move |plug| *plug = plain).await;
    let from = watcher.mark();
    let _bridge = Bridge::start(config(Some(broker.address()), std::slice::from_ref(&plug)));
    let gone = |config: &str| config.contains(r#""power":{"p":"sensor"}"#);
    let began = watcher.hear_after(from, topic, gone).await;
    let ended = watcher.hear_after(from, topic, |config| !config.contains(r#""power""#)).await;
    // How far apart, the core's own tests tell; on a busy machine messages bunch up.
    assert!(ended.at > began.at);
}

async fn a_silent_plug_keeps_its_entities_and_is_told_to_be_offline(broker: AnyBroker) {
    let mut plugs = plugs(&["HS100-G3", "HS300"]).await;
    let configured = config(Some(broker.address()), &plugs);
    let bridge = Bridge::start(configured.clone());
    let before = retained(broker.address(), 8).await;
    bridge.stop().await.unwrap();
    drop(plugs.remove(0));
    let _bridge = Bridge::start(configured);
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.hear("kasa/plug-0/availability", |payload| payload == "offline").await;
    let after = retained_after(&before, broker.address(), 8).await;
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(after["kasa/plug-0"], before["kasa/plug-0"], "what was known last");
    assert_eq!(after["kasa/plug-1/availability"], "online");
}

/// A search of listed targets on loopback: what is found is served, remembered, renamed and removed.
async fn what_is_found_is_served_until_it_is_removed(broker: AnyBroker) {
    let plugs = plugs(&["HS110-G3", "HS100-G3", "KL110"]).await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.subscribe("homeassistant/#").await;
    let mut config = config(Some(broker.address()), &[]);
    config.scan.enabled = true;
    config.scan.targets = plugs.iter().map(|plug| plug.address().to_string().parse().unwrap()).collect();
    let ask = async |request: &str, payload: Value| -> Value {
        let from = watcher.mark();
        watcher.publish(&format!("kasa/bridge/request/{request}"), &payload.to_string(), false).await;
        let response = format!("kasa/bridge/response/{request}");
        serde_json::from_str(&watcher.hear_after(from, &response, |_| true).await.payload).unwrap()
    };
    let bridge = Bridge::start(config.clone());
    watcher.hear("kasa/plug-0/availability", |payload| payload == "online").await;
    watcher.hear("kasa/plug-1/availability", |payload| payload == "online").await;
    watcher.hear("kasa/bridge/event", |event| event.contains(r#""type":"device_added""#)).await;
    let found = ask("scan", json!({"transaction": 1})).await;
    assert_eq!((&found["status"], &found["transaction"]), (&json!("ok"), &json!(1)), "{found}");
    assert_eq!(found["data"]["found"].as_array().unwrap().len(), 2, "the bulb is none: {found}");
    watcher.hear("kasa/bridge/health", |health| health.contains(r#""found":2"#)).await;
    assert_eq!(ask("health_check", json!({})).await["data"]["healthy"], true);
    assert_eq!(ask("device/refresh", json!("plug-0")).await["status"], "ok");

    let renamed = ask("device/rename", json!({"from": "plug-0", "to": "heater"})).await;
    assert_eq!(renamed["data"], json!({"from": "plug-0", "to": "heater"}), "{renamed}");
    watcher.hear("kasa/heater", |state| state.contains("state")).await;
    watcher.hear("kasa/plug-0", str::is_empty).await;
    for (from, to) in [("heater", "plug-1"), ("nobody", "x"), ("heater", "a/b"), ("heater", "bridge")] {
        assert_eq!(
            ask("device/rename", json!({"from": from, "to": to})).await["status"],
            "error",
            "{from} {to}"
        );
    }
    // The broker is the memory: another process knows them, and their names, before it has searched.
    bridge.stop().await.unwrap();
    let mut later = config.clone();
    later.scan.targets = vec!["127.0.0.1:9".parse().unwrap()];
    let from = watcher.mark();
    let bridge = Bridge::start(later);
    watcher.hear_after(from, "kasa/bridge/devices", |list| list.matches(r#""online""#).count() == 2).await;
    watcher.publish("kasa/heater/set", r#"{"state":"ON","transaction":7}"#, false).await;
    watcher.hear_after(from, "kasa/heater/result", |result| result.contains(r#""ok":true"#)).await;
    assert!(plugs[0].look().await.relay());

    // Removed: from Home Assistant at once, from the topics two seconds later.
    let forget = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::from(Program::command());
        command
            .arg("forget")
            .args(arguments)
            .env("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address()));
        soon("the program", command.output()).await.unwrap()
    };
    let forgot = forget(&["heater", "--json"]).await;
    let said: Value = serde_json::from_slice(&forgot.stdout).unwrap();
    assert!(
        forgot.status.success() && said == json!({"ok": true, "name": "heater", "error": null}),
        "{said}"
    );
    let config_topic = "homeassistant/device/kasa_50c7bf5e0001/config";
    let left = watcher.hear_after(from, config_topic, str::is_empty).await;
    let cleared = watcher.hear_after(from, "kasa/heater", str::is_empty).await;
    assert!(cleared.at > left.at);
    watcher.hear_after(from, "kasa/bridge/event", |event| event.contains("device_removed")).await;
    let topics = retained(broker.address(), 1).await;
    assert!(!topics.keys().any(|topic| topic.contains("heater") || topic.contains("kasa_50c7bf5e0001")));
    assert_eq!(ask("device/remove", json!({"id": "heater"})).await["status"], "error");
    let nobody = forget(&["heater"]).await;
    assert!(!nobody.status.success() && String::from_utf8_lossy(&nobody.stderr).contains("no such device"));
    let nobody = forget(&["heater", "--json"]).await;
    let said: Value = serde_json::from_slice(&nobody.stdout).unwrap();
    assert_eq!((&said["ok"], nobody.status.success()), (&json!(false), false));
    assert!(said["error"].as_str().is_some_and(|error| error.contains("no such device")), "{said}");
    bridge.stop().await.unwrap();

    // Those that are not listed any more, and are not to be adopted, go.
    config.scan.adopt = Adopt::Listed;
    let _bridge = Bridge::start(config);
    watcher.hear_after(from, "kasa/plug-1", str::is_empty).await;
    let topics = retained(broker.address(), 0).await;
    assert!(
        !topics.keys().any(|topic| topic.contains("plug-1") || topic.contains("kasa_50c7bf5e")),
        "{topics:?}"
    );
}

#[tokio::test]
async fn a_plug_listed_by_its_mac_alone_is_found() {
    let plugs = plugs(&["HS100-G3", "HS100-G3"]).await;
    let broker = AnyBroker::embedded().await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    let mut config = config(Some(broker.address()), &plugs[..1]);
    config.plug[0].host = None;
    config.plug[0].mac = Some("50:C7:BF:5E:00:01".parse().unwrap());
    config.plug[0].name = Some("freezer".into());
    config.scan.enabled = true;
    config.scan.adopt = Adopt::Listed;
    config.scan.targets = plugs.iter().map(|plug| plug.address().to_string().parse().unwrap()).collect();
    let _bridge = Bridge::start(config);
    watcher.hear("kasa/freezer/availability", |payload| payload == "offline").await;
    watcher.publish("kasa/freezer/set", "ON", false).await;
    watcher.hear("kasa/freezer/result", |result| result.contains("not found on the network")).await;
    watcher.hear("kasa/freezer/availability", |payload| payload == "online").await;
    watcher.publish("kasa/freezer/set", "ON", false).await;
    watcher.hear("kasa/freezer/result", |result| result.contains(r#""ok":true"#)).await;
    assert!(plugs[0].look().await.relay() && !plugs[1].look().await.relay());
    assert_eq!(plugs[1].counts().borrow().relay_commands, 0);
    let states = Watcher::retained(broker.address(), "kasa/+").await;
    assert_eq!(states.into_keys().collect::<Vec<_>>(), ["kasa/freezer"], "the other is not adopted");
}

/// Two plugs change places on loopback, again and again, under commands: neither ever gets the other's.
#[tokio::test]
async fn another_plug_at_the_address_is_never_used() {
    let [first, second] = <[Simulator; 2]>::try_from(plugs(&["HS100-G3", "HS100-G3"]).await).unwrap();
    let broker = AnyBroker::embedded().await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    let addresses = [first.address(), second.address()];
    let mut config = config(Some(broker.address()), &[]);
    config.plug = addresses.iter().map(|address| support::house::plug(*address)).collect();
    config.plug[0].mac = Some("50:C7:BF:5E:00:01".parse().unwrap());
    config.poll.interval = Duration::from_secs(1);
    config.scan.enabled = true;
    config.scan.targets = addresses
        .iter()
        .map(|address| HostPort::to_string(&address.to_string().parse().unwrap()).parse().unwrap())
        .collect();
    let _bridge = Bridge::start(config);
    watcher.hear("kasa/plug-0/availability", |payload| payload == "online").await;
    watcher.hear("kasa/plug-1/availability", |payload| payload == "online").await;
    let (mut here, mut there) = (first, second);
    for round in 0..2 {
        let plugs = (here.look().await, there.look().await);
        let (at, other) = (here.address(), there.address());
        drop((here, there));
        let place = async |plug: SimPlug, address: SocketAddr| {
            soon("the port", async {
                loop {
                    match Simulator::start(plug.clone(), address).await {
                        Ok(simulator) => return simulator,
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            })
            .await
        };
        (here, there) = (place(plugs.0, other).await, place(plugs.1, at).await);
        // Only the first is told anything, and only to be on.
        soon("a command that is obeyed", async {
            for number in 0.. {
                let transaction = format!("{round}-{number}");
                let command = json!({"state": "ON", "transaction": transaction}).to_string();
                watcher.publish("kasa/plug-0/set", &command, false).await;
                let is_it = |result: &str| result.contains(&transaction);
                let result = watcher.hear("kasa/plug-0/result", is_it).await;
                if result.payload.contains(r#""ok":true"#) {
                    return;
                }
            }
        })
        .await;
        assert!(here.look().await.relay());
        assert_eq!(there.look().await.outlets()[0].commands(), 0, "round {round}");
        watcher.hear("kasa/bridge/event", |event| event.contains("ip_changed")).await;
    }
}

#[tokio::test]
async fn two_bridges_with_one_base_topic_notice() {
    let broker = AnyBroker::embedded().await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/bridge/event").await;
    let config = config(Some(broker.address()), &[]);
    let _first = Bridge::start(config.clone());
    soon("the first", async {
        while Watcher::retained(broker.address(), "kasa/bridge/state").await.is_empty() {}
    })
    .await;
    let _second = Bridge::start(config);
    let rival = watcher.hear("kasa/bridge/event", |event| event.contains(r#""type":"rival""#)).await;
    let said = |event: &str| event.contains("rival") && event != rival.payload;
    watcher.hear("kasa/bridge/event", said).await;
}
