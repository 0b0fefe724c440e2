//! `kasa2mqtt check`: what a configuration means, in words.

use crate::config::Config;

/// What the bridge would do, without secrets.
pub fn describe(config: &Config) -> String {
    let mut lines = Vec::new();
    match &config.mqtt.url {
        Some(url) => {
            let user =
                config.mqtt.username.as_deref().map_or("anonymous".into(), |user| format!("user {user}"));
            lines.push(format!("broker      {url}, {user}"));
        }
        None => {
            let user =
                config.broker.username.as_deref().map_or("anonymous".into(), |user| format!("user {user}"));
            lines.push(format!("broker      embedded, on {}, {user}", config.broker.listen));
        }
    }
    lines.push(format!("topics      {}/...", config.mqtt.base_topic));
    lines.push(match config.homeassistant.discovery {
        true => format!("discovery   {}/device/...", config.homeassistant.prefix),
        false => "discovery   off".into(),
    });
    let every = |interval| humantime::format_duration(interval).to_string();
    for plug in &config.plug {
        let name = plug.name.as_deref().unwrap_or("(named by its alias)");
        lines.push(format!(
            "plug        {} {name}, every {}",
            plug.host,
            every(plug.interval.unwrap_or(config.poll.interval))
        ));
    }
    if config.plug.is_empty() {
        lines.push("plug        none: add a [[plug]] with its host".into());
    }
    lines.join("\n")
}
