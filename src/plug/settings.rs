//! What the configuration says of plugs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use secrecy::SecretString;
use serde::Deserialize;

use super::clock::{Keeper, Set};
use super::klap::account::Account;
use super::mac::Mac;

/// The port of every plug that speaks XOR (protocol.md 1).
pub const PORT: u16 = 9999;

/// `[poll]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Poll {
    /// Time between two polls of a plug.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Time between two readings of what is costly to read: the meter of a strip's outlet. What is rarer still (energy
    /// of day and month, cloud, clock) waits for five of these.
    #[serde(with = "humantime_serde")]
    pub energy_interval: Duration,
    /// Time given to each connect and to each request.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Poll {
    fn default() -> Poll {
        let seconds = Duration::from_secs;
        Poll { interval: seconds(5), energy_interval: seconds(60), timeout: seconds(5) }
    }
}

/// `[clock]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clock {
    /// When the bridge sets the clocks of plugs.
    pub set: Set,
    /// The zone in which plugs live; the host's own where none is given.
    pub zone: Option<Zone>,
}

impl Clock {
    /// What plugs' clocks ought to show.
    pub fn keeper(&self) -> Keeper {
        let zone = self.zone.as_ref().map_or_else(TimeZone::system, |zone| zone.0.clone());
        Keeper { set: self.set, zone }
    }
}

/// An IANA time zone.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Zone(pub TimeZone);

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Zone, String> {
        let unknown = |_| format!("expected the name of a time zone such as Europe/Berlin, found {name:?}");
        TimeZone::get(&name).map(Zone).map_err(unknown)
    }
}

/// `[[plug]]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plug {
    /// Address or name, with a port if it is not [`PORT`]. Without one the plug is looked for by its MAC.
    #[serde(default)]
    pub host: Option<HostPort>,
    /// Its identity: whoever else answers at `host` is not used.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Its name in topics; by default made of its alias.
    #[serde(default)]
    pub name: Option<String>,
    /// Overrides [`Poll::interval`].
    #[serde(default, with = "humantime_serde")]
    pub interval: Option<Duration>,
    /// E-mail address of an account of its own, tried before that of `[kasa]`.
    #[serde(default)]
    pub username: Option<SecretString>,
    /// Its password.
    #[serde(default)]
    pub password: Option<SecretString>,
    /// File that holds the password; read at each handshake.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

impl Plug {
    /// The account of its own.
    pub fn account(&self) -> Account {
        Account {
            username: self.username.clone(),
            password: self.password.clone(),
            password_file: self.password_file.clone(),
        }
    }
}

/// A host with a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort {
    /// An address, without brackets, or a name.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

/// The text is not a host with an optional port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an address or a name with an optional port, such as 192.168.1.20, plug.lan:9999 or [fe80::1]:9999"
)]
pub struct NotAHost;

impl TryFrom<String> for HostPort {
    type Error = NotAHost;

    fn try_from(text: String) -> Result<HostPort, NotAHost> {
        text.parse()
    }
}

impl FromStr for HostPort {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<HostPort, NotAHost> {
        let (host, port) = split(text).ok_or(NotAHost)?;
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(NotAHost)?,
            None => PORT,
        };
        let is_part_of_a_host = |letter: char| letter.is_ascii_alphanumeric() || ".-_:%".contains(letter);
        match !host.is_empty() && host.len() <= 253 && host.chars().all(is_part_of_a_host) {
            true => Ok(HostPort { host: host.into(), port }),
            false => Err(NotAHost),
        }
    }
}

/// Host and port, the brackets of an IPv6 address taken off. Without brackets two colons are an address, not a port.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, Some(port))),
        _ => Some((text, None)),
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(formatter, "[{}]:{}", self.host, self.port),
            false => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_people_write_them() {
        for (text, host, port) in [
            ("192.168.1.20", "192.168.1.20", 9999),
            ("192.168.1.20:1234", "192.168.1.20", 1234),
            ("plug-1.lan", "plug-1.lan", 9999),
            ("[::1]:1234", "::1", 1234),
            ("[fe80::1%eth0]", "fe80::1%eth0", 9999),
            ("fe80::1", "fe80::1", 9999),
        ] {
            let expected = HostPort { host: host.into(), port };
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "{text}");
        }
        for text in
            ["", ":9999", "plug:", "plug:0", "plug:65536", "plug:x", "[::1", "[::1]9", "http://plug", "a b"]
        {
            assert_eq!(text.parse::<HostPort>(), Err(NotAHost), "{text}");
        }
    }
}
