//! `[scan]`: how the bridge looks for plugs.

use std::time::Duration;

use serde::Deserialize;

use super::target::{NotATarget, Target};

/// `[scan]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether the bridge looks for plugs at all.
    pub enabled: bool,
    /// Time between two searches. One more is made when a plug stops answering.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Addresses, names and networks to ask instead of everybody whom a broadcast reaches.
    pub targets: Vec<Target>,
    /// What becomes of plugs that are found.
    pub adopt: Adopt,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { enabled: true, interval: Duration::from_secs(300), targets: Vec::new(), adopt: Adopt::All }
    }
}

/// What becomes of plugs that are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adopt {
    /// All of them are served.
    All,
    /// Only those that the configuration lists, by their MACs or earlier addresses.
    Listed,
}

impl TryFrom<String> for Target {
    type Error = NotATarget;

    fn try_from(text: String) -> Result<Target, NotATarget> {
        text.parse()
    }
}
