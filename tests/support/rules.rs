//! What Home Assistant 2024.11 to 2026.11 accept without a word, written from homeassistant.md 1.2, 1.3, 1.9, 1.10 and
//! 2. Every watching client of the tests holds what it hears against it, so that no test publishes anything else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Keys that 2024.11 knows at a payload's root; it refuses the whole device for any other.
const ROOT: &[&str] = &[
    "device",
    "dev",
    "origin",
    "o",
    "components",
    "cmps",
    "state_topic",
    "command_topic",
    "availability",
    "availability_mode",
    "availability_topic",
    "availability_template",
    "payload_available",
    "payload_not_available",
    "qos",
    "encoding",
];
const DEVICE: &[&str] = &[
    "identifiers",
    "connections",
    "name",
    "manufacturer",
    "model",
    "model_id",
    "sw_version",
    "hw_version",
    "serial_number",
    "suggested_area",
    "via_device",
    "configuration_url",
];
const ORIGIN: &[&str] = &["name", "sw_version", "support_url"];
const ENTITY: &[&str] = &[
    "p",
    "unique_id",
    "name",
    "icon",
    "entity_category",
    "enabled_by_default",
    "availability",
    "qos",
    "encoding",
    "message_expiry_interval",
    "default_entity_id",
];

/// For each platform: the keys it needs beside those of every entity, those it may have, and its device classes.
struct Platform {
    required: &'static [&'static str],
    optional: &'static [&'static str],
    classes: &'static [&'static str],
    categories: &'static [&'static str],
}

fn platform(name: &str) -> Option<Platform> {
    let of =
        |required, optional, classes, categories| Some(Platform { required, optional, classes, categories });
    match name {
        "switch" => of(
            &["command_topic"],
            &[
                "state_topic",
                "payload_on",
                "payload_off",
                "value_template",
                "device_class",
                "optimistic",
                "retain",
            ],
            &["outlet", "switch"],
            &["config"],
        ),
        "light" => of(
            &["command_topic", "schema"],
            &[
                "state_topic",
                "brightness",
                "brightness_scale",
                "supported_color_modes",
                "transition",
                "flash",
                "effect",
                "retain",
            ],
            &[],
            &["config"],
        ),
        "sensor" => of(
            &[],
            &[
                "state_topic",
                "value_template",
                "device_class",
                "state_class",
                "unit_of_measurement",
                "suggested_display_precision",
            ],
            &["power", "energy", "voltage", "current", "signal_strength", "timestamp", "duration"],
            &["diagnostic"],
        ),
        "binary_sensor" => of(
            &[],
            &["state_topic", "value_template", "device_class", "payload_on", "payload_off"],
            &["connectivity", "problem", "motion"],
            &["diagnostic"],
        ),
        "button" => of(
            &["command_topic"],
            &["payload_press", "device_class", "retain"],
            &["restart", "identify", "update"],
            &["config", "diagnostic"],
        ),
        _ => None,
    }
}

/// Units and state classes that a device class allows.
fn quantity(class: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match class {
        "power" => (&["mW", "W", "kW"], &["measurement"]),
        "energy" => (&["Wh", "kWh", "MWh"], &["total", "total_increasing"]),
        "voltage" => (&["mV", "V"], &["measurement"]),
        "current" => (&["mA", "A"], &["measurement"]),
        "signal_strength" => (&["dB", "dBm"], &["measurement"]),
        "duration" => (&["ms", "s", "min", "h", "d"], &["measurement"]),
        _ => (&[], &[]),
    }
}

/// What was heard so far, as far as later messages must agree with it.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Platform of each (discovery topic, component key): it never changes.
    platforms: BTreeMap<(String, String), String>,
    /// Where each (platform, unique id) was seen first.
    unique: BTreeMap<(String, String), (String, String)>,
    /// Keys that the templates of entities look for in the JSON of a topic.
    looked_for: BTreeMap<String, BTreeSet<String>>,
}

impl Rules {
    /// Holds one message against the rules; what is wrong with it, if anything is.
    pub fn hear(&mut self, topic: &str, payload: &str) -> Result<(), String> {
        if topic.contains(['+', '#']) || topic.contains(char::is_control) {
            return Err("a topic with a wildcard or control characters".into());
        }
        if payload.is_empty() {
            return Ok(());
        }
        if topic.ends_with("/config") && topic.contains("/device/") {
            let payload = serde_json::from_str(payload)
                .map_err(|error| format!("a config that is not JSON: {error}"))?;
            return self.config(topic, &payload);
        }
        match self.looked_for.get(topic) {
            None => Ok(()),
            Some(looked_for) => state(payload, looked_for),
        }
    }

    /// The same for a discovery payload that was never sent.
    pub fn check(&mut self, topic: &str, payload: &Value) {
        if let Err(problem) = self.config(topic, payload) {
            panic!("{topic}: {problem}\n{payload:#}");
        }
    }

    fn config(&mut self, topic: &str, payload: &Value) -> Result<(), String> {
        let object_id = topic.trim_end_matches("/config").rsplit('/').next().unwrap_or_default();
        let is_id = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        ensure(!object_id.is_empty() && object_id.chars().all(is_id), || format!("object id {object_id:?}"))?;
        let root = object(payload, "payload")?;
        keys("root", root, ROOT)?;
        let device = object(&payload["device"], "device")?;
        keys("device", device, DEVICE)?;
        keys("origin", object(&payload["origin"], "origin")?, ORIGIN)?;
        ensure(payload["origin"]["name"].is_string(), || "origin without a name".into())?;
        let identified =
            device.get("identifiers").and_then(Value::as_array).is_some_and(|ids| !ids.is_empty());
        ensure(identified && payload["device"]["name"].is_string(), || {
            "device without identifiers or name".into()
        })?;
        let components = object(&payload["components"], "components")?;
        ensure(!components.is_empty(), || "no components".into())?;
        for (key, value) in components {
            let problem = |problem| format!("component {key}: {problem}");
            let component = object(value, key)?;
            // Inherited where a component has none of its own.
            let state_topic = value["state_topic"].as_str().or(payload["state_topic"].as_str());
            self.component(topic, key, component, state_topic).map_err(problem)?;
        }
        Ok(())
    }

    fn component(
        &mut self,
        topic: &str,
        key: &str,
        component: &Map<String, Value>,
        state_topic: Option<&str>,
    ) -> Result<(), String> {
        let text = |key: &str| component.get(key).and_then(Value::as_str);
        let name = text("p").ok_or("no platform")?;
        let rules = platform(name).ok_or_else(|| format!("platform {name}"))?;
        if component.len() == 1 {
            // Told to be gone (homeassistant.md 1.4); its state may lack it from now on.
            let known = self.platforms.get(&(topic.to_string(), key.to_string()));
            ensure(known.is_none_or(|known| known == name), || format!("{key} was a {known:?}"))?;
            if let Some(looked_for) = self.looked_for.get_mut(state_topic.unwrap_or_default()) {
                looked_for.remove(key);
            }
            return Ok(());
        }
        let unique_id = text("unique_id").ok_or("no unique_id")?;
        let known = [ENTITY, rules.required, rules.optional].concat();
        keys(key, component, &known)?;
        for required in rules.required {
            ensure(component.contains_key(*required), || format!("no {required}"))?;
        }
        ensure(state_topic.is_some() || name == "button", || "no state_topic".into())?;
        let class = text("device_class");
        ensure(class.is_none_or(|class| rules.classes.contains(&class)), || format!("class {class:?}"))?;
        let category = text("entity_category");
        ensure(category.is_none_or(|one| rules.categories.contains(&one)), || {
            format!("category {category:?}")
        })?;
        // Without name and class it would be called "MQTT Sensor" (homeassistant.md 1.6).
        ensure(component.contains_key("name") || class.is_some(), || "neither name nor class".into())?;
        if let Some(topic) = text("command_topic") {
            ensure(!topic.contains(['+', '#']), || "a wildcard in command_topic".into())?;
        }
        ensure(component.get("qos").is_none_or(|qos| matches!(qos.as_u64(), Some(0..=2))), || "qos".into())?;
        if name == "sensor" {
            let (units, states) = class.map_or((&[][..], &[][..]), quantity);
            let (unit, state) = (text("unit_of_measurement"), text("state_class"));
            ensure(
                units.is_empty() == unit.is_none() && unit.is_none_or(|unit| units.contains(&unit)),
                || format!("unit {unit:?}"),
            )?;
            ensure(state.is_none_or(|state| states.contains(&state)), || format!("state class {state:?}"))?;
            let precision = component.get("suggested_display_precision");
            ensure(precision.is_none_or(Value::is_u64), || "precision".into())?;
        }
        let place = (topic.to_string(), key.to_string());
        let before = self.platforms.entry(place.clone()).or_insert_with(|| name.into());
        ensure(before == name, || format!("was a {before} and is a {name}"))?;
        let first = self.unique.entry((name.into(), unique_id.into())).or_insert_with(|| place.clone());
        ensure(*first == place, || format!("unique id {unique_id} is that of {first:?}"))?;
        if let (Some(template), Some(state_topic)) = (text("value_template"), state_topic) {
            let looked_for = template.trim_start_matches("{{ value_json.").trim_end_matches(" }}");
            self.looked_for.entry(state_topic.into()).or_default().insert(looked_for.into());
        }
        if name == "light" {
            let looked_for = self.looked_for.entry(state_topic.unwrap_or_default().into()).or_default();
            looked_for.extend(["state", "brightness"].map(String::from));
        }
        Ok(())
    }
}

/// Every key that an entity looks for is there, and is of a kind that it takes (homeassistant.md 1.10).
fn state(payload: &str, looked_for: &BTreeSet<String>) -> Result<(), String> {
    let state: Value = serde_json::from_str(payload).map_err(|error| format!("not JSON: {error}"))?;
    for key in looked_for {
        let value = state.get(key).ok_or_else(|| format!("no {key} in {payload}"))?;
        let fits = match key.as_str() {
            "state" | "led" | "cloud" | "pir" => {
                matches!(value.as_str(), Some("ON" | "OFF")) || value.is_null()
            }
            "on_since" => value.is_null() || value.as_str().is_some_and(|text| text.ends_with('Z')),
            "brightness" => value.is_null() || matches!(value.as_u64(), Some(1..=100)),
            "version" => value.is_string(),
            _ => value.is_null() || value.is_number(),
        };
        ensure(fits && value.to_string().len() <= 255, || format!("{key} is {value}"))?;
    }
    // 157.06000000000003 is what other bridges publish.
    let is_long = |word: &str| {
        word.split_once('.')
            .is_some_and(|(_, digits)| digits.len() > 4 && digits.chars().all(|c| c.is_ascii_digit()))
    };
    let long = payload.split([',', ':', '}']).find(|word| is_long(word));
    ensure(long.is_none(), || format!("a number as long as {long:?}"))
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{what} is no object"))
}

fn keys(level: &str, object: &Map<String, Value>, allowed: &[&str]) -> Result<(), String> {
    let stranger = object.keys().find(|key| !allowed.contains(&key.as_str()));
    stranger.map_or(Ok(()), |key| Err(format!("{level} has a key {key} that some release refuses")))
}

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}
