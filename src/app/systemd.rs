//! What the service manager is told, where one listens (sd_notify(3)): that we are ready, how it goes, that the core
//! loop turns, and that it ends.
//!
//! The core loop says it itself, so that a loop that hangs is silent and the manager's watchdog starts the program anew,
//! whatever other threads do. Ready is a loop that turns: a broker that is away is no reason to start us again, and is told
//! as our status.

use std::future::pending;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

use crate::bridge::core::Core;
use crate::bridge::plug::Availability;

/// How old a status may become.
const STATUS_APART: Duration = Duration::from_secs(5);

/// The shortest time between two words, whatever the manager expects.
const AT_LEAST: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Systemd {
    /// When it is to hear of us; `None` where nobody listens.
    ticks: Option<Interval>,
    is_ready: bool,
    status: String,
}

impl Systemd {
    /// The one that started this program, if one did and wants to hear of it.
    pub fn from_environment() -> Systemd {
        let ticks = std::env::var_os("NOTIFY_SOCKET").map(|_| {
            let watchdog = sd_notify::watchdog_enabled();
            // Twice as often as it is expected.
            let apart = watchdog.map_or(STATUS_APART, |watchdog| STATUS_APART.min(watchdog / 2));
            let mut ticks = interval(apart.max(AT_LEAST));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Systemd { ticks, is_ready: false, status: String::new() }
    }

    /// Completes when [`Systemd::hear`] is to be called: at once, and then as often as it is expected.
    pub async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => pending().await,
        }
    }

    /// Tells it that the core loop turns, and how it goes.
    pub fn hear(&mut self, core: &Core) {
        let status = status(core);
        let mut news = vec![NotifyState::Watchdog];
        if !std::mem::replace(&mut self.is_ready, true) {
            news.push(NotifyState::Ready);
        }
        if status != self.status {
            news.push(NotifyState::Status(&status));
        }
        tell(&news);
        self.status = status;
    }

    /// Tells it that the end is near, and wanted.
    pub fn farewell(&self) {
        if self.ticks.is_some() {
            tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
        }
    }
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        debug!(%error, "the service manager does not listen");
    }
}

fn status(core: &Core) -> String {
    let known = || core.fleet().plugs().filter(|(_, plug)| !plug.silent);
    let online = known().filter(|(_, plug)| plug.availability == Availability::Online).count();
    let broker =
        if core.whole().connected { "connected to the broker" } else { "no connection to the broker" };
    format!("{online} of {} plugs online, {broker}", known().count())
}
