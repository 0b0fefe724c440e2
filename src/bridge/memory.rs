//! What an earlier bridge left with the broker: the only memory there is. Read once, when the first session begins.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::plug::mac::Mac;
use crate::plug::settings::HostPort;

use super::names;
use super::plug::Via;
use super::topics::{Own, Topics};

/// A plug that an earlier bridge knew.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// Its identity.
    pub mac: Mac,
    /// Its name in topics.
    pub name: String,
    /// Where it was reached; `None` where that was not known.
    pub address: Option<HostPort>,
    /// How it was known.
    pub via: Via,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    /// Every plug in the last list of plugs, or announced to Home Assistant.
    pub plugs: Vec<Past>,
    /// Every retained topic that was found and may be of a plug of ours.
    pub topics: Vec<String>,
    /// The components that discovery configs name, with their platforms.
    pub components: BTreeMap<String, BTreeMap<String, String>>,
}

impl Memory {
    /// Takes in a retained message. What is not ours is left where it is.
    pub fn take(&mut self, topics: &Topics, topic: &str, payload: &[u8]) {
        let Ok(payload) = serde_json::from_slice::<Value>(payload).or_else(|error| {
            // `online` and `offline` are no JSON.
            std::str::from_utf8(payload).map(Value::from).map_err(|_| error)
        }) else {
            return;
        };
        if topics.is_devices(topic) {
            for listed in payload.as_array().into_iter().flatten().filter_map(past) {
                match self.plugs.iter_mut().find(|known| known.mac == listed.mac) {
                    // What Home Assistant was told last is newer than the list.
                    Some(known) => *known = Past { name: known.name.clone(), ..listed },
                    None => self.plugs.push(listed),
                }
            }
            return;
        }
        match topics.own(topic) {
            Some(Own::Discovery(mac)) => {
                // Ours, and not of another bridge in another part of the house.
                let is_ours = payload["origin"]["name"] == "kasa2mqtt"
                    && payload["availability"][0]["topic"]
                        .as_str()
                        .is_some_and(|state| topics.is_bridge_state(state));
                if !is_ours {
                    return;
                }
                let state = payload["state_topic"].as_str().and_then(|state| topics.own(state));
                if let Some(Own::State(name)) = state
                    && names::is_name(name)
                {
                    match self.plugs.iter_mut().find(|known| known.mac == mac) {
                        Some(known) => known.name = name.into(),
                        None => {
                            self.plugs.push(Past { mac, name: name.into(), address: None, via: Via::Scan })
                        }
                    }
                }
                self.components.insert(topic.into(), components(&payload));
            }
            Some(_) => {}
            None => return,
        }
        self.topics.push(topic.into());
    }
}

fn past(device: &Value) -> Option<Past> {
    let via = match device["discovered_via"].as_str()? {
        "config" => Via::Config,
        "scan" => Via::Scan,
        _ => return None,
    };
    Some(Past {
        mac: device["id"].as_str()?.parse().ok()?,
        name: device["slug"].as_str().filter(|name| names::is_name(name))?.into(),
        address: device["configured"]
            .as_str()
            .or(device["address"].as_str())
            .and_then(|host| host.parse().ok()),
        via,
    })
}

/// The components of a discovery config, each with its platform.
pub fn components(config: &Value) -> BTreeMap<String, String> {
    let components = config["components"].as_object().into_iter().flatten();
    let platform = |component: &Value| component["p"].as_str().map(str::to_string);
    components.filter_map(|(key, component)| Some((key.clone(), platform(component)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn topics() -> Topics {
        Topics::new("kasa", "homeassistant")
    }

    fn config(base: &str) -> String {
        json!({"origin": {"name": "kasa2mqtt"}, "state_topic": format!("{base}/lamp"),
            "availability": [{"topic": format!("{base}/bridge/state")}],
            "components": {"relay": {"p": "switch"}, "power": {"p": "sensor", "unit_of_measurement": "W"}}})
        .to_string()
    }

    const CONFIG: &str = "homeassistant/device/kasa_50c7bf010203/config";

    #[test]
    fn the_list_and_the_announcements_are_put_together() {
        let list = json!([
            {"id": "50c7bf010203", "slug": "desk", "address": "192.0.2.1:9999", "discovered_via": "config"},
            {"id": null, "slug": null, "address": "192.0.2.2:9999", "discovered_via": "config"},
            {"id": "x", "slug": "y", "discovered_via": "scan"},
            {"id": "50c7bf010209", "slug": "a/+/#", "discovered_via": "scan"},
            {"id": "50c7bf010209", "slug": "bridge", "discovered_via": "scan"},
            7,
        ]);
        for listed_first in [true, false] {
            let mut memory = Memory::default();
            let list = |memory: &mut Memory| {
                memory.take(&topics(), "kasa/bridge/devices", list.to_string().as_bytes());
            };
            if listed_first {
                list(&mut memory);
            }
            memory.take(&topics(), CONFIG, config("kasa").as_bytes());
            memory.take(&topics(), "kasa/desk/availability", b"online");
            if !listed_first {
                list(&mut memory);
            }
            let [plug] = &memory.plugs[..] else { panic!("{memory:?}") };
            assert_eq!((plug.name.as_str(), plug.via), ("lamp", Via::Config));
            assert_eq!(plug.address, Some("192.0.2.1".parse().unwrap()));
            assert_eq!(memory.topics, [CONFIG, "kasa/desk/availability"]);
            assert_eq!(memory.components[CONFIG].get("power").map(String::as_str), Some("sensor"));
        }
    }

    #[test]
    fn what_another_bridge_announced_is_not_ours() {
        let mut memory = Memory::default();
        memory.take(&topics(), CONFIG, config("garage").as_bytes());
        memory.take(&topics(), CONFIG, br#"{"origin":{"name":"zigbee2mqtt"}}"#);
        memory.take(&topics(), "kasa/bridge/devices", b"\xff[");
        memory.take(&topics(), "kasa/bridge/info", b"{}");
        assert!(memory.topics.is_empty() && memory.plugs.is_empty(), "{memory:?}");
    }
}
