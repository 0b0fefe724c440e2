//! The entities of one plug or outlet in Home Assistant, one component each (homeassistant.md 3 and 8).
//!
//! Keys are part of an entity's identity: they are only ever added to, and never change their platform.

use serde_json::{Map, Value, json};

use crate::plug::reading::{Kind, Outlet, Reading};

use super::topics::Topics;

/// Seconds after which a broker may forget a command from Home Assistant 2026.6 or later.
const COMMAND_EXPIRY: u32 = 15;

/// The components of one device, in the making.
pub struct Components<'a> {
    id: &'a str,
    name: &'a str,
    topics: &'a Topics,
    components: Map<String, Value>,
}

impl<'a> Components<'a> {
    /// None yet, of the device `id` whose topics have `name`.
    pub fn new(id: &'a str, name: &'a str, topics: &'a Topics) -> Components<'a> {
        Components { id, name, topics, components: Map::new() }
    }

    /// All of them.
    pub fn finish(self) -> Map<String, Value> {
        self.components
    }

    /// What switches it: the device's main entity, a light where there is a dimmer.
    pub fn main(&mut self, kind: Kind, outlet: &Outlet) {
        let set = self.topics.set(self.name);
        if outlet.brightness.is_some() {
            let light = json!({"p": "light", "schema": "json", "name": null, "command_topic": set, "brightness": true,
                "brightness_scale": 100, "supported_color_modes": ["brightness"], "transition": true, "flash": false,
                "effect": false, "retain": false});
            return self.command("light", light);
        }
        let device_class = if kind == Kind::WallSwitch { "switch" } else { "outlet" };
        let relay = json!({"p": "switch", "name": null, "device_class": device_class,
            "value_template": "{{ value_json.state }}", "command_topic": set, "payload_on": "ON", "payload_off": "OFF",
            "retain": false});
        self.command("relay", relay);
    }

    /// What its meter says. `counts` tells whether it was ever seen to have a counter: some have none
    /// (homeassistant.md 8.1), and a read that failed must not change what Home Assistant was told.
    pub fn energy(&mut self, counts: bool) {
        for (key, unit, precision) in [("power", "W", 1), ("voltage", "V", 1), ("current", "A", 2)] {
            self.sensor(
                key,
                json!({"device_class": key, "unit_of_measurement": unit, "state_class": "measurement",
                "suggested_display_precision": precision}),
            );
        }
        for (key, name, there) in [
            ("energy_total", "Total consumption", counts),
            ("energy_today", "Today's consumption", true),
            ("energy_month", "This month's consumption", true),
        ] {
            if there {
                self.sensor(
                    key,
                    json!({"name": name, "device_class": "energy", "unit_of_measurement": "kWh",
                    "state_class": "total_increasing", "suggested_display_precision": 3,
                    "entity_category": "diagnostic"}),
                );
            }
        }
    }

    /// Since when it is on.
    pub fn on_since(&mut self) {
        self.sensor(
            "on_since",
            json!({"name": "On since", "device_class": "timestamp",
            "entity_category": "diagnostic", "enabled_by_default": false}),
        );
    }

    /// What there is once in a device, however many outlets it has.
    pub fn device(&mut self, reading: &Reading) {
        self.sensor(
            "rssi",
            json!({"device_class": "signal_strength", "unit_of_measurement": "dBm",
            "state_class": "measurement", "entity_category": "diagnostic", "enabled_by_default": false}),
        );
        self.add(
            "cloud",
            json!({"p": "binary_sensor", "name": "Cloud connection", "device_class": "connectivity",
            "value_template": "{{ value_json.cloud }}", "entity_category": "diagnostic"}),
        );
        self.switch("led", "LED");
        if reading.motion.is_some() {
            self.switch("pir", "Motion sensor");
        }
        let topic = self.topics.set_attribute(self.name, "reboot");
        self.command(
            "restart",
            json!({"p": "button", "device_class": "restart", "command_topic": topic,
            "payload_press": "PRESS", "entity_category": "diagnostic", "enabled_by_default": false}),
        );
    }

    fn switch(&mut self, key: &str, name: &str) {
        let topic = self.topics.set_attribute(self.name, key);
        self.command(
            key,
            json!({"p": "switch", "name": name, "value_template": template(key),
            "command_topic": topic, "entity_category": "config"}),
        );
    }

    fn sensor(&mut self, key: &str, mut component: Value) {
        component["p"] = "sensor".into();
        component["value_template"] = template(key).into();
        self.add(key, component);
    }

    fn command(&mut self, key: &str, mut component: Value) {
        component["qos"] = 1.into();
        component["message_expiry_interval"] = COMMAND_EXPIRY.into();
        self.add(key, component);
    }

    fn add(&mut self, key: &str, mut component: Value) {
        component["unique_id"] = format!("{}_{key}", self.id).into();
        self.components.insert(key.into(), component);
    }
}

fn template(key: &str) -> String {
    format!("{{{{ value_json.{key} }}}}")
}
