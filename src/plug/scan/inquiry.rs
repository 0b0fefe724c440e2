//! What is asked by TCP after the probes: the power, and why port 9999 is silent. One connection to a plug at a time.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer;
use super::found::{Found, Protocol};
use super::{Options, Ports};
use crate::plug::client::Client;
use crate::plug::emeter::Emeter;
use crate::plug::error::Error;
use crate::plug::reply::Reply;
use crate::plug::request::GET_SYSINFO;

/// Asked of plugs whose sysinfo says that they have a meter, never of others and never by UDP (protocol.md 1.4).
const GET_REALTIME: &[u8] = br#"{"emeter":{"get_realtime":{}}}"#;

/// Plugs that are asked at the same time.
const AT_ONCE: usize = 32;

/// Somebody to be asked.
#[derive(Debug)]
pub enum Subject {
    /// A plug with a meter.
    Metered(Found),
    /// A plug of which only port 20002 was heard: it may have been the datagram that was lost.
    Announced(Found),
    /// A listed host of which nothing was heard.
    Silent(SocketAddr),
}

impl Subject {
    /// What there is to ask of a plug that was found.
    pub fn of(found: &Found, options: &Options) -> Option<Subject> {
        // The outlets of a strip are asked one by one; too much for a glance at the network.
        let has_one_meter = found.has_meter && found.relays.len() == 1;
        match found.open {
            true if has_one_meter && options.power => Some(Subject::Metered(found.clone())),
            false if found.protocol != Protocol::Unsupported => Some(Subject::Announced(found.clone())),
            _ => None,
        }
    }

    /// What is known afterwards, or what a person should know.
    async fn ask(self, power: bool, deadline: Duration, ports: Ports) -> Result<Found, String> {
        match self {
            Subject::Metered(found) => Ok(metered(found, deadline).await),
            Subject::Announced(found) => {
                let address = SocketAddr::new(found.address.ip(), ports.xor);
                match sysinfo(address, power, deadline).await {
                    // Several plugs may share an address: in simulations, and behind a router that forwards ports.
                    Ok(answer) if answer.mac == found.mac => Ok(answer),
                    _ => Ok(found),
                }
            }
            Subject::Silent(address) => match sysinfo(address, power, deadline).await {
                Ok(found) => Ok(found),
                Err(Failure::Connect(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let http = SocketAddr::new(address.ip(), ports.http);
                    match connect(http, deadline).await {
                        Ok(_) => Ok(Found::at(http, Protocol::Klap)),
                        Err(_) => Err(format!("{address}: nothing listens there")),
                    }
                }
                Err(Failure::Connect(error)) => Err(format!("{address}: {error}")),
                Err(Failure::Exchange(error)) => Err(format!("{address}: {error}")),
            },
        }
    }
}

/// Answers as they come.
pub struct Inquiries {
    waiting: VecDeque<Subject>,
    running: JoinSet<Result<Found, String>>,
    power: bool,
    deadline: Duration,
    ports: Ports,
}

/// Asks all of them, a bounded number at the same time.
pub fn all(subjects: Vec<Subject>, options: &Options) -> Inquiries {
    Inquiries {
        waiting: subjects.into(),
        running: JoinSet::new(),
        power: options.power,
        deadline: options.timeout,
        ports: options.ports,
    }
}

impl Inquiries {
    /// The next answer; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Found, String>> {
        while self.running.len() < AT_ONCE
            && let Some(subject) = self.waiting.pop_front()
        {
            self.running.spawn(subject.ask(self.power, self.deadline, self.ports));
        }
        self.running.join_next().await.map(|ended| ended.unwrap_or_else(|error| Err(error.to_string())))
    }
}

enum Failure {
    Connect(io::Error),
    Exchange(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Exchange(error)
    }
}

async fn connect(address: SocketAddr, deadline: Duration) -> io::Result<Client<TcpStream>> {
    let connected = timeout(deadline, TcpStream::connect(address)).await;
    let stream = connected.unwrap_or_else(|_| {
        let text = format!("no connection within {}", humantime::format_duration(deadline));
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })?;
    stream.set_nodelay(true)?;
    Ok(Client::new(stream))
}

async fn sysinfo(address: SocketAddr, power: bool, deadline: Duration) -> Result<Found, Failure> {
    let mut client = connect(address, deadline).await.map_err(Failure::Connect)?;
    let reply = Reply::parse(&client.exchange(GET_SYSINFO, deadline).await?)?;
    // Most plugs close after each reply, and all of them have one connection at a time.
    drop(client);
    let found = answer::sysinfo(&reply, address)?;
    match power && found.has_meter && found.relays.len() == 1 {
        true => Ok(metered(found, deadline).await),
        false => Ok(found),
    }
}

/// The plug with its power, if it says: a meter that fails leaves the rest as it is.
async fn metered(mut found: Found, deadline: Duration) -> Found {
    let asked = async {
        let mut client = connect(found.address, deadline).await?;
        let reply = Reply::parse(&client.exchange(GET_REALTIME, deadline).await?)?;
        Ok::<_, Error>(reply.method(("emeter", "get_realtime")).map(Emeter::parse)?.power_mw)
    };
    match asked.await {
        Ok(power) => found.power_mw = power,
        Err(error) => tracing::debug!("{}: the power is unknown: {error}", found.address),
    }
    found
}
