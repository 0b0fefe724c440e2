//! `[mqtt]`: which broker, and as whom.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::secret;

/// `[mqtt]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The broker; without one the embedded broker is started.
    pub url: Option<BrokerUrl>,
    /// Instead of `url`: several nodes of one broker, tried in turn.
    pub urls: Vec<BrokerUrl>,
    /// User name for the broker.
    pub username: Option<String>,
    /// Password for the broker.
    pub password: Option<SecretString>,
    /// File that holds the password; read at each connection.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authorities that may sign the broker's certificate; by default the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our certificate, for brokers that want one.
    pub client_cert: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key: Option<PathBuf>,
    /// Our name to the broker; by default a new one at each start.
    pub client_id: Option<String>,
    /// The first level of all topics.
    pub base_topic: String,
    /// Quality of service of our subscriptions: 0 or 1.
    pub subscribe_qos: u8,
    /// A broker that is silent for twice as long is given up.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            url: None,
            urls: Vec::new(),
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            client_cert: None,
            client_key: None,
            client_id: None,
            base_topic: "kasa".into(),
            subscribe_qos: 1,
            keep_alive: Duration::from_secs(30),
        }
    }
}

/// A silent broker is asked whether it lives after so long, where there is another one to go to.
const KEEP_ALIVE_OF_SEVERAL: Duration = Duration::from_secs(4);

impl Settings {
    /// The brokers, in the order in which they are tried; none where the embedded one is to be started.
    pub fn brokers(&self) -> Vec<BrokerUrl> {
        self.url.iter().chain(&self.urls).cloned().collect()
    }

    /// How soon a silent broker is asked whether it lives; it is given up after twice as long.
    pub fn patience(&self) -> Duration {
        match self.urls.len() {
            0 | 1 => self.keep_alive,
            _ => self.keep_alive.min(KEEP_ALIVE_OF_SEVERAL),
        }
    }

    /// The password, from wherever it is. A file is read now, so that a changed one is used without a restart.
    pub fn secret(&self) -> io::Result<Option<SecretString>> {
        secret::read("mqtt.password_file", self.password.as_ref(), self.password_file.as_deref())
    }
}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BrokerUrl {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The text is not the URL of a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotABroker {
    /// It has another form.
    #[error("expected mqtt://HOST:PORT or mqtts://HOST:PORT")]
    Form,
    /// It would stand in every log.
    #[error("expected no user or password in the URL; use mqtt.username and mqtt.password_file")]
    Secret,
}

impl TryFrom<String> for BrokerUrl {
    type Error = NotABroker;

    fn try_from(text: String) -> Result<BrokerUrl, NotABroker> {
        let (scheme, rest) = text.split_once("://").ok_or(NotABroker::Form)?;
        let (tls, standard_port) = match scheme {
            "mqtt" | "tcp" => (false, 1883),
            "mqtts" | "ssl" => (true, 8883),
            _ => return Err(NotABroker::Form),
        };
        if rest.contains('@') {
            return Err(NotABroker::Secret);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(NotABroker::Form)?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(NotABroker::Form)?,
            None if port.is_empty() => standard_port,
            None => return Err(NotABroker::Form),
        };
        let is_part_of_a_host = |letter: char| letter.is_ascii_alphanumeric() || ".-_:%".contains(letter);
        match !host.is_empty() && host.chars().all(is_part_of_a_host) {
            true => Ok(BrokerUrl { tls, host: host.into(), port }),
            false => Err(NotABroker::Form),
        }
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(formatter, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(formatter, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_as_people_write_them() {
        for (text, shown) in [
            ("mqtt://127.0.0.1", "mqtt://127.0.0.1:1883"),
            ("mqtt://broker.lan:1884/", "mqtt://broker.lan:1884"),
            ("mqtts://broker.lan", "mqtts://broker.lan:8883"),
            ("mqtts://[::1]:1", "mqtts://[::1]:1"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
        ] {
            assert_eq!(BrokerUrl::try_from(text.to_string()).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "127.0.0.1",
            "http://x",
            "mqtt://",
            "mqtt://x:",
            "mqtt://x:0",
            "mqtt://x:99999",
            "mqtt://x/y",
        ] {
            assert_eq!(BrokerUrl::try_from(text.to_string()), Err(NotABroker::Form), "{text}");
        }
        assert_eq!(BrokerUrl::try_from("mqtt://a:secret@x".to_string()), Err(NotABroker::Secret));
    }
}
