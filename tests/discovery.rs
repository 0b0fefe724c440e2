//! Discovery payloads against golden files. They were written from payloads that real Home Assistant releases took
//! without a word (homeassistant.md 8.0 to 8.3); `VERSION` stands for this package's.

mod support;

use std::time::{Duration, SystemTime};

use kasa2mqtt::bridge::discovery;
use kasa2mqtt::bridge::settings::HomeAssistant;
use kasa2mqtt::bridge::topics::Topics;
use kasa2mqtt::plug::reading::Reading;
use kasa2mqtt::plug::reply::Reply;
use kasa2mqtt::plug::sysinfo::Sysinfo;
use serde_json::{Value, json};
use support::rules;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn golden(text: &str) -> Value {
    serde_json::from_str(&text.replace("VERSION", env!("CARGO_PKG_VERSION"))).unwrap()
}

fn topics() -> Topics {
    Topics::new("kasa", "homeassistant")
}

fn reading(change: impl FnOnce(&mut Value)) -> Reading {
    let mut sysinfo = json!({"err_code": 0, "sw_ver": "1.5.4 Build 180815 Rel.121440", "hw_ver": "2.0",
        "type": "IOT.SMARTPLUGSWITCH", "model": "HS110(EU)", "mac": "50:C7:BF:01:02:03",
        "deviceId": "8006AABBCCDDEEFF00112233445566778899AABB", "alias": "Desk lamp",
        "dev_name": "Smart Wi-Fi Plug With Energy Monitoring", "relay_state": 1, "on_time": 5, "feature": "TIM:ENE",
        "rssi": -54, "led_off": 0});
    change(&mut sysinfo);
    let realtime =
        json!({"voltage_mv": 230_100, "current_ma": 54, "power_mw": 12_300, "total_wh": 7, "err_code": 0});
    let reply = json!({"system": {"get_sysinfo": sysinfo}, "emeter": {"get_realtime": realtime}});
    let reply = Reply::parse(reply.to_string().as_bytes()).unwrap();
    Sysinfo::parse(&reply, SystemTime::UNIX_EPOCH + NOW).unwrap().reading
}

/// A strip of six outlets, as in homeassistant.md 8.2.
fn strip() -> Reading {
    reading(|sysinfo| {
        let id = "8006AABBCCDDEEFF00112233445566778899AABB";
        let child = |n: u32| json!({"id": format!("{id}{n:02}"), "state": 1, "alias": "", "on_time": 5});
        sysinfo["children"] = (0..6).map(child).collect();
        sysinfo["mac"] = "B0:BE:76:2A:D8:38".into();
        sysinfo["model"] = "HS300(US)".into();
        sysinfo["alias"] = "Office strip".into();
        sysinfo.as_object_mut().unwrap().remove("dev_name");
    })
}

fn payload(reading: &Reading) -> Value {
    discovery::plug("desk-lamp", reading, true, &topics(), &HomeAssistant::default())
}

#[test]
fn the_bridge() {
    assert_eq!(discovery::bridge(&topics(), true), golden(include_str!("golden/bridge.json")));
}

#[test]
fn a_metering_plug() {
    assert_eq!(payload(&reading(|_| {})), golden(include_str!("golden/hs110.json")));
}

#[test]
fn a_plain_plug_and_a_wall_switch_are_the_same_with_less() {
    let mut expected = golden(include_str!("golden/hs110.json"));
    for key in ["power", "voltage", "current", "energy_total", "energy_today", "energy_month"] {
        expected["components"].as_object_mut().unwrap().remove(key).unwrap();
    }
    let plain = reading(|sysinfo| sysinfo["feature"] = "TIM".into());
    assert_eq!(payload(&plain), expected);

    expected["components"]["relay"]["device_class"] = "switch".into();
    let switch = reading(|sysinfo| {
        sysinfo["feature"] = "TIM".into();
        sysinfo["dev_name"] = "Smart Wi-Fi Light Switch".into();
    });
    assert_eq!(payload(&switch), expected);
}

#[test]
fn the_mac_can_be_kept_from_home_assistant() {
    let settings = HomeAssistant { mac_connection: false, ..HomeAssistant::default() };
    let payload = discovery::plug("desk-lamp", &reading(|_| {}), true, &topics(), &settings);
    assert!(payload["device"].get("connections").is_none());
}

#[test]
fn a_strip_and_its_outlets() {
    let strip = strip();
    let whole = discovery::plug("office-strip", &strip, true, &topics(), &HomeAssistant::default());
    let mut expected: Value = golden(
        &include_str!("golden/hs110.json")
            .replace("50c7bf010203", "b0be762ad838")
            .replace("50:c7:bf:01:02:03", "b0:be:76:2a:d8:38")
            .replace("desk-lamp", "office-strip")
            .replace("Desk lamp", "Office strip")
            .replace("HS110(EU)", "HS300(US)")
            .replace("HS110", "HS300"),
    );
    expected["device"]["serial_number"] = whole["device"]["serial_number"].clone();
    assert_eq!(whole, expected);
    for outlet in &strip.outlets {
        let payload = discovery::outlet("office-strip", &strip, outlet, true, &topics());
        let expected = include_str!("golden/hs300_outlet.json").replace("NUMBER", &outlet.number.to_string());
        assert_eq!(payload, golden(&expected), "outlet {}", outlet.number);
    }
    let plain = discovery::outlet(
        "s",
        &Reading { outlets: vec![], ..strip.clone() },
        &without_meter(&strip),
        true,
        &topics(),
    );
    let keys: Vec<&String> = plain["components"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["on_since", "relay"]);
}

fn without_meter(strip: &Reading) -> kasa2mqtt::plug::reading::Outlet {
    let mut outlet = strip.outlets[0].clone();
    outlet.emeter = None;
    outlet
}

#[test]
fn a_dimmer_and_one_with_a_motion_sensor() {
    let dimmer = |name: &str| {
        reading(|sysinfo| {
            for (key, value) in [
                ("feature", "TIM"),
                ("mac", "00:90:AA:BB:CC:DD"),
                ("model", "HS220(US)"),
                ("alias", "Hall dimmer"),
                ("sw_ver", "1.5.7"),
                ("hw_ver", "1.0"),
                ("dev_name", name),
            ] {
                sysinfo[key] = value.into();
            }
            sysinfo["brightness"] = 40.into();
        })
    };
    let payload = |reading: &Reading| {
        discovery::plug("hall-dimmer", reading, false, &topics(), &HomeAssistant::default())
    };
    let mut expected = golden(include_str!("golden/hs220.json"));
    assert_eq!(payload(&dimmer("Smart Wi-Fi Dimmer")), expected);
    expected["components"]["pir"] = json!({"p": "switch", "name": "Motion sensor", "unique_id": "kasa_0090aabbccdd_pir",
        "value_template": "{{ value_json.pir }}", "command_topic": "kasa/hall-dimmer/set/pir", "entity_category": "config",
        "qos": 1, "message_expiry_interval": 15});
    assert_eq!(payload(&dimmer("Wi-Fi Smart Dimmer with sensor")), expected);
}

#[test]
fn every_payload_keeps_the_rules() {
    let strip = strip();
    let outlets = strip.outlets.iter().map(|outlet| discovery::outlet("s", &strip, outlet, true, &topics()));
    let payloads =
        outlets.chain([discovery::bridge(&topics(), true), payload(&reading(|_| {})), payload(&strip)]);
    let mut rules = rules::Rules::default();
    for (number, payload) in payloads.enumerate() {
        rules.check(&format!("homeassistant/device/kasa_{number}/config"), &payload);
    }
}

fn smallest() -> Value {
    json!({"device": {"identifiers": ["x"], "name": "X"}, "origin": {"name": "kasa2mqtt"}, "state_topic": "kasa/x",
        "components": {"power": {"p": "sensor", "unique_id": "x_power", "device_class": "power",
            "unit_of_measurement": "W", "state_class": "measurement", "value_template": "{{ value_json.power }}"}}})
}

#[test]
fn the_rules_themselves_refuse_what_home_assistant_does() {
    const TOPIC: &str = "homeassistant/device/x/config";
    assert_eq!(rules::Rules::default().hear(TOPIC, &smallest().to_string()), Ok(()));
    for (pointer, value) in [
        ("/retain", json!(true)),
        ("/device/colour", json!("red")),
        ("/device/identifiers", json!([])),
        ("/components/power/unit_of_measurement", json!("kWh")),
        ("/components/power/state_class", json!("total")),
        ("/components/power/entity_category", json!("config")),
        ("/components/power/device_class", json!("heat")),
        ("/components/power/p", json!("lamp")),
        ("/components/power/object_id", json!("x")),
        ("/components/power/suggested_display_precision", json!("1")),
    ] {
        let mut payload = smallest();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        payload.pointer_mut(parent).unwrap()[key] = value;
        assert!(rules::Rules::default().hear(TOPIC, &payload.to_string()).is_err(), "{pointer}");
    }
    let mut rules = rules::Rules::default();
    rules.check(TOPIC, &smallest());
    assert!(
        rules.hear("homeassistant/device/y/config", &smallest().to_string()).is_err(),
        "the same unique id twice"
    );
    assert_eq!(rules.hear("kasa/x", r#"{"power":1.5}"#), Ok(()));
    assert_eq!(rules.hear("kasa/x", r#"{"power":null}"#), Ok(()));
    for state in ["{}", "ON", r#"{"power":"5"}"#, r#"{"power":157.06000000000003}"#] {
        assert!(rules.hear("kasa/x", state).is_err(), "{state}");
    }
}
