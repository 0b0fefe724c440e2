//! The environment as a source: `KASA2MQTT_MQTT__URL` is `mqtt.url`.

use figment::Figment;
use figment::providers::Serialized;
use figment::value::{Dict, Value};

/// Before every variable of ours.
const PREFIX: &str = "KASA2MQTT_";

/// Variables of the command line, of the build and of the tests, which are not configuration.
const NOT_CONFIGURATION: &[&str] = &["LOG", "CONFIG", "COMMIT"];

/// What figment calls this source.
pub const NAME: &str = "environment";

/// Text keys. Their values are taken as they are: parsed, a password of 0123 would become the number 123.
const TEXT: &[&str] = &[
    "url",
    "username",
    "password",
    "password_file",
    "ca_file",
    "client_cert",
    "client_key",
    "client_id",
    "base_topic",
    "prefix",
    "shard",
    "listen",
    "token",
    "token_file",
    "state_dir",
    "interval",
    "energy_interval",
    "set",
    "zone",
    "timeout",
    "keep_alive",
    "heartbeat",
    "ttl",
    "adopt",
];

/// The variable of a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Adds what the environment says.
pub fn merge(mut figment: Figment, variables: impl Iterator<Item = (String, String)>) -> Figment {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if NOT_CONFIGURATION.contains(&rest) || rest.starts_with("TEST_") {
            continue;
        }
        let key = rest.to_lowercase().replace("__", ".");
        let is_text = key.rsplit('.').next().is_some_and(|last| TEXT.contains(&last));
        let value = if is_text {
            Value::from(value)
        } else {
            value.parse().unwrap_or_else(|never: std::convert::Infallible| match never {})
        };
        figment = figment.merge(Variables(key, value));
    }
    figment
}

/// One variable.
struct Variables(String, Value);

impl figment::Provider for Variables {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(NAME)
    }

    fn data(&self) -> Result<figment::value::Map<figment::Profile, Dict>, figment::Error> {
        Serialized::global(&self.0, &self.1).data()
    }
}
