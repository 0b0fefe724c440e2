//! Simulated plugs, and a configuration that knows them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::config::Config;
use kasa2mqtt::mqtt::settings::BrokerUrl;
use kasa2mqtt::plug::clock::{Keeper, Set};
use kasa2mqtt::plug::owner;
use kasa2mqtt::plug::room::Room;
use kasa2mqtt::plug::settings::{HostPort, Plug};
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;

pub const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Simulated plugs of these models; the first has the alias `Plug 0`.
pub async fn plugs(models: &[&str]) -> Vec<Simulator> {
    let mut plugs = Vec::new();
    for (number, model) in (0..).zip(models) {
        let model = Model::named(model).unwrap_or_else(|| panic!("no model {model}"));
        let plug = SimPlug::new(model, &format!("Plug {number}"), mac(number));
        plugs.push(Simulator::start(plug, FREE).await.unwrap());
    }
    plugs
}

pub fn url(broker: SocketAddr) -> BrokerUrl {
    BrokerUrl { tls: false, host: broker.ip().to_string(), port: broker.port() }
}

pub fn plug(address: SocketAddr) -> Plug {
    Plug {
        host: Some(HostPort { host: address.ip().to_string(), port: address.port() }),
        mac: None,
        name: None,
        interval: None,
    }
}

/// A bridge between these plugs and this broker; a broker's port of its own where none is given.
pub fn config(broker: Option<SocketAddr>, plugs: &[Simulator]) -> Config {
    let mut config = Config::default();
    config.mqtt.url = broker.map(url);
    config.broker.listen = FREE;
    // Tests stay on loopback.
    config.scan.enabled = false;
    config.plug = plugs.iter().map(|simulator| plug(simulator.address())).collect();
    config
}

/// How a plug's own task reaches it. The clock is left alone.
pub fn owner(address: SocketAddr, interval: Duration) -> owner::Settings {
    owner::Settings {
        host: address.ip().to_string(),
        port: address.port(),
        mac: None,
        interval,
        energy_interval: Duration::from_secs(60),
        timeout: Duration::from_secs(1),
        first_poll: Duration::ZERO,
        room: Arc::new(Room::unlimited()),
        keeper: Arc::new(Keeper { set: Set::Never, zone: TimeZone::UTC }),
        wall: Arc::new(SystemTime::now),
    }
}
