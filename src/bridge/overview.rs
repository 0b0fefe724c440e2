//! What the bridge tells of itself and of all its plugs.

use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use serde_json::{Map, Value, json};

use crate::plug::reading::{Kind, Outlet, Reading};

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
pub fn health(fleet: &Fleet, found: usize, vitals: &Vitals) -> Value {
    let known = || fleet.plugs().filter(|(_, plug)| !plug.silent);
    let count = |availability| known().filter(|(_, plug)| plug.availability == availability).count();
    let plug = |plug: &Plug| {
        let health = json!({"polls": plug.polls, "errors": plug.errors, "failing": plug.failures});
        plug.name.clone().map(|name| (name, health))
    };
    let devices: Map<String, Value> = fleet.plugs().filter_map(|(_, known)| plug(known)).collect();
    json!({
        "healthy": true,
        "uptime": vitals.uptime,
        "memory": vitals.memory,
        "mqtt": {"sessions": vitals.sessions, "acknowledged": vitals.acknowledged},
        "known": known().count(),
        "online": count(Availability::Online),
        "offline": count(Availability::Offline),
        "found": found,
        "devices": devices,
    })
}

/// `bridge/devices`: every plug, also those that have not answered yet.
pub fn devices(fleet: &Fleet) -> Value {
    fleet.plugs().filter(|(_, plug)| !plug.silent).map(|(_, plug)| device(plug)).collect()
}

fn device(plug: &Plug) -> Value {
    let mut device = json!({
        "id": null,
        "slug": plug.name,
        "ip": plug.address.rsplit_once(':').map(|(host, _)| host),
        "address": plug.address,
        "availability": match plug.availability {
            Availability::Unknown => Value::Null,
            Availability::Online => "online".into(),
            Availability::Offline => "offline".into(),
        },
        "supported": plug.supported,
        "trouble": plug.trouble,
        "protocol": plug.shown.as_ref().map(|reading| reading.protocol.name()),
        "discovered_via": plug.entry.via.name(),
    });
    if let Some(configured) = &plug.configured {
        device["configured"] = configured.as_str().into();
    }
    if let Some(mac) = plug.mac {
        device["id"] = mac.hex().into();
        device["mac"] = mac.to_string().into();
    }
    if let Some(reading) = &plug.shown {
        device["alias"] = reading.alias.as_str().into();
        device["model"] = reading.model.as_str().into();
        device["hw"] = reading.hw_ver.as_str().into();
        device["sw"] = reading.sw_ver.as_str().into();
        device["kind"] = kind(reading).into();
        device["features"] = features(reading).into();
        device["children"] = children(reading);
    }
    device
}

fn children(reading: &Reading) -> Value {
    let child = |outlet: &Outlet| json!({"number": outlet.number, "alias": outlet.alias});
    reading.outlets.iter().filter(|_| reading.is_strip()).map(child).collect()
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
