//! `kasa2mqtt check`: what a configuration means, in words or as JSON.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use crate::config::{self, Config, Error};
use crate::http;
use crate::plug::scan::settings::Adopt;
use crate::plug::settings::HostPort;

use super::output;

/// Reads the configuration and says what it means, or what is wrong with it.
#[derive(Debug, Args)]
pub struct Check {
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
}

impl Check {
    /// What to print of the configuration in `file` and of the environment's.
    ///
    /// # Errors
    /// It is wrong. For a script that is an answer too, and printed as one.
    pub async fn run(&self, file: Option<&Path>) -> Result<String, Error> {
        let config = config::load(file).await;
        if let (Err(error), true) = (&config, self.json) {
            let _ = output::line(json!({"ok": false, "problems": error.problems()}));
        }
        let config = config?;
        let warnings = config::exposed(&config, file);
        Ok(match self.json {
            true => as_json(&config, &warnings).to_string(),
            false => {
                let warnings = warnings.iter().map(|warning| format!("\nwarning     {warning}"));
                describe(&config) + &warnings.collect::<String>()
            }
        })
    }
}

/// What the bridge would do, without secrets.
pub fn describe(config: &Config) -> String {
    let mut lines = Vec::new();
    let brokers: Vec<String> = config.mqtt.brokers().iter().map(ToString::to_string).collect();
    match brokers.is_empty() {
        false => {
            let user =
                config.mqtt.username.as_deref().map_or("anonymous".into(), |user| format!("user {user}"));
            lines.push(format!("broker      {}, {user}", brokers.join(" or ")));
        }
        true => {
            let user =
                config.broker.username.as_deref().map_or("anonymous".into(), |user| format!("user {user}"));
            lines.push(format!("broker      embedded, on {}, {user}", config.broker.listen));
        }
    }
    if let Some(shard) = config.shard {
        lines.push(format!("shard       {shard}: the plugs whose MACs say so"));
    }
    lines.push(format!("topics      {}/...", config.mqtt.base_topic));
    lines.push(match config.homeassistant.discovery {
        true => format!("discovery   {}/device/...", config.homeassistant.prefix),
        false => "discovery   off".into(),
    });
    if let Some(listen) = config.http.listen {
        let who = match (control(&config.http), listen.ip().is_loopback()) {
            ("ingress", _) => "only through Home Assistant",
            ("token", _) => "whoever knows the token may switch",
            (_, true) => "whoever is on this machine may switch",
            (_, false) => "for all to see; nobody but this machine may switch",
        };
        lines.push(format!("page        http://{listen}, {who}"));
    }
    if config.kasa.is_given() {
        lines.push("account     given, for plugs whose firmware wants it".into());
    }
    let every = |interval| humantime::format_duration(interval).to_string();
    for plug in &config.plug {
        let name = plug.name.as_deref().unwrap_or("(named by its alias)");
        let account = if plug.account().is_given() { ", an account of its own" } else { "" };
        lines.push(format!(
            "plug        {} {name}, every {}{account}",
            plug.host
                .as_ref()
                .map(HostPort::to_string)
                .or(plug.mac.map(|mac| mac.to_string()))
                .unwrap_or_default(),
            every(plug.interval.unwrap_or(config.poll.interval))
        ));
    }
    lines.push(match (config.scan.enabled, config.scan.adopt) {
        (true, Adopt::All) => format!("search      every {}, all are served", every(config.scan.interval)),
        (true, Adopt::Listed) => {
            format!("search      every {}, for those listed above", every(config.scan.interval))
        }
        (false, _) if config.plug.is_empty() => {
            "search      off, and no plug: add a [[plug]] with its host".into()
        }
        (false, _) => "search      off".into(),
    });
    lines.join("\n")
}

/// What it takes to switch on the status page.
fn control(http: &http::settings::Settings) -> &'static str {
    match (http.ingress, http.token.is_some() || http.token_file.is_some()) {
        (true, _) => "ingress",
        (false, true) => "token",
        (false, false) => "loopback",
    }
}

/// The same for scripts.
fn as_json(config: &Config, warnings: &[String]) -> Value {
    let every = |interval| humantime::format_duration(interval).to_string();
    let plugs = config.plug.iter().map(|plug| {
        json!({
            "host": plug.host.as_ref().map(HostPort::to_string),
            "mac": plug.mac.map(|mac| mac.to_string()),
            "name": plug.name,
            "interval": every(plug.interval.unwrap_or(config.poll.interval)),
            "account": plug.account().is_given(),
        })
    });
    let client = config.client();
    let brokers: Vec<String> = config.mqtt.brokers().iter().map(ToString::to_string).collect();
    let adopt = if config.scan.adopt == Adopt::All { "all" } else { "listed" };
    json!({
        "ok": true,
        "broker": {
            "urls": brokers,
            "listen": brokers.is_empty().then(|| config.broker.listen.to_string()),
            "username": client.username,
        },
        "shard": config.shard.map(|shard| shard.to_string()),
        "base_topic": config.mqtt.base_topic,
        "discovery_prefix": config.homeassistant.discovery.then_some(&config.homeassistant.prefix),
        "http": config.http.listen.map(|listen| json!({
            "listen": listen.to_string(),
            "control": control(&config.http),
            "hosts": config.http.hosts,
        })),
        "account": config.kasa.is_given(),
        "plugs": plugs.collect::<Vec<_>>(),
        "search": {
            "enabled": config.scan.enabled,
            "interval": every(config.scan.interval),
            "adopt": adopt,
        },
        "warnings": warnings,
    })
}
