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
    /// Folder in which retained messages survive a restart; without one they are kept in memory. Each message is a file,
    /// written again whenever it changes (measured: some 1,000 a second, and 13 s to read 40,000 at the start, in a
    /// debug build): for some dozens of plugs, not for thousands, and not for a flash card that should last.
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
