//! Home Assistant's device discovery: one payload for each plug (homeassistant.md 1, 8.0 and 8.1).
//!
//! Component keys are part of an entity's identity: they are only ever added to, and never change their platform.
//! No key stands at a payload's root, in `device` or in `origin` that Home Assistant 2024.11 does not know: it would
//! refuse the whole device.

use serde_json::{Map, Value, json};

use crate::plug::reading::{Kind, Reading};

use super::settings::HomeAssistant;
use super::topics::Topics;

/// Seconds after which a broker may forget a command from Home Assistant 2026.6 or later.
const COMMAND_EXPIRY: u32 = 15;

/// The payload for one plug under the topic name `name`. `counts_energy` tells whether its meter was ever seen to have
/// a counter: a read that failed must not change what Home Assistant was told.
pub fn plug(
    name: &str,
    reading: &Reading,
    counts_energy: bool,
    topics: &Topics,
    settings: &HomeAssistant,
) -> Value {
    let id = format!("kasa_{}", reading.mac.hex());
    let mut device = json!({
        "identifiers": [id],
        "name": if reading.alias.is_empty() { name } else { &reading.alias },
        "manufacturer": "TP-Link",
        "model": reading.model,
        "model_id": reading.model.split('(').next(),
        "sw_version": reading.sw_ver,
        "hw_version": reading.hw_ver,
        "serial_number": reading.device_id,
        "via_device": "kasa_bridge",
    });
    if settings.mac_connection {
        device["connections"] = json!([["mac", reading.mac.to_string()]]);
    }
    json!({
        "device": device,
        "origin": origin(),
        "state_topic": topics.state(name),
        "availability": [{"topic": topics.bridge_state()}, {"topic": topics.availability(name)}],
        "availability_mode": "all",
        "components": components(&id, name, reading, counts_energy, topics),
    })
}

fn components(
    id: &str,
    name: &str,
    reading: &Reading,
    counts_energy: bool,
    topics: &Topics,
) -> Map<String, Value> {
    let outlet = &reading.outlets[0];
    let mut components = Map::new();
    let mut add = |key: &str, component: Value| {
        let mut component = component;
        component["unique_id"] = format!("{id}_{key}").into();
        components.insert(key.into(), component);
    };
    let device_class = if reading.kind == Kind::WallSwitch { "switch" } else { "outlet" };
    add(
        "relay",
        json!({"p": "switch", "name": null, "device_class": device_class, "value_template": "{{ value_json.state }}",
            "command_topic": topics.set(name), "payload_on": "ON", "payload_off": "OFF", "retain": false,
            "qos": 1, "message_expiry_interval": COMMAND_EXPIRY}),
    );
    if outlet.emeter.is_some() {
        add("power", measurement("power", "power", "W", 1));
        add("voltage", measurement("voltage", "voltage", "V", 1));
        add("current", measurement("current", "current", "A", 2));
        // Some meters have no counter (homeassistant.md 8.1).
        if counts_energy {
            add(
                "energy_total",
                json!({"p": "sensor", "value_template": "{{ value_json.energy_total }}", "name": "Total consumption",
                    "device_class": "energy", "unit_of_measurement": "kWh", "state_class": "total_increasing",
                    "suggested_display_precision": 3, "entity_category": "diagnostic"}),
            );
        }
    }
    add(
        "rssi",
        json!({"p": "sensor", "value_template": "{{ value_json.rssi }}", "device_class": "signal_strength",
            "unit_of_measurement": "dBm", "state_class": "measurement", "entity_category": "diagnostic",
            "enabled_by_default": false}),
    );
    add(
        "on_since",
        json!({"p": "sensor", "value_template": "{{ value_json.on_since }}", "name": "On since",
            "device_class": "timestamp", "entity_category": "diagnostic", "enabled_by_default": false}),
    );
    add(
        "led",
        json!({"p": "switch", "name": "LED", "value_template": "{{ value_json.led }}",
            "command_topic": topics.set_attribute(name, "led"), "entity_category": "config",
            "qos": 1, "message_expiry_interval": COMMAND_EXPIRY}),
    );
    add(
        "restart",
        json!({"p": "button", "device_class": "restart", "command_topic": topics.set_attribute(name, "reboot"),
            "payload_press": "PRESS", "entity_category": "diagnostic", "enabled_by_default": false,
            "qos": 1, "message_expiry_interval": COMMAND_EXPIRY}),
    );
    components
}

fn measurement(key: &str, class: &str, unit: &str, precision: u8) -> Value {
    json!({"p": "sensor", "value_template": format!("{{{{ value_json.{key} }}}}"), "device_class": class,
        "unit_of_measurement": unit, "state_class": "measurement", "suggested_display_precision": precision})
}

/// The payload for the bridge itself: the device that all plugs are connected via.
pub fn bridge(topics: &Topics) -> Value {
    json!({
        "device": {"identifiers": ["kasa_bridge"], "name": "Kasa bridge", "manufacturer": "kasa2mqtt",
            "model": "Bridge", "sw_version": env!("CARGO_PKG_VERSION")},
        "origin": origin(),
        "availability": [{"topic": topics.bridge_state()}],
        "components": {
            "version": {"p": "sensor", "unique_id": "kasa_bridge_version", "name": "Version",
                "entity_category": "diagnostic", "state_topic": topics.bridge("info"),
                "value_template": "{{ value_json.version }}"},
            "connection": {"p": "binary_sensor", "unique_id": "kasa_bridge_connection", "name": "Connection state",
                "device_class": "connectivity", "entity_category": "diagnostic", "state_topic": topics.bridge_state(),
                "payload_on": "online", "payload_off": "offline", "availability": []},
            "restart": {"p": "button", "unique_id": "kasa_bridge_restart", "device_class": "restart",
                "entity_category": "config", "command_topic": topics.bridge("request/restart")},
        },
    })
}

fn origin() -> Value {
    json!({"name": "kasa2mqtt", "sw_version": env!("CARGO_PKG_VERSION"), "support_url": env!("CARGO_PKG_REPOSITORY")})
}
