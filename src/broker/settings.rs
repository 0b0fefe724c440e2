//! `[broker]`: the embedded broker, used when `mqtt.url` is not set.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

/// `[broker]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it listens. Beyond loopback only with a password.
    pub listen: SocketAddr,
    /// The one user that all clients share; without one everybody on this machine may connect.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<SecretString>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Folder in which retained messages survive a restart; without one they are kept in memory.
    pub state_dir: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: (Ipv4Addr::LOCALHOST, 1883).into(),
            username: None,
            password: None,
            password_file: None,
            state_dir: None,
        }
    }
}
