//! Strips, dimmers, timers, sensors and what else the family has, through the whole bridge.
#![cfg(feature = "embedded-broker")]

mod support;

use std::time::Duration;

use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::config::Config;
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::{Behaviour, Simulator};
use serde_json::{Value, json};
use support::bridge::Bridge;
use support::broker::AnyBroker;
use support::house::{FREE, config};
use support::soon;
use support::watcher::Watcher;

/// One simulated device called "It", and a bridge.
struct House {
    watcher: Watcher,
    device: Simulator,
    _bridge: Bridge,
    _broker: AnyBroker,
}

impl House {
    async fn of(model: &str) -> House {
        House::with(model, Behaviour::default(), |_| {}).await
    }

    async fn with(model: &str, behaviour: Behaviour, change: impl Fn(&mut Config)) -> House {
        let plug = SimPlug::new(Model::named(model).unwrap(), "It", mac(0)).with(behaviour);
        let device = Simulator::start(plug, FREE).await.unwrap();
        let broker = AnyBroker::embedded().await;
        let watcher = Watcher::connect(broker.address()).await;
        watcher.subscribe("kasa/#").await;
        watcher.subscribe("homeassistant/#").await;
        let mut config = config(Some(broker.address()), std::slice::from_ref(&device));
        config.poll.interval = Duration::from_secs(1);
        change(&mut config);
        let house = House { watcher, device, _bridge: Bridge::start(config), _broker: broker };
        house.state("", |_| true).await;
        house
    }

    async fn state(&self, outlet: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let state = |payload: &str| serde_json::from_str::<Value>(payload).unwrap();
        let heard = self.watcher.hear(&format!("kasa/it{outlet}"), |payload| fits(&state(payload))).await;
        state(&heard.payload)
    }

    /// Publishes a command and waits for its result.
    async fn told(&self, topic: &str, payload: &str) -> Value {
        let from = self.watcher.mark();
        self.watcher.publish(&format!("kasa/{topic}"), payload, false).await;
        let (device, _) = topic.split_once("/set").unwrap();
        let result = self.watcher.hear_after(from, &format!("kasa/{device}/result"), |_| true).await;
        serde_json::from_str(&result.payload).unwrap()
    }

    async fn done(&self, topic: &str, payload: &str) {
        let result = self.told(topic, payload).await;
        assert_eq!(result["ok"], true, "{topic} {payload}: {result}");
    }

    async fn asked(&self, request: &str, payload: Value) -> Value {
        let from = self.watcher.mark();
        self.watcher.publish(&format!("kasa/bridge/request/{request}"), &payload.to_string(), false).await;
        let response = format!("kasa/bridge/response/{request}");
        serde_json::from_str(&self.watcher.hear_after(from, &response, |_| true).await.payload).unwrap()
    }

    async fn relays(&self) -> Vec<bool> {
        self.device.look().await.outlets().iter().map(|outlet| outlet.relay()).collect()
    }
}

#[tokio::test]
async fn a_strip_is_its_outlets() {
    let house = House::of("HS300").await;
    house.done("it/3/set", "ON").await;
    assert_eq!(house.relays().await, [false, false, true, false, false, false]);
    house.state("/3", |state| state["state"] == "ON").await;
    house.state("", |state| state["state"] == "ON").await;
    house.done("it/set", "ON").await;
    assert_eq!(house.relays().await, [true; 6]);
    for outlet in ["/1", "/2", "/3", "/4", "/5", "/6"] {
        house.state(outlet, |state| state["state"] == "ON").await;
    }
    house.done("it/set", r#"{"state":"OFF"}"#).await;
    assert_eq!(house.relays().await, [false; 6]);
    house.done("it/6/set", "TOGGLE").await;
    house.done("it/6/set/alias", "Büro ☃").await;
    house.done("it/set/alias", "Desk").await;
    let strip = house.device.look().await;
    assert_eq!((strip.alias(), strip.outlets()[5].alias()), ("Desk", "Büro ☃"));
    assert_eq!(house.told("it/1/set/led", "ON").await["ok"], false);
    for topic in ["it/7/set", "it/0/set", "it/x/set"] {
        let from = house.watcher.mark();
        house.watcher.publish(&format!("kasa/{topic}"), "ON", false).await;
        house.watcher.hear_after(from, "kasa/it/result", |result| result.contains(r#""ok":false"#)).await;
    }
    // Each outlet by its own id, never several, never the parent.
    for request in house.device.log().await.iter().filter(|request| request.contains("set_relay_state")) {
        let request: Value = serde_json::from_str(request).unwrap();
        assert_eq!(request["context"]["child_ids"].as_array().unwrap().len(), 1, "{request}");
    }
}

#[tokio::test]
async fn a_strips_energy_is_the_sum_and_its_voltage_the_mean() {
    let house = House::of("HS300").await;
    house.done("it/set", "ON").await;
    let known = |state: &Value| state["power"].as_f64() > Some(100.0);
    let whole = house.state("", known).await;
    let mut sum = 0.0;
    for number in 1..=6 {
        let state = house.state(&format!("/{number}"), |state| state["power"].as_f64() > Some(1.0)).await;
        assert!((115.0..125.0).contains(&state["voltage"].as_f64().unwrap()), "{state}");
        sum += state["power"].as_f64().unwrap();
    }
    let power = whole["power"].as_f64().unwrap();
    assert!((power - sum).abs() < sum * 0.02, "{power} and {sum}: loads move by a percent");
    assert!((115.0..125.0).contains(&whole["voltage"].as_f64().unwrap()), "{whole}");
}

#[tokio::test]
async fn a_dimmer_keeps_its_level_and_fades() {
    let house = House::of("HS220").await;
    let level = async || {
        let dimmer = house.device.look().await;
        (dimmer.relay(), dimmer.brightness().unwrap())
    };
    for (payload, relay, brightness) in [
        (r#"{"state":"ON","brightness":40}"#, true, 40),
        ("OFF", false, 40),
        ("ON", true, 40),
        (r#"{"brightness":0}"#, false, 40),
        (r#"{"brightness":70,"transition":0.5}"#, true, 70),
        (r#"{"state":"OFF","transition":1}"#, false, 70),
        (r#"{"state":"TOGGLE"}"#, true, 70),
    ] {
        house.done("it/set", payload).await;
        assert_eq!(level().await, (relay, brightness), "{payload}");
        let state = if relay { "ON" } else { "OFF" };
        house.state("", |told| told["state"] == state && told["brightness"] == brightness).await;
    }
    house.done("it/set/brightness", "25").await;
    assert_eq!(level().await, (true, 25));
    assert_eq!(house.told("it/set/brightness", "101").await["ok"], false);
}

#[tokio::test]
async fn a_motion_sensor_can_be_told_to_rest() {
    for model in ["KS200M", "ES20M"] {
        let house = House::of(model).await;
        house.state("", |state| state["pir"] == "ON").await;
        house.done("it/set/pir", "OFF").await;
        assert_eq!(house.device.look().await.motion(), Some(false), "{model}");
        house.state("", |state| state["pir"] == "OFF").await;
    }
    let house = House::of("HS220").await;
    assert_eq!(house.told("it/set/pir", "OFF").await["error"]["code"], "unsupported");
}

#[tokio::test]
async fn a_timer_is_the_plugs_own_and_outlives_the_bridge() {
    let house = House::of("HS100-G3").await;
    house.done("it/set", r#"{"state":"ON","on_time":600}"#).await;
    let plug = house.device.look().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let remaining = plug.outlets()[0].remaining(now).unwrap();
    assert!(plug.relay() && (590..=600).contains(&remaining.as_secs()), "{remaining:?}");
    let state = house.state("", |state| state["timer_remaining"].is_u64()).await;
    assert_eq!(state["timer_action"], "OFF", "{state}");
    assert!((590..=600).contains(&state["timer_remaining"].as_u64().unwrap()), "{state}");
    let rules = house.device.log().await.iter().filter(|request| request.contains("add_rule")).count();
    assert_eq!(rules, 1);
    // Another one takes its place, and none ends it.
    house.done("it/set", r#"{"state":"ON","on_time":3}"#).await;
    let House { watcher, device, _bridge, _broker } = house;
    drop(_bridge);
    drop(_broker);
    soon("the plug to switch itself off", device.relay().wait_for(|on| !on)).await.unwrap();
    drop(watcher);
}

#[tokio::test]
async fn a_timer_can_be_taken_back_and_shows_its_end() {
    let house = House::of("KP115").await;
    house.done("it/set", r#"{"state":"ON","on_time":600}"#).await;
    house.state("", |state| state["timer_remaining"].is_u64()).await;
    let from = house.watcher.mark();
    house.done("it/set", r#"{"on_time":0}"#).await;
    house.watcher.hear_after(from, "kasa/it", |state| state.contains(r#""timer_action":null"#)).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(house.device.look().await.outlets()[0].remaining(now), None);
    assert!(house.relays().await[0], "it stays on");
    // One that ends is seen to have ended at once, not a poll later.
    let from = house.watcher.mark();
    house.done("it/set", r#"{"state":"ON","on_time":1}"#).await;
    house.watcher.hear_after(from, "kasa/it", |state| state.contains(r#""state":"OFF""#)).await;
    assert_eq!(
        house.told("it/set", r#"{"state":"OFF","on_time":60}"#).await["error"]["code"],
        "invalid_payload"
    );
}

#[tokio::test]
async fn one_outlet_has_a_timer_of_its_own() {
    let house = House::of("KP303").await;
    house.done("it/set", "ON").await;
    let from = house.watcher.mark();
    house.done("it/2/set", r#"{"state":"ON","on_time":1}"#).await;
    house.watcher.hear_after(from, "kasa/it/2", |state| state.contains(r#""state":"OFF""#)).await;
    assert_eq!(house.relays().await, [true, false, true]);
}

/// The next action of the plug's own timetable, from whichever place its firmware tells it.
#[tokio::test]
async fn the_next_scheduled_action_is_told() {
    for model in ["HS100-G1", "HS100-G3", "KP303"] {
        let house = House::of(model).await;
        // Set by somebody else, such as the app; our own timers are told apart by their name only.
        let changed = house.device.change(|plug| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let rule = br#"{"count_down":{"add_rule":{"enable":1,"delay":1800,"act":1,"name":"add timer"}}}"#;
            plug.answer(rule, kasa2mqtt::sim::plug::Way::Tcp, now);
        });
        changed.await;
        house.watcher.publish("kasa/it/get", "", false).await;
        let outlet = if model == "KP303" { "/1" } else { "" };
        let state = house
            .state(outlet, |state| state["timer_remaining"].is_u64() || state["next_action"].is_string());
        let state = state.await;
        assert!(state["timer_action"] == "ON" || state["next_action"] == "ON", "{model}: {state}");
    }
}

#[tokio::test]
async fn identify_blinks_and_leaves_the_led_as_it_was() {
    for lit in [true, false] {
        let house = House::of("HS103").await;
        house.done("it/set/led", if lit { "ON" } else { "OFF" }).await;
        let before = house.device.log().await.len();
        house.done("it/set/identify", "PRESS").await;
        let told = async || {
            let log = house.device.log().await;
            log[before..].iter().filter(|request| request.contains("set_led_off")).count()
        };
        soon("the last change", async {
            while told().await < 10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(house.device.look().await.led(), lit);
        let told = house.watcher.on("kasa/it").pop().unwrap();
        let led = format!(r#""led":"{}""#, if lit { "ON" } else { "OFF" });
        assert!(told.contains(&led), "the state does not blink: {told}");
    }
}

#[tokio::test]
async fn a_request_as_it_is_needs_leave() {
    let house = House::of("HS110-G3").await;
    let time = json!({"id": "it", "request": {"time": {"get_time": {}}}, "transaction": 7});
    let refused = house.asked("device/raw", time.clone()).await;
    assert_eq!((&refused["status"], &refused["transaction"]), (&json!("error"), &json!(7)), "{refused}");

    let allowed = |config: &mut Config| config.commands.raw = true;
    let house = House::with("HS110-G3", Behaviour::default(), allowed).await;
    let answered = house.asked("device/raw", time).await;
    assert_eq!(answered["status"], "ok", "{answered}");
    assert!(answered["data"].to_string().contains(r#""get_time":{"#), "{answered}");
    let sysinfo = json!({"system": {"get_sysinfo": {}}});
    let masked = house.asked("device/raw", json!({"id": "it", "request": sysinfo})).await;
    let whole = house.asked("device/raw", json!({"id": "it", "request": sysinfo, "unmasked": true})).await;
    let device_id = |answer: &Value| {
        let text = answer.to_string();
        let at = text.find(r#""deviceId":""#).unwrap() + 12;
        text[at..at + 8].to_string()
    };
    assert!(device_id(&whole).starts_with("8006") && !device_id(&masked).starts_with("8006"), "{masked}");
    for destructive in [
        json!({"system": {"reset": {"delay": 1}}}),
        json!({"cnCloud": {"unbind": {}}}),
        json!({"system": {"get_sysinfo": {}, "set_mac_addr": {"mac": "50-C7-BF-01-02-03"}}}),
    ] {
        let refused = house.asked("device/raw", json!({"id": "it", "request": destructive})).await;
        assert_eq!(refused["status"], "error", "{refused}");
    }
    let sent = house.device.log().await;
    assert!(!sent.iter().any(|request| request.contains("reset") || request.contains("unbind")), "{sent:?}");

    let named = |config: &mut Config| {
        config.commands.raw = true;
        config.commands.destructive = vec!["unbind".into()];
    };
    let house = House::with("HS110-G3", Behaviour::default(), named).await;
    house.device.change(|plug| *plug = plug.clone().bound_to("somebody@example.org")).await;
    let unbind = json!({"id": "it", "request": {"cnCloud": {"unbind": {}}}});
    assert_eq!(house.asked("device/raw", unbind).await["status"], "ok");
    assert!(!house.device.look().await.is_bound());
}

#[tokio::test]
async fn the_cloud_and_a_restart_are_told() {
    let house = House::of("HS110-G3").await;
    house.state("", |state| state["cloud"] == "OFF").await;
    house.done("it/set/reboot", "PRESS").await;
    soon("the restart", house.device.counts().wait_for(|counts| counts.reboots == 1)).await.unwrap();
}

/// A counter that drops by itself is proven before it is believed, and never published in between.
#[tokio::test]
async fn rare_failures_of_a_meter_are_null_and_not_zero() {
    let house = House::of("HS110-G3").await;
    house.state("", |state| state["voltage"].is_f64()).await;
    house.device.behave(Behaviour { lacks: vec!["emeter".into()], ..Behaviour::default() }).await;
    let state = house.state("", |state| state["voltage"].is_null()).await;
    for key in ["power", "current", "voltage"] {
        assert!(state[key].is_null(), "{key}: {state}");
    }
    assert_eq!(house.watcher.on("kasa/it/availability").last().unwrap(), "online");
}
