//! `kasa2mqtt demo`: broker, three plugs and bridge in one program, and what to try.

use std::error::Error;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use crate::app;
use crate::broker::Broker;
use crate::config::Config;
use crate::http::Door;
use crate::mqtt::settings::BrokerUrl;
use crate::plug::settings::{HostPort, Plug};
use crate::sim::model::Model;
use crate::sim::plug::SimPlug;
use crate::sim::server::Simulator;

use super::output;
use super::simulate::mac;

const PLUGS: [(&str, &str); 3] = [("HS110-G1", "Desk lamp"), ("HS110-G3", "Freezer"), ("HS100-G2", "Radio")];

/// Runs until `stopped`.
///
/// # Errors
/// The broker or the bridge failed.
pub async fn run(stopped: impl Future<Output = ()>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = Config::default();
    config.broker.listen = free;
    config.http.listen = Some(free);
    // The plugs of whoever tries it are not to be switched.
    config.scan.enabled = false;
    let broker = Broker::start(config.broker.clone()).await?;
    let port = broker.address().port();
    config.mqtt.url = Some(BrokerUrl { tls: false, host: Ipv4Addr::LOCALHOST.to_string(), port });
    let mut plugs = Vec::new();
    for (number, (model, alias)) in (0..).zip(PLUGS) {
        let model = Model::named(model).expect("the demo's models exist");
        let simulator = Simulator::start(SimPlug::new(model, alias, mac(number)), free).await?;
        // A freezer that is off would worry people.
        simulator.press(alias == "Freezer").await;
        let address = simulator.address();
        let host = HostPort { host: address.ip().to_string(), port: address.port() };
        config.plug.push(Plug { host: Some(host), ..Plug::default() });
        plugs.push(simulator);
    }
    // Taken now, so that its port can be told.
    let door = Door::open(&config.http)?;
    let page = door.as_ref().map(Door::address).expect("the demo has a status page");
    output::line(what_to_try(page, port, &plugs[0]))?;
    app::run_behind(door, &config, Instant::now(), stopped).await?;
    broker.stop().await;
    Ok(())
}

fn what_to_try(page: SocketAddr, port: u16, lamp: &Simulator) -> String {
    let lamp = lamp.address();
    format!(
        "\
Three simulated plugs are on the bridge: desk-lamp, freezer, radio.
See them, live, and switch them in a browser:

  http://{page}

In another terminal (Debian: apt install mosquitto-clients), watch:

  mosquitto_sub -p {port} -v -t 'kasa/#'

and switch:

  mosquitto_pub -p {port} -t kasa/desk-lamp/set -m ON
  mosquitto_pub -p {port} -t kasa/desk-lamp/set -m TOGGLE
  mosquitto_pub -p {port} -t kasa/freezer/set/led -m OFF
  mosquitto_pub -p {port} -t kasa/radio/set -m '{{\"state\":\"ON\",\"transaction\":1}}'

One plug without a broker:

  kasa2mqtt plug {lamp} info

Ctrl-C ends it.
"
    )
}
