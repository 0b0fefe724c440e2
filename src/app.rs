//! Wiring: the channels, the tasks, the core loop, and the ordered end.
//!
//! ```text
//!  plug tasks ──reports──►          ──outbox──► mqtt session ──► broker
//!       ▲                   core
//!       └─────orders──────          ◄──events── mqtt session ◄── broker
//!                         ▲ │
//!                    asks │ │ changes
//!                         │ ▼
//!                      status page
//! ```
//! Tasks and session may wait for the core; the core waits for nobody but its inboxes.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

use crate::bridge::core::Core;
use crate::bridge::message::Publish;
use crate::bridge::plug::{Entry, PlugNo, Via};
use crate::bridge::render;
use crate::bridge::topics::Topics;
use crate::broker::{self, Broker};
use crate::config::Config;
use crate::http::{self, Door, Server, process};
use crate::mqtt::connection::Will;
use crate::mqtt::session::{self, Event, Identity};
use crate::mqtt::settings::BrokerUrl;
use crate::plug::scan::found::Found;
use crate::plug::task::{Post, Report};
use crate::unique;

mod hands;
mod onlooker;
mod systemd;

use hands::Hands;
use onlooker::Onlooker;
use systemd::Systemd;

/// Messages between the core and the broker's session; few, so that the newest state is rendered late.
const OUTBOX: usize = 16;

/// Home Assistant is given between two and ten seconds to settle after its birth (homeassistant.md 1.5).
const BIRTH_DELAY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(8));

/// Where plugs are listed, the first search waits for so long.
const BEFORE_FIRST_SEARCH: Duration = Duration::from_secs(2);

/// How often the program looks at itself.
const VITALS_APART: Duration = Duration::from_secs(60);

/// Time for the last messages when the program ends.
const FAREWELL: Duration = Duration::from_millis(800);

/// How the bridge ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It was asked to start afresh, by `bridge/request/restart`.
    Restart,
}

/// Why the bridge could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The embedded broker did not start.
    #[error(transparent)]
    Broker(#[from] broker::Error),
    /// The status page did not start.
    #[error(transparent)]
    Page(#[from] http::Error),
    /// A part that runs for ever has ended; the service manager is to start us again.
    #[error("{0} ended unasked")]
    Worker(&'static str),
    /// A part panicked.
    #[error("a worker failed: {0}")]
    Panicked(#[from] JoinError),
}

/// Runs the bridge until `shutdown` completes, somebody asks for a restart, or a part of it fails. `since` is just before
/// the runtime was built, which is when its timers began ([`Steps`](crate::steps::Steps)).
pub async fn run(
    config: &Config,
    since: Instant,
    shutdown: impl Future<Output = ()>,
) -> Result<Ended, Error> {
    let door = Door::open(&config.http)?;
    run_behind(door, config, since, shutdown).await
}

/// The same with a status page whose address is taken already, or with none.
///
/// # Errors
/// As [`run`].
pub async fn run_behind(
    door: Option<Door>,
    config: &Config,
    since: Instant,
    shutdown: impl Future<Output = ()>,
) -> Result<Ended, Error> {
    let (mut broker, urls) = broker(config).await?;
    let started = SystemTime::now();
    let (mut page, ends) = door.map(|door| door.serve(started)).transpose()?.unzip();
    let ended = tokio::select! {
        ended = bridge(config, urls, since, started, Onlooker::new(ends), shutdown) => ended,
        () = broker_ended(&mut broker) => Err(Error::Worker("the embedded broker")),
        () = page_ended(&mut page) => Err(Error::Worker("the status page")),
    };
    if let Some(page) = page {
        page.stop().await;
    }
    if let Some(broker) = broker {
        broker.stop().await;
    }
    ended
}

async fn broker(config: &Config) -> Result<(Option<Broker>, Vec<BrokerUrl>), Error> {
    let urls = config.mqtt.brokers();
    if !urls.is_empty() {
        return Ok((None, urls));
    }
    let broker = Broker::start(config.broker.clone()).await?;
    let address = broker.address();
    Ok((Some(broker), vec![BrokerUrl { tls: false, host: address.ip().to_string(), port: address.port() }]))
}

async fn broker_ended(broker: &mut Option<Broker>) {
    match broker {
        Some(broker) => broker.ended().await,
        None => std::future::pending().await,
    }
}

async fn page_ended(page: &mut Option<Server>) {
    match page {
        Some(page) => page.ended().await,
        None => std::future::pending().await,
    }
}

/// The channels' ends that the core loop holds.
struct Ends {
    reports: mpsc::Receiver<Report<PlugNo>>,
    events: mpsc::Receiver<Event>,
    outbox: mpsc::Sender<Publish>,
    finds: mpsc::Receiver<Found>,
}

async fn bridge(
    config: &Config,
    urls: Vec<BrokerUrl>,
    since: Instant,
    started_at: SystemTime,
    mut onlooker: Onlooker,
    shutdown: impl Future<Output = ()>,
) -> Result<Ended, Error> {
    let topics = Topics::new(&config.mqtt.base_topic, &config.homeassistant.prefix).of(config.shard);
    let will = Will { topic: topics.bridge_state(), payload: "offline" };
    let filters = topics.filters();
    let client_id = config.mqtt.client_id.clone().unwrap_or_else(unique::client_id);
    let memory_filters = topics.memory_filters();
    let started = Instant::now();
    // Hosts that are listed are met as such, before a search finds them.
    let first_search = if config.plug.is_empty() { started } else { started + BEFORE_FIRST_SEARCH };
    let mut core = Core::new(settings(config, topics, started_at), first_search);
    core.began(started);
    if onlooker.is_there() {
        core.watch();
    }
    for plug in &config.plug {
        core.add_plug(Entry {
            address: plug.host.clone(),
            mac: plug.mac,
            name: plug.name.clone(),
            interval: plug.interval,
            via: Via::Config,
        });
    }

    let (report_sender, reports) = mpsc::channel(1024);
    let (find_sender, finds) = mpsc::channel(64);
    let mut hands = Hands::new(config, since, report_sender, find_sender);

    let (outbox, outbox_receiver) = mpsc::channel(OUTBOX);
    let (event_sender, events) = mpsc::channel(256);
    let identity = Identity { client_id, will: Some(will), filters, memory_filters };
    let mut session =
        pin!(session::run(config.client(), urls, identity, outbox_receiver, event_sender, since));

    let mut ends = Ends { reports, events, outbox, finds };
    let mut systemd = Systemd::from_environment();
    info!(plugs = core.fleet().len(), "kasa2mqtt {} is running", env!("CARGO_PKG_VERSION"));
    if config.plug.is_empty() && !config.scan.enabled {
        warn!(
            "no plugs are configured: add a [[plug]] with its host for each, or let scan.enabled find them"
        );
    }
    let ended = tokio::select! {
        ended = serve(&mut core, &mut ends, &mut hands, &mut onlooker, &mut systemd, shutdown) => ended?,
        () = &mut session => return Err(Error::Worker("the broker's session")),
    };
    if ended == Ended::Stopped {
        systemd.farewell();
    }
    core.stop(Instant::now());
    onlooker.leave(&mut core);
    drop(hands);
    let farewell = async {
        tokio::select! {
            () = say_goodbye(&mut core, &mut ends) => {}
            () = &mut session => return,
        }
        // Ends the session, once everything in it was said.
        drop(ends);
        session.await;
    };
    let _ = timeout(FAREWELL, farewell).await;
    Ok(ended)
}

fn settings(config: &Config, topics: Topics, started: SystemTime) -> render::Settings {
    let summary = json!({
        "base_topic": config.mqtt.base_topic,
        "discovery": config.homeassistant.discovery,
        "discovery_prefix": config.homeassistant.prefix,
        "poll_interval": humantime::format_duration(config.poll.interval).to_string(),
        "plugs": config.plug.len(),
    });
    render::Settings {
        topics,
        homeassistant: config.homeassistant.clone(),
        heartbeat: Some(config.publish.heartbeat).filter(|heartbeat| !heartbeat.is_zero()),
        command_ttl: config.commands.ttl,
        adopt: config.scan.adopt,
        search: config.scan.enabled.then_some(config.scan.interval),
        follow_alias: config.publish.follow_alias,
        instance: unique::name(),
        raw: config.commands.raw,
        destructive: config.commands.destructive.clone(),
        summary,
        started,
    }
}

/// The core loop.
async fn serve(
    core: &mut Core,
    ends: &mut Ends,
    hands: &mut Hands,
    onlooker: &mut Onlooker,
    systemd: &mut Systemd,
    shutdown: impl Future<Output = ()>,
) -> Result<Ended, Error> {
    let mut shutdown = pin!(shutdown);
    let started = Instant::now();
    let mut vitals = tokio::time::interval(VITALS_APART);
    let changes = onlooker.changes.clone();
    loop {
        while let Some(wish) = core.next_wish() {
            hands.grant(wish);
        }
        while let Some((no, order)) = core.next_order() {
            hands.post(no, Post::Order(Box::new(order)));
        }
        onlooker.turn(core);
        if core.restart_requested() {
            return Ok(Ended::Restart);
        }
        let wake = core.wake_at().map(tokio::time::Instant::from_std);
        tokio::select! {
            () = &mut shutdown => return Ok(Ended::Stopped),
            Some(ended) = hands.plugs.join_next() => {
                // One that was told to end has no inbox any more.
                if hands.inboxes.contains_key(&ended?) {
                    return Err(Error::Worker("a plug's task"));
                }
            }
            Some(event) = ends.events.recv() => follow(core, event),
            Some(report) = ends.reports.recv() => core.report(Instant::now(), report),
            Some(found) = ends.finds.recv() => core.found(Instant::now(), &found),
            Some(searched) = hands.searching.join_next() => {
                while let Ok(found) = ends.finds.try_recv() {
                    core.found(Instant::now(), &found);
                }
                if let Err(error) = searched? {
                    warn!(%error, "the network cannot be searched");
                }
                core.searched(Instant::now());
            }
            Ok(permit) = ends.outbox.reserve(), if core.has_something_to_say() => {
                if let Some(publish) = core.next_publish(Instant::now()) {
                    permit.send(publish);
                }
            }
            Some(ask) = onlooker.asks.recv() => onlooker.follow(core, ask),
            Ok(permit) = changes.reserve(), if core.has_changes() => onlooker::show(core, &changes, permit),
            () = systemd.due() => systemd.hear(core),
            _ = vitals.tick() => core.vitals(started.elapsed(), process::resident_memory()),
            () = sleep_until(wake.unwrap_or_else(tokio::time::Instant::now)), if wake.is_some() => {
                core.wake(Instant::now());
            }
        }
    }
}

fn follow(core: &mut Core, event: Event) {
    let now = Instant::now();
    match event {
        Event::Opened => core.session_opened(now, SystemTime::now()),
        Event::Lost => core.session_lost(),
        Event::StoodStill => core.stood_still(now),
        Event::Acknowledged(ticket) => {
            core.heard(now);
            core.acknowledged(ticket);
        }
        Event::Message(message) => {
            let delay = BIRTH_DELAY.0 + BIRTH_DELAY.1.mul_f64(fastrand::f64());
            core.message(now, message, delay);
        }
    }
}

/// Answers what is unanswered and publishes `offline`.
async fn say_goodbye(core: &mut Core, ends: &mut Ends) {
    while !core.has_said_all() {
        tokio::select! {
            Some(event) = ends.events.recv() => match event {
                // Nothing is begun any more.
                Event::Message(_) => {}
                event => follow(core, event),
            },
            Ok(permit) = ends.outbox.reserve(), if core.has_something_to_say() => {
                if let Some(publish) = core.next_publish(Instant::now()) {
                    permit.send(publish);
                }
            }
            else => return,
        }
    }
}
