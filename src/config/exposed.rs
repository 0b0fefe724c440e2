//! Secrets that everybody on this machine can read.

use std::path::Path;

use figment::Figment;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};

use crate::secret;

use super::Config;

/// A line for each file with a secret in it that everybody on this machine can read; `file` is the configuration's own.
pub fn exposed(config: &Config, file: Option<&Path>) -> Vec<String> {
    let mqtt = &config.mqtt;
    let mut secrets = vec![
        ("mqtt.password_file".to_string(), mqtt.password_file.as_deref()),
        ("mqtt.client_key".into(), mqtt.client_key.as_deref()),
        ("broker.password_file".into(), config.broker.password_file.as_deref()),
        ("kasa.password_file".into(), config.kasa.password_file.as_deref()),
        ("http.token_file".into(), config.http.token_file.as_deref()),
    ];
    for (number, plug) in config.plug.iter().enumerate() {
        secrets.push((format!("plug[{number}].password_file"), plug.password_file.as_deref()));
    }
    secrets.push(("the configuration has a password in it".into(), file.filter(|file| has_secret(file))));
    let exposed = secrets
        .into_iter()
        .filter_map(|(what, path)| Some((what, path.filter(|path| secret::is_exposed(path))?)));
    exposed
        .map(|(what, path)| {
            format!("{what}: everybody on this machine can read {}: chmod o-r", path.display())
        })
        .collect()
}

fn has_secret(file: &Path) -> bool {
    let values = Figment::from(Toml::file_exact(file)).extract::<Dict>();
    values.is_ok_and(|values| values.iter().any(|(key, value)| is_secret(key, value)))
}

fn is_secret(key: &str, value: &Value) -> bool {
    match value {
        Value::Dict(_, values) => values.iter().any(|(key, value)| is_secret(key, value)),
        Value::Array(_, values) => values.iter().any(|value| is_secret("", value)),
        _ => key == "password" || key == "token",
    }
}
