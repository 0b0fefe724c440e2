//! What the core's wishes move: the plugs' tasks, and the search of the network.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::bridge::core::Wish;
use crate::bridge::plug::PlugNo;
use crate::config::Config;
use crate::descriptors;
use crate::plug::clock::Keeper;
use crate::plug::link::Access;
use crate::plug::mac::Mac;
use crate::plug::owner::{self, Wall};
use crate::plug::scan;
use crate::plug::scan::found::Found;
use crate::plug::schedule;
use crate::plug::settings::{HostPort, Plug, Poll};
use crate::plug::task::{self, Post, Report};

/// First polls are spread over this much time for each plug, but over no more than one interval.
const FIRST_POLLS_APART: Duration = Duration::from_millis(1);

/// What the core's wishes move: the plugs' tasks, and the search.
pub(super) struct Hands {
    poll: Poll,
    access: Access,
    /// Plugs with an account of their own.
    exceptions: Vec<Plug>,
    keeper: Arc<Keeper>,
    wall: Wall,
    search: scan::Options,
    /// First polls come at a random moment within this time.
    spread: Duration,
    /// When timers began.
    since: Instant,
    /// Plugs of the configuration.
    count: usize,
    reports: mpsc::Sender<Report<PlugNo>>,
    finds: mpsc::Sender<Found>,
    pub inboxes: HashMap<PlugNo, mpsc::Sender<Post>>,
    pub plugs: JoinSet<PlugNo>,
    pub searching: JoinSet<std::io::Result<scan::Scan>>,
}

impl Hands {
    pub fn new(
        config: &Config,
        since: Instant,
        reports: mpsc::Sender<Report<PlugNo>>,
        finds: mpsc::Sender<Found>,
    ) -> Hands {
        let count = config.plug.len();
        Hands {
            poll: config.poll.clone(),
            access: Access {
                accounts: [config.kasa.clone()].into(),
                ports: config.ports,
                room: Arc::new(descriptors::room()),
            },
            exceptions: config.plug.iter().filter(|plug| plug.account().is_given()).cloned().collect(),
            keeper: Arc::new(config.clock.keeper()),
            wall: Arc::new(SystemTime::now),
            search: scan::Options {
                broadcast: config.scan.targets.is_empty(),
                targets: config.scan.targets.clone(),
                power: false,
                ports: scan::Ports {
                    discovery: config.ports.discovery,
                    http: config.ports.http,
                    ..scan::Ports::default()
                },
                ..scan::Options::default()
            },
            spread: FIRST_POLLS_APART.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)),
            since,
            count,
            reports,
            finds,
            inboxes: HashMap::new(),
            plugs: JoinSet::new(),
            searching: JoinSet::new(),
        }
    }

    pub fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Run { no, address, mac, interval } => {
                let interval = interval.unwrap_or(self.poll.interval);
                let access = self.access(&address, mac);
                let count = self.count.max(self.inboxes.len() + 1);
                let settings = owner::Settings {
                    host: address.host,
                    port: address.port,
                    access,
                    mac,
                    interval,
                    energy_interval: self.poll.energy_interval,
                    timeout: self.poll.timeout,
                    first_poll: self.spread.min(interval).mul_f64(fastrand::f64()),
                    steps: schedule::steps(self.since, count, interval),
                    keeper: Arc::clone(&self.keeper),
                    wall: Arc::clone(&self.wall),
                };
                // One order and one move are on their way to a plug at any time.
                let (inbox, posts) = mpsc::channel(2);
                self.inboxes.insert(no, inbox);
                self.plugs.spawn(task::run(no, settings, posts, self.reports.clone()));
            }
            Wish::Move(no, to) => self.post(no, Post::Move(Box::new(to))),
            Wish::End(no) => drop(self.inboxes.remove(&no)),
            Wish::Search => {
                let (options, finds) = (self.search.clone(), self.finds.clone());
                self.searching.spawn(async move { scan::scan(&options, finds).await });
            }
        }
    }

    /// What it takes to reach the plug with this MAC or at this address.
    fn access(&self, address: &HostPort, mac: Option<Mac>) -> Access {
        let is_meant = |plug: &&Plug| match plug.mac {
            Some(listed) => Some(listed) == mac,
            None => plug.host.as_ref() == Some(address),
        };
        let mut access = self.access.clone();
        if let Some(plug) = self.exceptions.iter().find(is_meant) {
            // A plug of somebody else's that was set up anew may be one of ours.
            access.accounts = [plug.account()].into_iter().chain(access.accounts.iter().cloned()).collect();
        }
        access
    }

    pub fn post(&self, no: PlugNo, post: Post) {
        if let Some(inbox) = self.inboxes.get(&no) {
            // Cannot be full, and when it is closed its task has ended, which the core loop hears of.
            let _ = inbox.try_send(post);
        }
    }
}
