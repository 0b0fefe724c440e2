//! `kasa2mqtt scan`: the plugs on this network.

mod table;

use std::error::Error;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::mpsc;

use crate::plug::scan::found::{Finds, Found};
use crate::plug::scan::target::Target;
use crate::plug::scan::{self, NOBODY, Options, Ports};

use super::output;

/// Lists the plugs on this network.
#[derive(Debug, Args)]
pub struct Scan {
    /// Print a JSON array.
    #[arg(long)]
    pub json: bool,
    /// Ask these addresses, names or networks (192.168.1.0/24) instead of everybody whom a broadcast reaches; for
    /// networks that it does not reach.
    #[arg(long = "target", value_name = "ADDR", num_args = 1..)]
    pub targets: Vec<Target>,
    /// Ask through this network interface only.
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// How long to wait for replies; asking a large network takes longer.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Time given to each connection by TCP, and to the look-up of each name.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// The port of plugs in networks and behind broadcasts.
    #[arg(long, default_value_t = Ports::default().xor, hide = true)]
    pub port: u16,
    /// The port of newer firmware's announcements.
    #[arg(long, default_value_t = Ports::default().discovery, hide = true)]
    pub discovery_port: u16,
}

/// Searches and prints what was found to standard output; progress and trouble go to standard error.
///
/// # Errors
/// There is no such interface, or nothing was found.
pub async fn run(arguments: &Scan) -> Result<(), Box<dyn Error + Send + Sync>> {
    let options = arguments.options();
    let (sender, news) = mpsc::channel(64);
    let is_watched = stderr().is_terminal();
    let (scan, ()) =
        tokio::join!(scan::scan(&options, sender), progress(news, options.expected(), is_watched));
    let scan = scan?;
    match arguments.json {
        true => output::line(table::json(&scan.found))?,
        false if scan.found.is_empty() => {}
        false => output::line(table::text(&scan.found))?,
    }
    for problem in &scan.problems {
        output::complain(problem);
    }
    match (scan.found.is_empty(), options.broadcast) {
        (false, _) => Ok(()),
        (true, true) => Err(format!("{NOBODY} (scan --target 192.168.1.0/24)").into()),
        (true, false) => {
            let addresses = if scan.asked == 1 { "address" } else { "addresses" };
            let text = format!("no plug answered at {} {addresses}", scan.asked);
            Err(format!("{text}; plugs answer on UDP ports 9999 and 20002, which a firewall may hold back")
                .into())
        }
    }
}

impl Scan {
    fn options(&self) -> Options {
        Options {
            broadcast: self.targets.is_empty(),
            targets: self.targets.clone(),
            interface: self.interface.clone(),
            duration: self.duration,
            timeout: self.timeout,
            power: true,
            ports: Ports { xor: self.port, discovery: self.discovery_port, ..Ports::default() },
        }
    }
}

/// Shows how far the scan is until it ends, on a line of its own that is wiped afterwards.
async fn progress(mut news: mpsc::Receiver<Found>, expected: Duration, is_watched: bool) {
    let begin = Instant::now();
    let mut seen = Finds::default();
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            found = news.recv() => match found {
                Some(found) => drop(seen.learn(found)),
                None => break,
            },
            _ = tick.tick(), if is_watched => {
                let left = expected.saturating_sub(begin.elapsed()).as_secs() + 1;
                let found = seen.iter().count();
                let _ = write!(stderr(), "\rsearching: {found} found, about {left} s to go \x1b[K");
            }
        }
    }
    if is_watched {
        let _ = write!(stderr(), "\r\x1b[K");
    }
}
