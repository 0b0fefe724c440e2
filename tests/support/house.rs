//! Simulated plugs, and a configuration that knows them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;
use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::config::Config;
use kasa2mqtt::mqtt::settings::BrokerUrl;
use kasa2mqtt::plug::clock::{Keeper, Set};
use kasa2mqtt::plug::klap::account::Account;
use kasa2mqtt::plug::link::{Access, Ports};
use kasa2mqtt::plug::owner;
use kasa2mqtt::plug::settings::{HostPort, Plug};
use kasa2mqtt::sim::behaviour::{Behaviour, Klap};
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::{KlapAddresses, Simulator};
use kasa2mqtt::steps::Steps;

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

/// How plugs are spoken to.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    Xor,
    Klap(Klap),
}

impl Way {
    /// A plug without faults.
    pub fn behaviour(self) -> Behaviour {
        match self {
            Way::Xor => Behaviour::default(),
            Way::Klap(klap) => Behaviour {
                klap: Some(klap),
                account: Some("me@example.org:secret".into()),
                ..Behaviour::default()
            },
        }
    }

    /// The same as [`plugs`], each at an address of its own, as real ones: all of them announce on one port.
    pub async fn plugs(self, models: &[&str]) -> Vec<Simulator> {
        if let Way::Xor = self {
            return plugs(models).await;
        }
        // A port that is free at one address need not be so at all of them.
        for _ in 0..20 {
            if let Ok(plugs) = self.plugs_on_one_port(models).await {
                return plugs;
            }
        }
        panic!("no port that is free at {} addresses", models.len());
    }

    async fn plugs_on_one_port(self, models: &[&str]) -> std::io::Result<Vec<Simulator>> {
        let mut plugs: Vec<Simulator> = Vec::new();
        for (number, model) in (0u8..).zip(models) {
            let model = Model::named(model).unwrap_or_else(|| panic!("no model {model}"));
            let plug = SimPlug::new(model, &format!("Plug {number}"), mac(number.into()));
            let free = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1 + number), 0));
            let port = plugs.first().map_or(0, |first| first.klap().unwrap().discovery.port());
            let addresses = KlapAddresses { http: free, discovery: SocketAddr::new(free.ip(), port) };
            let plug = plug.with(self.behaviour());
            plugs.push(Simulator::start_on(plug, free, addresses, SystemTime::now()).await?);
        }
        Ok(plugs)
    }

    /// The same as [`config`], with what it takes to reach these plugs.
    pub fn config(self, broker: Option<SocketAddr>, plugs: &[Simulator]) -> Config {
        let mut config = config(broker, plugs);
        if let Way::Klap(_) = self {
            config.kasa = Account {
                username: Some("me@example.org".into()),
                password: Some("secret".into()),
                ..Account::default()
            };
            let discovery = plugs.first().map_or(1, |plug| plug.klap().unwrap().discovery.port());
            // Nothing listens on the port of plugs that do not say where theirs is.
            config.ports = Ports { discovery, http: 1 };
        }
        config
    }
}

pub fn url(broker: SocketAddr) -> BrokerUrl {
    BrokerUrl { tls: false, host: broker.ip().to_string(), port: broker.port() }
}

pub fn plug(address: SocketAddr) -> Plug {
    Plug { host: Some(HostPort { host: address.ip().to_string(), port: address.port() }), ..Plug::default() }
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
        access: Access::default(),
        mac: None,
        interval,
        energy_interval: Duration::from_secs(60),
        timeout: Duration::from_secs(1),
        first_poll: Duration::ZERO,
        steps: Steps::new(Instant::now(), Duration::ZERO),
        keeper: Arc::new(Keeper { set: Set::Never, zone: TimeZone::UTC }),
        wall: Arc::new(SystemTime::now),
    }
}
