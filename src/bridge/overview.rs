//! What the bridge tells of itself and of all its plugs.

use std::collections::BTreeMap;
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::plug::reading::{Kind, Reading};

use super::fleet::Fleet;
use super::plug::{Availability, Plug};

/// `bridge/info`: no secrets, nothing that changes while the program runs.
/// `shard` is what one of several bridges adds.
pub fn info(started: SystemTime, instance: &str, summary: &Value, shard: Option<Value>) -> Value {
    let mut info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("KASA2MQTT_COMMIT"),
        "started_at": format_rfc3339_seconds(started).to_string(),
        "mqtt": {"version": "3.1.1"},
        "instance": instance,
        "config": summary,
    });
    if let (Some(info), Some(Value::Object(shard))) = (info.as_object_mut(), shard) {
        info.extend(shard);
    }
    info
}

/// What the program tells of itself.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    /// Seconds since it started.
    pub uptime: u64,
    /// Resident memory in bytes, where the system tells.
    pub memory: Option<u64>,
    /// Sessions with the broker so far.
    pub sessions: u64,
    /// Messages that the broker has taken.
    pub acknowledged: u64,
    /// Answers and events that the broker did not take.
    pub dropped: u64,
}

/// `bridge/health`: how it is, as a whole and plug by plug.
#[derive(Serialize)]
pub struct Health<'a> {
    healthy: bool,
    uptime: u64,
    memory: Option<u64>,
    mqtt: Sessions,
    known: usize,
    online: usize,
    offline: usize,
    found: usize,
    devices: BTreeMap<&'a str, HealthOfPlug>,
}

#[derive(Serialize)]
struct Sessions {
    sessions: u64,
    acknowledged: u64,
}

#[derive(Serialize)]
struct HealthOfPlug {
    polls: u64,
    errors: u64,
    failing: u32,
}

/// How a fleet is, of which so many plugs were `found`.
pub fn health<'a>(fleet: &'a Fleet, found: usize, vitals: &Vitals) -> Health<'a> {
    let known = || fleet.plugs().filter(|(_, plug)| !plug.silent);
    let count = |availability| known().filter(|(_, plug)| plug.availability == availability).count();
    let devices = fleet.plugs().filter_map(|(_, plug)| {
        let health = HealthOfPlug { polls: plug.polls, errors: plug.errors, failing: plug.failures };
        plug.name.as_deref().map(|name| (name, health))
    });
    Health {
        healthy: true,
        uptime: vitals.uptime,
        memory: vitals.memory,
        mqtt: Sessions { sessions: vitals.sessions, acknowledged: vitals.acknowledged },
        known: known().count(),
        online: count(Availability::Online),
        offline: count(Availability::Offline),
        found,
        devices: devices.collect(),
    }
}

/// `bridge/devices`: every plug, also those that have not answered yet. Written in one go: there may be 10,000, and
/// commands wait meanwhile.
pub fn devices(fleet: &Fleet) -> Vec<u8> {
    let devices = fleet.plugs().filter(|(_, plug)| !plug.silent).map(|(_, plug)| device(plug));
    let mut json = Vec::new();
    serde_json::Serializer::new(&mut json).collect_seq(devices).expect("a device is plain data");
    json
}

#[derive(Serialize)]
struct Device<'a> {
    id: Option<String>,
    slug: Option<&'a str>,
    ip: Option<&'a str>,
    address: &'a str,
    availability: Option<&'static str>,
    supported: bool,
    trouble: Option<&'a str>,
    protocol: Option<&'static str>,
    discovered_via: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(flatten)]
    shown: Option<Shown<'a>>,
}

/// What a plug said of itself.
#[derive(Serialize)]
struct Shown<'a> {
    alias: &'a str,
    model: &'a str,
    hw: &'a str,
    sw: &'a str,
    kind: &'static str,
    features: Vec<&'static str>,
    children: Vec<Child<'a>>,
}

#[derive(Serialize)]
struct Child<'a> {
    number: u8,
    alias: &'a str,
}

fn device(plug: &Plug) -> Device<'_> {
    Device {
        id: plug.mac.map(|mac| mac.hex()),
        slug: plug.name.as_deref(),
        ip: plug.address.rsplit_once(':').map(|(host, _)| host),
        address: &plug.address,
        availability: match plug.availability {
            Availability::Unknown => None,
            Availability::Online => Some("online"),
            Availability::Offline => Some("offline"),
        },
        supported: plug.supported,
        trouble: plug.trouble.as_deref(),
        protocol: plug.shown.as_ref().map(|reading| reading.protocol.name()),
        discovered_via: plug.entry.via.name(),
        configured: plug.configured.as_deref(),
        mac: plug.mac.map(|mac| mac.to_string()),
        shown: plug.shown.as_deref().map(shown),
    }
}

fn shown(reading: &Reading) -> Shown<'_> {
    let outlets = reading.outlets.iter().filter(|_| reading.is_strip());
    Shown {
        alias: &reading.alias,
        model: &reading.model,
        hw: &reading.hw_ver,
        sw: &reading.sw_ver,
        kind: kind(reading),
        features: features(reading),
        children: outlets.map(|outlet| Child { number: outlet.number, alias: &outlet.alias }).collect(),
    }
}

fn kind(reading: &Reading) -> &'static str {
    match reading.kind {
        Kind::Plug => "plug",
        Kind::WallSwitch => "wall_switch",
        Kind::Dimmer => "dimmer",
        Kind::Strip => "strip",
    }
}

fn features(reading: &Reading) -> Vec<&'static str> {
    let dims = reading.outlets.iter().any(|outlet| outlet.brightness.is_some());
    [
        ("relay", true),
        ("brightness", dims),
        ("emeter", reading.has_meter()),
        ("led", reading.led.is_some()),
        ("motion", reading.motion.is_some()),
    ]
    .into_iter()
    .filter_map(|(feature, has)| has.then_some(feature))
    .collect()
}
