//! What the types cannot say: ranges, and keys that depend on each other.

use std::collections::HashMap;
use std::time::Duration;

use crate::bridge::names::{RESERVED, is_name};
use crate::http::access::{SHORTEST_TOKEN, is_long_enough};
use crate::plug::klap::account::Account;
use crate::plug::raw::DESTRUCTIVE;
use crate::plug::scan;
use crate::plug::settings::Plug;

use super::Config;

/// Everything that is wrong, each with its key.
pub fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    mqtt(config, &mut problems);
    broker(config, &mut problems);
    http(config, &mut problems);
    topic("mqtt.base_topic", &config.mqtt.base_topic, &mut problems);
    topic("homeassistant.prefix", &config.homeassistant.prefix, &mut problems);
    if config.mqtt.base_topic == config.homeassistant.prefix {
        problems.push("homeassistant.prefix: expected another one than mqtt.base_topic".into());
    }
    range("mqtt.keep_alive", config.mqtt.keep_alive, (5, 3600), &mut problems);
    range("commands.ttl", config.commands.ttl, (1, 600), &mut problems);
    range("poll.interval", config.poll.interval, (1, 3600), &mut problems);
    range("poll.energy_interval", config.poll.energy_interval, (10, 86_400), &mut problems);
    range("scan.interval", config.scan.interval, (30, 86_400), &mut problems);
    range("poll.timeout", config.poll.timeout, (1, 60), &mut problems);
    if !config.publish.heartbeat.is_zero() {
        range("publish.heartbeat", config.publish.heartbeat, (1, 86_400), &mut problems);
    }
    for method in config.commands.destructive.iter().filter(|method| !DESTRUCTIVE.contains(&method.as_str()))
    {
        problems.push(format!(
            "commands.destructive: expected some of {}, found {method:?}",
            DESTRUCTIVE.join(", ")
        ));
    }
    if config.shard.is_some() && config.mqtt.brokers().is_empty() {
        problems.push("shard: expected mqtt.url beside it: shards meet at one broker".into());
    }
    account("kasa", &config.kasa, &mut problems);
    plugs(&config.plug, &config.scan, &mut problems);
    problems
}

fn mqtt(config: &Config, problems: &mut Vec<String>) {
    let mqtt = &config.mqtt;
    if mqtt.password.is_some() && mqtt.password_file.is_some() {
        problems.push("mqtt.password: expected either this or mqtt.password_file, not both".into());
    }
    if mqtt.username.is_none() && (mqtt.password.is_some() || mqtt.password_file.is_some()) {
        problems.push("mqtt.username: expected one beside a password".into());
    }
    if mqtt.client_cert.is_some() != mqtt.client_key.is_some() {
        problems.push("mqtt.client_cert: expected together with mqtt.client_key".into());
    }
    if mqtt
        .client_id
        .as_ref()
        .is_some_and(|id| id.is_empty() || id.len() > 128 || id.contains(char::is_control))
    {
        problems.push("mqtt.client_id: expected 1 to 128 characters, none of them control characters".into());
    }
    if mqtt.subscribe_qos > 1 {
        problems.push(format!("mqtt.subscribe_qos: expected 0 or 1, found {}", mqtt.subscribe_qos));
    }
    let brokers = mqtt.brokers();
    if mqtt.url.is_some() && !mqtt.urls.is_empty() {
        problems.push("mqtt.urls: expected either this or mqtt.url, not both".into());
    }
    for (number, url) in
        mqtt.urls.iter().enumerate().filter(|(number, url)| mqtt.urls[..*number].contains(url))
    {
        problems.push(format!("mqtt.urls[{number}]: {url} stands before it already"));
    }
    let is_tls = brokers.iter().any(|url| url.tls);
    if !is_tls && (mqtt.ca_file.is_some() || mqtt.client_cert.is_some()) {
        problems.push("mqtt.url: expected mqtts:// beside mqtt.ca_file or mqtt.client_cert".into());
    }
    if brokers.is_empty() && mqtt.username.is_some() {
        problems.push(
            "mqtt.url: expected one beside mqtt.username; the embedded broker has broker.username".into(),
        );
    }
}

fn broker(config: &Config, problems: &mut Vec<String>) {
    let broker = &config.broker;
    if broker.password.is_some() && broker.password_file.is_some() {
        problems.push("broker.password: expected either this or broker.password_file, not both".into());
    }
    let has_password = broker.password.is_some() || broker.password_file.is_some();
    if broker.username.is_some() != has_password {
        problems
            .push("broker.username: expected together with broker.password or broker.password_file".into());
    }
    if !broker.listen.ip().is_loopback() && broker.username.is_none() {
        problems.push(format!(
            "broker.listen: expected broker.username and broker.password_file beside {}, which others can reach",
            broker.listen
        ));
    }
}

fn http(config: &Config, problems: &mut Vec<String>) {
    let http = &config.http;
    if http.token.is_some() && http.token_file.is_some() {
        problems.push("http.token: expected either this or http.token_file, not both".into());
    }
    if http.token.as_ref().is_some_and(|token| !is_long_enough(token)) {
        problems.push(format!("http.token: expected {SHORTEST_TOKEN} characters or more"));
    }
    for host in &http.hosts {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        if host.is_empty() || !host.chars().all(is_name) {
            problems.push(format!("http.hosts: expected a name without port, found {host:?}"));
        }
    }
    let has_more =
        http.ingress || !http.hosts.is_empty() || http.token.is_some() || http.token_file.is_some();
    if http.listen.is_none() && has_more {
        problems.push("http.listen: expected one beside the other keys of [http]".into());
    }
}

fn account(section: &str, account: &Account, problems: &mut Vec<String>) {
    if account.password.is_some() && account.password_file.is_some() {
        problems
            .push(format!("{section}.password: expected either this or {section}.password_file, not both"));
    }
    if account.username.is_some() != (account.password.is_some() || account.password_file.is_some()) {
        problems.push(format!(
            "{section}.username: expected together with {section}.password or {section}.password_file"
        ));
    }
}

fn topic(key: &str, topic: &str, problems: &mut Vec<String>) {
    let is_level = |level: &str| {
        !level.is_empty() && !level.contains(|letter: char| "+#".contains(letter) || letter.is_control())
    };
    if topic.starts_with('$') || topic.len() > 128 || !topic.split('/').all(is_level) {
        problems.push(format!(
            "{key}: expected a topic without + # $, empty levels or control characters, found {topic:?}"
        ));
    }
}

fn range(key: &str, value: Duration, (least, most): (u64, u64), problems: &mut Vec<String>) {
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    if !(least..=most).contains(&value) {
        let text = humantime::format_duration;
        problems.push(format!("{key}: expected {} to {}, found {}", text(least), text(most), text(value)));
    }
}

fn plugs(plugs: &[Plug], scan: &scan::settings::Settings, problems: &mut Vec<String>) {
    let mut macs = HashMap::new();
    let mut hosts = HashMap::new();
    let mut names = HashMap::new();
    for (number, plug) in plugs.iter().enumerate() {
        let key = |field: &str| format!("plug[{number}].{field}");
        if let Some(host) = &plug.host
            && let Some(other) = hosts.insert(host, number)
        {
            problems.push(format!("{}: {host} is plug[{other}] already", key("host")));
        }
        if let Some(mac) = plug.mac
            && let Some(other) = macs.insert(mac, number)
        {
            problems.push(format!("{}: {mac} is plug[{other}] already", key("mac")));
        }
        if plug.host.is_none() && plug.mac.is_none() {
            problems.push(format!("{}: expected this or {}", key("host"), key("mac")));
        }
        if plug.host.is_none() && !scan.enabled {
            problems.push(format!("{}: expected one, for scan.enabled is false", key("host")));
        }
        account(&format!("plug[{number}]"), &plug.account(), problems);
        if let Some(interval) = plug.interval {
            range(&key("interval"), interval, (1, 3600), problems);
        }
        let Some(name) = &plug.name else { continue };
        if let Some(other) = names.insert(name, number) {
            problems.push(format!("{}: {name:?} is plug[{other}] already", key("name")));
        }
        if !is_name(name) {
            problems.push(format!(
                "{}: expected 1 to 64 of a-z 0-9 _ -, and not {RESERVED:?}, found {name:?}",
                key("name")
            ));
        }
    }
}
