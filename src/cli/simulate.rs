//! `kasa2mqtt simulate`: plugs for people who have none, or who do not want to wear out theirs.

use std::error::Error;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::sim::model::{MODELS, Model};
use crate::sim::plug::SimPlug;
use crate::sim::server::{Behaviour, Reply, Simulator};

/// Runs simulated plugs until stopped.
#[derive(Debug, Args)]
pub struct Simulate {
    /// A plug of this model; can be given several times.
    #[arg(long = "model", value_name = "MODEL", value_parser = model, default_value = "HS110-G3", help = models())]
    pub models: Vec<Model>,
    /// Aliases, in the order of the models.
    #[arg(long = "alias", value_name = "NAME")]
    pub aliases: Vec<String>,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,
    /// Port of the first plug, TCP and UDP; the others take the next ones. 0 takes free ones.
    #[arg(long, default_value_t = 9999)]
    pub port: u16,
    /// Time before each reply.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub delay: Duration,
    /// Bytes in each piece of a reply; 0 for all in one.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub fragment: usize,
    /// Close the connection after each reply.
    #[arg(long)]
    pub close: bool,
    /// A fault.
    #[arg(long)]
    pub fault: Option<Fault>,
}

/// Ways to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Replies announce a length of zero and end with the connection (firmware of 2016).
    ZeroLength,
    /// Takes requests and never answers.
    Silence,
    /// Answers something that is not JSON.
    Rubbish,
    /// Announces 4 GiB.
    Huge,
    /// Sends half a reply and closes.
    Half,
    /// Sends half a reply and resets.
    Reset,
    /// Answers every method with an error.
    Refuse,
    /// Closes every connection at once.
    Deaf,
}

fn model(name: &str) -> Result<Model, String> {
    Model::named(name).ok_or_else(models)
}

fn models() -> String {
    let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
    format!("A plug of this model, one of {}; can be given several times", names.join(", "))
}

/// Prints a line for each plug and runs them until `stopped`.
///
/// # Errors
/// A port is taken.
pub async fn run(arguments: Simulate, stopped: impl Future<Output = ()>) -> Result<(), Box<dyn Error>> {
    let behaviour = arguments.behaviour();
    let mut running = Vec::new();
    for (number, model) in (0u16..).zip(&arguments.models) {
        let alias = arguments.aliases.get(usize::from(number)).cloned();
        let alias = alias.unwrap_or_else(|| format!("Simulated plug {}", number + 1));
        let port =
            if arguments.port == 0 { 0 } else { arguments.port.checked_add(number).ok_or("no port left")? };
        let address = SocketAddr::new(arguments.host, port);
        let plug = SimPlug::new(*model, &alias, mac(number));
        let simulator =
            Simulator::start(plug, address).await.map_err(|error| format!("{address}: {error}"))?;
        simulator.behave(behaviour.clone()).await;
        println!("{} {} {} {alias}", simulator.address(), simulator.mac(), model.name);
        running.push(simulator);
    }
    stopped.await;
    Ok(())
}

/// A MAC of the simulated plug of this number, from the range that TP-Link's plugs use.
pub fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x50, 0xc7, 0xbf, 0x5e, high, low.wrapping_add(1)]
}

impl Simulate {
    fn behaviour(&self) -> Behaviour {
        let reply = match self.fault {
            Some(Fault::ZeroLength) => Reply::ZeroLength,
            Some(Fault::Silence) => Reply::Silence,
            Some(Fault::Rubbish) => Reply::Rubbish,
            Some(Fault::Huge) => Reply::Huge,
            Some(Fault::Half) => Reply::Half,
            Some(Fault::Reset) => Reply::Reset,
            Some(Fault::Refuse | Fault::Deaf) | None => Reply::Whole,
        };
        Behaviour {
            reply,
            delay: self.delay,
            fragment: self.fragment,
            close: self.close,
            refuse: self.fault == Some(Fault::Refuse),
            deaf: self.fault == Some(Fault::Deaf),
        }
    }
}
