//! `[http]`: the status page, metrics and health.

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

/// `[http]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it listens; without it there is nothing.
    pub listen: Option<SocketAddr>,
    /// What whoever switches has to know.
    pub token: Option<SecretString>,
    /// File that holds it.
    pub token_file: Option<PathBuf>,
    /// Names under which it is reached, beside addresses and names of the local network.
    pub hosts: Vec<String>,
    /// Whether Home Assistant's ingress stands before it, which has asked who is there.
    pub ingress: bool,
}
