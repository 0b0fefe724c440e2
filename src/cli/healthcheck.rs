//! `kasa2mqtt healthcheck`: whether the bridge of this configuration works, for container engines and scripts.
//!
//! With a status page the bridge itself is asked. Without one it listens nowhere, so the broker is asked what it holds of
//! it: `bridge/state` is `online` as long as the bridge's session lives, and becomes `offline` by its will at most one
//! and a half `mqtt.keep_alive` after the bridge has died or hangs. What that cannot tell is a bridge that has lost its
//! broker from one that has died.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bridge::topics::Topics;
use crate::config::{self, Config};
use crate::http::access::HEALTH;
use crate::mqtt::event::Event;
use crate::mqtt::settings::BrokerUrl;

use super::conversation;
use super::output;

/// Far more than it has to say.
const LONGEST_ANSWER: usize = 64 << 10;

/// Asks the running bridge whether it works.
#[derive(Debug, Args)]
pub struct Healthcheck {
    /// Ask only whether the bridge itself works, with or without its broker; needs http.listen.
    #[arg(long)]
    pub alive: bool,
    /// How long to wait for an answer.
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What `/health` answers.
#[derive(Deserialize)]
struct Health {
    core: Core,
    broker: Broker,
}

#[derive(Deserialize)]
struct Core {
    running: bool,
}

#[derive(Deserialize)]
struct Broker {
    connected: bool,
}

/// Asks, and tells what is wrong.
///
/// # Errors
/// The bridge does not work, or nobody can tell.
pub async fn run(arguments: &Healthcheck, file: Option<&Path>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let config = configuration(file).await?;
    let (asked, verdict) = match config.http.listen {
        Some(listen) => page(listen, arguments).await,
        None => broker(&config, arguments).await,
    };
    let problem = verdict.err();
    match (arguments.json, &problem) {
        (true, _) => {
            output::line(json!({"healthy": problem.is_none(), "asked": asked, "problem": problem}))?;
        }
        (false, None) => output::line(format_args!("healthy, says {asked}"))?,
        (false, Some(_)) => {}
    }
    problem.map_or(Ok(()), |problem| Err(format!("{asked}: {problem}").into()))
}

/// Home Assistant's Supervisor is not bothered where file and environment say enough.
async fn configuration(file: Option<&Path>) -> Result<Config, config::Error> {
    let variables = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    match config::load_with(file, variables) {
        Ok(config) if config.http.listen.is_some() => Ok(config),
        _ => config::load(file).await,
    }
}

/// The place that was asked, and what is wrong.
type Told = (String, Result<(), String>);

/// Asks the bridge itself.
async fn page(listen: SocketAddr, arguments: &Healthcheck) -> Told {
    let address = within_reach(listen);
    let place = format!("http://{address}{HEALTH}");
    if address.port() == 0 {
        return (place, Err("http.listen: expected a port, for nobody can tell which one port 0 is".into()));
    }
    let answer = timeout(arguments.timeout, ask(address)).await;
    let answer = answer.unwrap_or_else(|_| Err("no answer".into()));
    let verdict = match answer {
        Err(problem) => Err(problem.to_string()),
        Ok(Health { core: Core { running: false }, .. }) => Err("the bridge hangs".into()),
        Ok(Health { broker: Broker { connected: false }, .. }) if !arguments.alive => {
            Err("the bridge has no connection to its broker".into())
        }
        Ok(_) => Ok(()),
    };
    (place, verdict)
}

/// Whoever listens everywhere is on this machine, too.
fn within_reach(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listen
}

async fn ask(address: SocketAddr) -> Result<Health, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(HEALTH).header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await?.to_bytes();
        // Healthy or not, the bridge says so in these words.
        serde_json::from_slice(&body)
            .map_err(|_| format!("something else than kasa2mqtt answers ({status})").into())
    };
    tokio::select! {
        biased;
        // It ends after the answer has been read, or because it failed, and then says best why.
        Err(error) = connection => Err(error.into()),
        answer = answer => answer,
    }
}

/// Asks the broker what it holds of the bridge.
async fn broker(config: &Config, arguments: &Healthcheck) -> Told {
    let urls = config.brokers();
    let place = conversation::places(&urls);
    if arguments.alive {
        let why = "a bridge without broker cannot be told from a dead one there: --alive needs http.listen";
        return (place, Err(why.into()));
    }
    let topics = Topics::new(&config.mqtt.base_topic, &config.homeassistant.prefix).of(config.shard);
    let topic = topics.bridge_state();
    let mut opened = false;
    let state = timeout(arguments.timeout, state(config, urls, &topic, &mut opened)).await;
    let verdict = match state.ok().flatten() {
        Some(state) if state == b"online" => Ok(()),
        Some(_) => Err(format!("the bridge is offline ({topic})")),
        None if opened => Err(format!("no bridge has been there yet (nothing is retained on {topic})")),
        None => Err("no broker answers; is this the bridge's configuration (KASA2MQTT_CONFIG)?".into()),
    };
    (place, verdict)
}

/// The bridge's retained state. `opened` tells whether the broker let us in.
async fn state(config: &Config, urls: Vec<BrokerUrl>, topic: &str, opened: &mut bool) -> Option<Vec<u8>> {
    conversation::hold(config, urls, topic.to_string(), None, |event| match event {
        Event::Message(message) => Some(message.payload),
        Event::Opened => {
            *opened = true;
            None
        }
        Event::Lost | Event::StoodStill | Event::Acknowledged(_) => None,
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        for (listen, asked) in [
            ("0.0.0.0:8099", "127.0.0.1:8099"),
            ("[::]:8099", "[::1]:8099"),
            ("172.30.32.1:8099", "172.30.32.1:8099"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(within_reach(listen.parse().unwrap()), asked.parse().unwrap(), "{listen}");
        }
    }
}
