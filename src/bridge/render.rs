//! What ought to be retained of the bridge and of one plug: rendering, and nothing else.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::plug::scan::settings::Adopt;

use super::discovery;
use super::overview;
use super::plug::{Availability, Plug};
use super::retained::{Retained, Role};
use super::settings::HomeAssistant;
use super::state;
use super::topics::Topics;

/// What the core needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// All topic names.
    pub topics: Topics,
    /// Discovery.
    pub homeassistant: HomeAssistant,
    /// How often an unchanged state is sent again.
    pub heartbeat: Option<Duration>,
    /// How old a command may get before it is not run any more.
    pub command_ttl: Duration,
    /// Whether requests may be sent to plugs as they are.
    pub raw: bool,
    /// Methods that destroy a plug or its identity, and may be sent all the same.
    pub destructive: Vec<String>,
    /// What becomes of plugs that a search finds.
    pub adopt: Adopt,
    /// Time between two searches of the network, if there are any.
    pub search: Option<Duration>,
    /// Whether names follow aliases.
    pub follow_alias: bool,
    /// Tells this bridge from another one with the same topics.
    pub instance: String,
    /// The configuration without its secrets, for `bridge/info`.
    pub summary: Value,
    /// When the program started.
    pub started: SystemTime,
}

/// The bridge's own messages. `devices` is the list of all plugs, and `health` what is known of the whole, once they are
/// known; `shard` is what `bridge/info` says of one of several bridges.
pub fn bridge(
    settings: &Settings,
    devices: Option<&[u8]>,
    health: Option<&[u8]>,
    shard: Option<Value>,
    stopping: bool,
) -> Vec<Retained> {
    let Settings { topics, homeassistant, .. } = settings;
    let state = if stopping { "offline" } else { "online" };
    let info = overview::info(settings.started, &settings.instance, &settings.summary, shard).to_string();
    let mut wanted = vec![
        message(Role::Availability, topics.bridge_state(), state),
        message(Role::State, topics.bridge("info"), info),
    ];
    wanted.extend(devices.map(|devices| message(Role::State, topics.bridge("devices"), devices)));
    wanted.extend(health.map(|health| message(Role::State, topics.bridge("health"), health)));
    if homeassistant.discovery {
        let config = discovery::bridge(topics, settings.search.is_some()).to_string();
        wanted.push(message(Role::Discovery, topics.bridge_discovery(), config));
    }
    wanted
}

/// One plug's messages: none before it has a name, no state before its first complete reading. `complete` may add to a
/// discovery config what is to be told of components that have gone; without it there are no discovery configs.
pub fn plug(
    settings: &Settings,
    plug: &Plug,
    complete: Option<impl FnMut(&str, &mut Value)>,
) -> Vec<Retained> {
    let Settings { topics, homeassistant, .. } = settings;
    let mut complete = complete.filter(|_| homeassistant.discovery);
    let Some(name) = &plug.name else { return Vec::new() };
    let availability = match plug.availability {
        Availability::Unknown => None,
        Availability::Online => Some("online"),
        Availability::Offline => Some("offline"),
    };
    let availability = availability.map(|text| message(Role::Availability, topics.availability(name), text));
    let mut wanted = Vec::from_iter(availability);
    let Some(reading) = &plug.shown else { return wanted };
    wanted.push(message(Role::State, topics.state(name), state::render(reading)));
    if let Some(complete) = &mut complete {
        let mut config = discovery::plug(name, reading, plug.counts_energy, topics, homeassistant);
        let topic = topics.discovery(reading.mac, None);
        complete(&topic, &mut config);
        wanted.push(message(Role::Discovery, topic, config.to_string()));
    }
    for outlet in reading.outlets.iter().filter(|_| reading.is_strip()) {
        let topic = topics.state(&Topics::outlet(name, outlet.number));
        wanted.push(message(Role::State, topic, state::outlet(outlet)));
        if let Some(complete) = &mut complete {
            let mut config = discovery::outlet(name, reading, outlet, plug.counts_energy, topics);
            let topic = topics.discovery(reading.mac, Some(outlet.number));
            complete(&topic, &mut config);
            wanted.push(message(Role::Discovery, topic, config.to_string()));
        }
    }
    wanted
}

fn message(role: Role, topic: String, payload: impl Into<Vec<u8>>) -> Retained {
    Retained { role, topic, payload: payload.into() }
}
