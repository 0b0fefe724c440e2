//! What the configuration says to the bridge's decisions.

use std::time::Duration;

use serde::Deserialize;

/// `[homeassistant]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HomeAssistant {
    /// Whether plugs are announced to Home Assistant.
    pub discovery: bool,
    /// The discovery prefix, as set in Home Assistant.
    pub prefix: String,
    /// Whether a plug's MAC is told as a device connection.
    pub mac_connection: bool,
}

impl Default for HomeAssistant {
    fn default() -> HomeAssistant {
        HomeAssistant { discovery: true, prefix: "homeassistant".into(), mac_connection: true }
    }
}

/// `[publish]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    /// How often an unchanged state is sent again; zero for never.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Whether a plug's name in topics follows its alias when that is changed in the Kasa app.
    pub follow_alias: bool,
}

impl Default for Publish {
    fn default() -> Publish {
        Publish { heartbeat: Duration::from_secs(60), follow_alias: false }
    }
}

/// `[commands]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    /// A command older than this is answered with `stale` and not run.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// Whether requests may be sent to plugs as they are, by `bridge/request/device/raw`.
    pub raw: bool,
    /// Methods that destroy a plug or its identity, and may be sent all the same.
    pub destructive: Vec<String>,
}

impl Default for Commands {
    fn default() -> Commands {
        Commands { ttl: Duration::from_secs(10), raw: false, destructive: Vec::new() }
    }
}
