//! Home Assistant's device discovery: one payload for each plug, and for each outlet of a strip (homeassistant.md 1, 8).
//!
//! No key stands at a payload's root, in `device` or in `origin` that Home Assistant 2024.11 does not know: it would
//! refuse the whole device.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use crate::plug::reading::{Outlet, Reading};

use super::components::Components;
use super::plug::Plug;
use super::settings::HomeAssistant;
use super::topics::{Topics, device_id};

/// Of everything in a plug that its payloads, and those of its outlets, are made of.
pub fn fingerprint(plug: &Plug) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&plug.name, plug.counts_energy).hash(&mut hasher);
    if let Some(reading) = plug.shown.as_deref() {
        // All of them, so that whoever adds a field decides where it belongs.
        let Reading {
            mac,
            kind,
            alias,
            model,
            hw_ver,
            sw_ver,
            device_id,
            rssi: _,
            led: _,
            cloud: _,
            protocol: _,
            motion,
            outlets,
        } = reading;
        (mac, kind, alias, model, hw_ver, sw_ver, device_id, motion.is_some()).hash(&mut hasher);
        for Outlet { number, alias, brightness, emeter, .. } in outlets {
            (number, alias, brightness.is_some(), emeter.is_some()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The payload for one plug, or a strip as a whole, under the topic name `name`. `counts_energy` tells whether its meter
/// was ever seen to have a counter.
pub fn plug(
    name: &str,
    reading: &Reading,
    counts_energy: bool,
    topics: &Topics,
    settings: &HomeAssistant,
) -> Value {
    let id = device_id(reading.mac, None);
    let mut device = json!({
        "identifiers": [id],
        "name": if reading.alias.is_empty() { name } else { &reading.alias },
        "manufacturer": "TP-Link",
        "model": reading.model,
        "model_id": reading.model.split('(').next(),
        "sw_version": reading.sw_ver,
        "hw_version": reading.hw_ver,
        "serial_number": reading.device_id,
        "via_device": topics.bridge_id(),
    });
    if settings.mac_connection {
        device["connections"] = json!([["mac", reading.mac.to_string()]]);
    }
    let whole = reading.whole();
    let mut components = Components::new(&id, name, topics);
    components.main(reading.kind, &whole);
    if whole.emeter.is_some() {
        components.energy(counts_energy);
    }
    components.on_since();
    components.device(reading);
    payload(device, name, name, topics, components.finish())
}

/// The payload for one outlet of the strip with the topic name `strip`: a device of its own, behind the strip.
pub fn outlet(
    strip: &str,
    reading: &Reading,
    outlet: &Outlet,
    counts_energy: bool,
    topics: &Topics,
) -> Value {
    let id = device_id(reading.mac, Some(outlet.number));
    let strip_name = if reading.alias.is_empty() { strip } else { &reading.alias };
    let own_name = match outlet.alias.is_empty() {
        true => format!("Outlet {}", outlet.number),
        false => outlet.alias.clone(),
    };
    // Not the strip's MAC: Home Assistant would merge them all into one device (homeassistant.md 1.7).
    let device = json!({
        "identifiers": [id],
        "name": format!("{strip_name} {own_name}"),
        "manufacturer": "TP-Link",
        "model": format!("Socket for {}", reading.model),
        "via_device": device_id(reading.mac, None),
    });
    let name = Topics::outlet(strip, outlet.number);
    let mut components = Components::new(&id, &name, topics);
    components.main(reading.kind, outlet);
    if outlet.emeter.is_some() {
        components.energy(counts_energy);
    }
    components.on_since();
    payload(device, &name, strip, topics, components.finish())
}

fn payload(device: Value, name: &str, plug: &str, topics: &Topics, components: Map<String, Value>) -> Value {
    json!({
        "device": device,
        "origin": origin(),
        "state_topic": topics.state(name),
        "availability": [{"topic": topics.bridge_state()}, {"topic": topics.availability(plug)}],
        "availability_mode": "all",
        "components": components,
    })
}

/// The payload for the bridge itself: the device that all plugs are connected via. `searches` tells whether it looks for
/// plugs.
pub fn bridge(topics: &Topics, searches: bool) -> Value {
    let id = topics.bridge_id();
    let name = topics.shard().map_or("Kasa bridge".into(), |shard| format!("Kasa bridge {}", shard.number));
    let count = |key: &str, name: &str| {
        json!({"p": "sensor", "unique_id": format!("{id}_{key}"), "name": name,
            "entity_category": "diagnostic", "state_topic": topics.bridge("health"),
            "value_template": format!("{{{{ value_json.{key} }}}}")})
    };
    let mut config = json!({
        "device": {"identifiers": [id], "name": name, "manufacturer": "kasa2mqtt",
            "model": "Bridge", "sw_version": env!("CARGO_PKG_VERSION")},
        "origin": origin(),
        "availability": [{"topic": topics.bridge_state()}],
        "components": {
            "version": {"p": "sensor", "unique_id": format!("{id}_version"), "name": "Version",
                "entity_category": "diagnostic", "state_topic": topics.bridge("info"),
                "value_template": "{{ value_json.version }}"},
            "connection": {"p": "binary_sensor", "unique_id": format!("{id}_connection"), "name": "Connection state",
                "device_class": "connectivity", "entity_category": "diagnostic", "state_topic": topics.bridge_state(),
                "payload_on": "online", "payload_off": "offline", "availability": []},
            "restart": {"p": "button", "unique_id": format!("{id}_restart"), "device_class": "restart",
                "entity_category": "config", "command_topic": topics.bridge("request/restart")},
            "online": count("online", "Plugs online"),
            "offline": count("offline", "Plugs offline"),
        },
    });
    if searches {
        config["components"]["found"] = count("found", "Plugs found");
        config["components"]["scan"] = json!({"p": "button", "unique_id": format!("{id}_scan"), "name": "Scan",
            "entity_category": "config", "command_topic": topics.bridge("request/scan")});
    }
    config
}

fn origin() -> Value {
    json!({"name": "kasa2mqtt", "sw_version": env!("CARGO_PKG_VERSION"), "support_url": env!("CARGO_PKG_REPOSITORY")})
}
