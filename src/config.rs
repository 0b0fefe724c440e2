//! File and environment to one checked [`Config`]. Each room declares its own settings; this one gathers them.
//!
//! Everything is refused that is not understood: an unknown key, a wrong type, a value out of range; always with the
//! key, where it stands, and what was expected. No value of a secret ever gets into a message.

mod check;
mod environment;
mod exposed;
pub mod supervisor;

pub use exposed::exposed;

use std::fmt;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;

use crate::bridge::settings::{Commands, HomeAssistant, Publish};
use crate::bridge::shard::Shard;
use crate::broker;
use crate::http;
use crate::mqtt;
use crate::mqtt::settings::BrokerUrl;
use crate::plug::klap::account::Account;
use crate::plug::link::Ports;
use crate::plug::scan;
use crate::plug::settings::{Clock, Plug, Poll};

use supervisor::Supervisor;

/// Everything that can be configured; see `config.example.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which share of the plugs is ours, where several bridges share them.
    pub shard: Option<Shard>,
    /// The broker to use.
    pub mqtt: mqtt::settings::Settings,
    /// The broker to be, where none is configured.
    pub broker: broker::settings::Settings,
    /// The status page.
    pub http: http::settings::Settings,
    /// Discovery.
    pub homeassistant: HomeAssistant,
    /// What is published when.
    pub publish: Publish,
    /// What becomes of commands.
    pub commands: Commands,
    /// The clocks of plugs.
    pub clock: Clock,
    /// How plugs are asked.
    pub poll: Poll,
    /// The account of the Kasa app, for plugs whose firmware wants it.
    pub kasa: Account,
    /// How plugs are looked for.
    pub scan: scan::settings::Settings,
    /// The plugs.
    pub plug: Vec<Plug>,
    /// Where plugs listen whose firmware closed port 9999. No key: firmware decides it, and tests.
    #[serde(skip)]
    pub ports: Ports,
}

impl Config {
    /// How a client of ours speaks to the broker: the embedded one knows the same user as its other clients.
    pub fn client(&self) -> mqtt::settings::Settings {
        let mut client = self.mqtt.clone();
        if self.mqtt.brokers().is_empty() {
            client.username.clone_from(&self.broker.username);
            client.password.clone_from(&self.broker.password);
            client.password_file.clone_from(&self.broker.password_file);
        }
        client
    }

    /// Where it finds the broker: the embedded one, where none is configured.
    pub fn brokers(&self) -> Vec<BrokerUrl> {
        let mut urls = self.mqtt.brokers();
        if urls.is_empty() {
            let listen = self.broker.listen;
            urls.push(BrokerUrl { tls: false, host: listen.ip().to_string(), port: listen.port() });
        }
        urls
    }
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Vec<String>);

impl Error {
    /// The lines.
    pub fn problems(&self) -> &[String] {
        &self.0
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join("\n"))
    }
}

/// Reads `path`, if there is one, what Home Assistant's Supervisor says, if it started us, and this process's environment.
///
/// # Errors
/// The file cannot be read, or anything in file or environment is not understood.
pub async fn load(path: Option<&Path>) -> Result<Config, Error> {
    let learnt = match Supervisor::from_environment() {
        Some(supervisor) => Some(supervisor.ask().await.map_err(|problem| Error(vec![problem]))?),
        None => None,
    };
    let variables = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    load_from(path, learnt, variables)
}

/// The same with an environment given.
pub fn load_with(
    path: Option<&Path>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Config, Error> {
    load_from(path, None, variables)
}

/// The same from all sources: the later one wins.
///
/// # Errors
/// As for [`load`].
pub fn load_from(
    path: Option<&Path>,
    learnt: Option<supervisor::Learnt>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Config, Error> {
    let mut figment = Figment::new();
    if let Some(path) = path {
        // Not `Toml::file`, which searches parent folders and is content with nothing.
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error(vec![format!("{}: {error}", path.display())]))?;
        // figment knows no lines: the syntax is checked where a line can be named.
        syntax(path, &text)?;
        figment = figment.merge(Toml::file_exact(path));
    }
    if let Some(learnt) = learnt {
        figment = figment.merge(learnt);
    }
    let variables: Vec<(String, String)> = variables.collect();
    let host = variables.iter().find(|(name, _)| name == "HOSTNAME").map(|(_, host)| host.clone());
    let figment = environment::merge(figment, variables.into_iter());
    let figment =
        shard_of_host(figment, host).map_err(|problem| Error(vec![format!("{}: {problem}", place(path))]))?;
    let config: Config = figment
        .extract()
        .map_err(|errors| Error(errors.into_iter().map(|error| explain(path, &error)).collect()))?;
    let problems = check::problems(&config);
    match problems.is_empty() {
        true => Ok(config),
        false => {
            Err(Error(problems.into_iter().map(|problem| format!("{}: {problem}", place(path))).collect()))
        }
    }
}

/// `auto/5` is the shard that this machine's name says.
fn shard_of_host(figment: Figment, host: Option<String>) -> Result<Figment, String> {
    let Some(count) = figment.extract_inner::<String>("shard").ok() else { return Ok(figment) };
    let Some(count) = count.strip_prefix("auto/") else { return Ok(figment) };
    let asked = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let shard = Shard::of_host(host.unwrap_or_else(asked).trim(), count)
        .map_err(|problem| format!("shard: {problem}"))?;
    Ok(figment.merge(("shard", shard.to_string())))
}

fn syntax(path: &Path, text: &str) -> Result<(), Error> {
    match toml_problem(text) {
        Some(problem) => Err(Error(vec![format!("{}: {problem}", path.display())])),
        None => Ok(()),
    }
}

fn toml_problem(text: &str) -> Option<String> {
    let error = Figment::from(Toml::string(text)).extract::<figment::value::Dict>().err()?;
    Some(error.to_string().trim().replace('\n', " "))
}

fn place(path: Option<&Path>) -> String {
    path.map_or("environment".into(), |path| path.display().to_string())
}

/// `plug[0].host`
fn key(path: &[String]) -> String {
    let mut key = String::new();
    for part in path {
        match part.parse::<usize>() {
            Ok(number) => key += &format!("[{number}]"),
            Err(_) if key.is_empty() => key += part,
            Err(_) => key += &format!(".{part}"),
        }
    }
    key
}

/// One line: where, which key, what was expected. figment's own text for wrong values quotes them, so a wrong value is
/// named by its type only where the key may be a secret.
fn explain(path: Option<&Path>, error: &figment::Error) -> String {
    use figment::error::Kind;
    let key = key(&error.path);
    let source = error.metadata.as_ref().and_then(|metadata| metadata.source.as_ref());
    let place = match source {
        Some(figment::Source::File(file)) => PathBuf::from(file).display().to_string(),
        _ if error.metadata.as_ref().is_some_and(|metadata| metadata.name == environment::NAME) => {
            format!("environment variable {}", environment::variable(&key))
        }
        _ => place(path),
    };
    let secret = error
        .path
        .last()
        .is_some_and(|last| last.contains("password") || last == "username" || last == "token");
    let problem = match &error.kind {
        Kind::UnknownField(field, expected) => {
            let key =
                if key.ends_with(field.as_str()) { key.clone() } else { [key.as_str(), field].join(".") };
            let key = key.trim_start_matches('.');
            return format!("{place}: unknown key {key}; expected one of {}", expected.join(", "));
        }
        Kind::InvalidType(_, expected) if secret => format!("expected {expected}, in quotes"),
        Kind::InvalidType(actual, expected) => format!("found {actual}, expected {expected}"),
        Kind::InvalidValue(_, expected) if secret => format!("expected {expected}"),
        Kind::InvalidValue(actual, expected) => format!("found {actual}, expected {expected}"),
        Kind::MissingField(field) => format!("{field} is missing"),
        Kind::Message(_) if secret => "expected text in quotes".into(),
        kind => kind.to_string(),
    };
    if key.is_empty() { format!("{place}: {problem}") } else { format!("{place}: {key}: {problem}") }
}
