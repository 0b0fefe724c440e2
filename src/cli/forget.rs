//! `kasa2mqtt forget NAME`: asks the running bridge to forget a plug.

use std::error::Error;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::bridge::message::Publish;
use crate::bridge::retained::Ticket;
use crate::bridge::topics::Topics;
use crate::config::Config;
use crate::mqtt::event::Event;
use crate::mqtt::settings::BrokerUrl;
use crate::unique;

use super::conversation;
use super::output;

/// Has the running bridge forget a plug.
#[derive(Debug, Args)]
pub struct Forget {
    /// The plug's name in topics, or its MAC.
    pub name: String,
    /// How long to wait for the bridge.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Asks, and tells what the bridge answered.
///
/// # Errors
/// No bridge answered, or it refused.
pub async fn run(arguments: &Forget, config: &Config) -> Result<(), Box<dyn Error + Send + Sync>> {
    let urls = config.brokers();
    let places = conversation::places(&urls);
    let answer = timeout(arguments.timeout, ask(&arguments.name, config, urls)).await;
    let problem = match answer.ok().flatten() {
        None => Some(format!("no bridge answered at {places}; is one running?")),
        Some(answer) if answer["status"] == "ok" => None,
        Some(answer) => Some(answer["error"].as_str().unwrap_or("the bridge refused").to_string()),
    };
    match (arguments.json, &problem) {
        (true, _) => {
            output::line(json!({"ok": problem.is_none(), "name": arguments.name, "error": problem}))?;
        }
        (false, None) => output::line(format_args!("forgot {}", arguments.name))?,
        (false, Some(_)) => {}
    }
    problem.map_or(Ok(()), |problem| Err(problem.into()))
}

/// The bridge's answer; `None` when the session ended before it.
async fn ask(name: &str, config: &Config, urls: Vec<BrokerUrl>) -> Option<Value> {
    let topics = Topics::new(&config.mqtt.base_topic, &config.homeassistant.prefix);
    let transaction = Value::from(unique::name());
    let request = json!({"id": name, "transaction": transaction}).to_string();
    let words = Publish {
        ticket: Ticket(0),
        topic: topics.bridge("request/device/remove"),
        payload: request.into_bytes(),
        retain: false,
    };
    conversation::hold(config, urls, topics.bridge("response/device/remove"), Some(words), |event| {
        let Event::Message(message) = event else { return None };
        let answer: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        (answer["transaction"] == transaction).then_some(answer)
    })
    .await
}
