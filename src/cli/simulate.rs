//! `kasa2mqtt simulate`: plugs for people who have none, or who do not want to wear out theirs.

use std::error::Error;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use tokio::task::JoinSet;

use crate::sim::behaviour::Behaviour;
use crate::sim::model::{MODELS, Model};
use crate::sim::plug::SimPlug;
use crate::sim::server::{KlapAddresses, Simulator};

use super::output;

const DEFAULT: &str = "HS110-G3";

/// Runs simulated plugs until stopped.
#[derive(Debug, Args)]
pub struct Simulate {
    /// A plug of this model; can be given several times. Without any model or dump: HS110-G3.
    #[arg(long = "model", value_name = "MODEL", value_parser = model, help = models())]
    pub models: Vec<Model>,
    /// Plugs as dumps describe them, in the JSON of python-kasa's `devtools/dump_devinfo`; they come after the models.
    #[arg(long = "dump", value_name = "FILE", num_args = 1..)]
    pub dumps: Vec<PathBuf>,
    /// Aliases, in the order of the models.
    #[arg(long = "alias", value_name = "NAME")]
    pub aliases: Vec<String>,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,
    /// Port of the first plug, TCP and UDP; the others take the next ones. 0 takes free ones.
    #[arg(long, default_value_t = 9999)]
    pub port: u16,
    /// With --klap: port of the first plug's HTTP server; the others take the next ones. 0 takes free ones, which plugs
    /// announce.
    #[arg(long, default_value_t = 0)]
    pub http_port: u16,
    /// With --klap: port of the first plug's announcement, UDP; the others take the next ones. Clients expect 20002.
    #[arg(long, default_value_t = 20002)]
    pub discovery_port: u16,
    /// Print every request, after the MAC of the plug that it came to.
    #[arg(long)]
    pub requests: bool,
    /// Habits and faults of all of them.
    #[command(flatten)]
    pub behaviour: Behaviour,
}

fn model(name: &str) -> Result<Model, String> {
    Model::named(name).ok_or_else(models)
}

fn models() -> String {
    let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
    format!(
        "A plug of this model, one of {}; can be given several times. Without any model or dump: {DEFAULT}",
        names.join(", ")
    )
}

/// Prints a line for each plug and runs them until `stopped`.
///
/// # Errors
/// A port is taken, or a file is no dump.
pub async fn run(
    arguments: Simulate,
    stopped: impl Future<Output = ()>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (mut running, mut watching) = (Vec::new(), JoinSet::new());
    for (number, plug) in (0u16..).zip(arguments.plugs()?) {
        let address = arguments.address(arguments.port, number)?;
        let klap = KlapAddresses {
            http: arguments.address(arguments.http_port, number)?,
            discovery: arguments.address(arguments.discovery_port, number)?,
        };
        let (model, alias) = (plug.model(), plug.alias().to_owned());
        let plug = plug.with(arguments.behaviour.clone());
        let simulator = Simulator::start_on(plug, address, klap, SystemTime::now())
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        output::line(format_args!("{} {} {model} {alias}", simulator.address(), simulator.mac()))?;
        if let Some(klap) = simulator.klap() {
            output::line(format_args!("  KLAP on {}, announced on {}", klap.http, klap.discovery))?;
        }
        if arguments.requests {
            let (mut requests, mac) = (simulator.watch().await, simulator.mac().to_string());
            watching.spawn(async move {
                while let Some(request) = requests.recv().await {
                    if let Err(error) = output::line(format_args!("{mac} {request}")) {
                        return output::complain(error);
                    }
                }
            });
        }
        running.push(simulator);
    }
    stopped.await;
    Ok(())
}

impl Simulate {
    /// The address of the plug of this number; the port counts from `port`, unless that is 0.
    fn address(&self, port: u16, number: u16) -> Result<SocketAddr, &'static str> {
        let port = if port == 0 { 0 } else { port.checked_add(number).ok_or("no port left")? };
        Ok(SocketAddr::new(self.host, port))
    }

    fn plugs(&self) -> Result<Vec<SimPlug>, Box<dyn Error + Send + Sync>> {
        let mut models = self.models.clone();
        if models.is_empty() && self.dumps.is_empty() {
            models.extend(Model::named(DEFAULT));
        }
        let mut plugs = Vec::new();
        for (number, model) in (0..).zip(models) {
            let alias = self.aliases.get(usize::from(number)).cloned();
            let alias = alias.unwrap_or_else(|| format!("Simulated plug {}", number + 1));
            plugs.push(SimPlug::new(model, &alias, mac(number)));
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        for path in &self.dumps {
            let plug = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display())).and_then(
                |dump| SimPlug::from_dump(&dump, now).map_err(|error| format!("{}: {error}", path.display())),
            )?;
            plugs.push(plug);
        }
        Ok(plugs)
    }
}

/// A MAC of the simulated plug of this number, from the range that TP-Link's plugs use.
pub fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x50, 0xc7, 0xbf, 0x5e, high, low.wrapping_add(1)]
}
