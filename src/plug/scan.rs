//! Which plugs are on this network? Probes by UDP on both ports, then a few words by TCP (protocol.md 6).
//!
//! Only `get_sysinfo` goes out by UDP: some firmware resets when its meter is asked that way (protocol.md 1.4).

pub mod answer;
pub mod found;
mod inquiry;
pub mod probe;
pub mod settings;
mod socket;
pub mod target;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};

use found::{Finds, Found};
use inquiry::Subject;
use socket::Sockets;
use target::Target;

/// Why a scan may find nothing, and what helps: one line for logs and terminals.
pub const NOBODY: &str = "no plug answered: broadcasts stay in the networks of this machine, they do not cross VLANs, \
     routers or Docker bridges; name the network of the plugs as a target, such as 192.168.1.0/24";

/// How often everybody is asked. UDP loses datagrams, above all over Wi-Fi (protocol.md 6).
const ROUNDS: u32 = 3;

/// Time between two addresses that are asked. Each address on our own network that is nobody's waits 3 s in the neighbour
/// table; Linux has room for 1024 of them.
const PACE: Duration = Duration::from_millis(4);

/// How to search.
#[derive(Debug, Clone)]
pub struct Options {
    /// Ask everybody whom a broadcast reaches.
    pub broadcast: bool,
    /// Whom else to ask.
    pub targets: Vec<Target>,
    /// Ask through this interface only.
    pub interface: Option<String>,
    /// How long to wait for replies to UDP probes, all rounds together. Asking many addresses takes longer.
    pub duration: Duration,
    /// Time given to each connect and each exchange by TCP, and to the look-up of each name.
    pub timeout: Duration,
    /// Whether meters are asked.
    pub power: bool,
    /// Where plugs listen.
    pub ports: Ports,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            broadcast: true,
            targets: Vec::new(),
            interface: None,
            duration: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            power: true,
            ports: Ports::default(),
        }
    }
}

impl Options {
    /// How long the probes by UDP take.
    pub fn expected(&self) -> Duration {
        let addresses: usize = self.targets.iter().map(Target::count).sum();
        self.duration + ROUNDS * PACE * u32::try_from(addresses).unwrap_or(u32::MAX)
    }
}

/// Where plugs listen; tests have others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// XOR, by UDP and TCP. A [`Target::Host`] has its own.
    pub xor: u16,
    /// The announcement of newer firmware, by UDP.
    pub discovery: u16,
    /// KLAP, by TCP.
    pub http: u16,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports { xor: crate::plug::settings::PORT, discovery: 20002, http: 80 }
    }
}

/// How a scan went.
#[derive(Debug)]
pub struct Scan {
    /// Every plug once, in the order of their MACs.
    pub found: Vec<Found>,
    /// How many addresses were asked, broadcasts included.
    pub asked: usize,
    /// What went wrong on the way, for a person; at most [`MAX_PROBLEMS`].
    pub problems: Vec<String>,
}

/// More than anybody reads.
pub const MAX_PROBLEMS: usize = 8;

/// Searches. Each plug goes to `news` when it is found and again when more is known of it; the receiver may be dropped.
/// A receiver that is slow delays the search, and dropping the future ends it at once.
///
/// # Errors
/// No socket could be opened, or there is no such interface. One address that cannot be reached is a
/// [problem](Scan::problems), not an error.
pub async fn scan(options: &Options, news: mpsc::Sender<Found>) -> io::Result<Scan> {
    let mut problems = Problems::default();
    let sockets = Sockets::open(options.interface.as_deref()).await?;
    let mut destinations = Vec::new();
    if options.broadcast {
        let broadcasts = socket::broadcasts(options.interface.as_deref())?;
        destinations.extend(broadcasts.into_iter().map(|address| (address, options.ports.xor)));
    }
    let listed = resolve(&options.targets, options.timeout, &mut problems).await;
    destinations.extend(&listed);
    for target in &options.targets {
        if let Target::Network(network) = target {
            destinations.extend(target::hosts(*network).map(|address| (address, options.ports.xor)));
        }
    }
    let mut search = Search { options, finds: Finds::default(), news };
    search.listen(&sockets, ask(&sockets, &destinations, options, &mut problems)).await;
    search.inquire(&listed, &mut problems).await;
    Ok(Scan { found: search.finds.into_vec(), asked: destinations.len(), problems: problems.0 })
}

struct Search<'a> {
    options: &'a Options,
    finds: Finds,
    news: mpsc::Sender<Found>,
}

impl Search<'_> {
    /// Takes in replies until everybody was asked.
    async fn listen(&mut self, sockets: &Sockets, asking: impl Future<Output = ()>) {
        let mut asking = std::pin::pin!(asking);
        let xor = self.options.ports.xor;
        let (mut sysinfo, mut announcement) = (socket::buffer(), socket::buffer());
        loop {
            let heard = tokio::select! {
                () = &mut asking => return,
                received = sockets.sysinfo.recv_from(&mut sysinfo) => received
                    .map(|(length, sender)| answer::datagram(&mut sysinfo[..length], sender)),
                received = sockets.discovery.recv_from(&mut announcement) => received
                    .map(|(length, sender)| answer::announcement(&announcement[..length], sender, xor)),
            };
            match heard {
                Ok(Ok(found)) => self.learn(found).await,
                Ok(Err(error)) => tracing::debug!("a reply that is no plug's: {error}"),
                Err(error) => tracing::debug!("receiving: {error}"),
            }
        }
    }

    async fn learn(&mut self, found: Found) {
        if let Some(known) = self.finds.learn(found) {
            // A receiver that is gone wants only the result.
            let _ = self.news.send(known.clone()).await;
        }
    }

    /// What UDP could not tell: the power, and why port 9999 is silent.
    async fn inquire(&mut self, listed: &[(Ipv4Addr, u16)], problems: &mut Problems) {
        let mut subjects: Vec<Subject> =
            self.finds.iter().filter_map(|found| Subject::of(found, self.options)).collect();
        let listed = listed.iter().map(|(address, port)| SocketAddr::from((*address, *port)));
        subjects.extend(listed.filter(|address| !self.finds.heard_of(*address)).map(Subject::Silent));
        let mut outcomes = inquiry::all(subjects, self.options);
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(found) => self.learn(found).await,
                Err(problem) => problems.note(problem),
            }
        }
    }
}

/// Asks everybody, several times.
async fn ask(
    sockets: &Sockets,
    destinations: &[(Ipv4Addr, u16)],
    options: &Options,
    problems: &mut Problems,
) {
    let (sysinfo, discovery) = (probe::sysinfo(), probe::discovery(fastrand::u32(..)));
    let mut pace = time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A network without a route is one problem, not one for each of its addresses.
    let mut failures = BTreeSet::new();
    for _ in 0..ROUNDS {
        for (address, port) in destinations {
            pace.tick().await;
            let sent = async {
                sockets.sysinfo.send_to(&sysinfo, (*address, *port)).await?;
                sockets.discovery.send_to(&discovery, (*address, options.ports.discovery)).await
            };
            // No route to one of them says nothing of the others. Without a default route there is none to everybody:
            // the networks' own broadcast addresses are asked as well.
            if let Err(error) = sent.await
                && !address.is_broadcast()
                && failures.insert(error.kind())
            {
                problems.note(format!("{address}: {error}"));
            }
        }
        time::sleep(options.duration / ROUNDS).await;
    }
}

/// The addresses of listed hosts; plugs have no IPv6.
async fn resolve(targets: &[Target], deadline: Duration, problems: &mut Problems) -> Vec<(Ipv4Addr, u16)> {
    let mut addresses = Vec::new();
    for target in targets {
        let Target::Host(host) = target else { continue };
        let v4 = |address: SocketAddr| match address.ip() {
            IpAddr::V4(address) => Some((address, host.port)),
            IpAddr::V6(_) => None,
        };
        match time::timeout(deadline, tokio::net::lookup_host((host.host.as_str(), host.port))).await {
            Ok(Ok(mut found)) => match found.find_map(v4) {
                Some(address) => addresses.push(address),
                None => problems.note(format!("{}: no IPv4 address", host.host)),
            },
            Ok(Err(error)) => problems.note(format!("{}: {error}", host.host)),
            Err(_) => problems.note(format!("{}: the name server does not answer", host.host)),
        }
    }
    addresses
}

/// Each kind of trouble once.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn note(&mut self, problem: String) {
        tracing::debug!("{problem}");
        if self.0.len() < MAX_PROBLEMS && !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }
}
