//! The task that owns a simulated plug; everybody else asks it. Time passes here, and everything is counted.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::behaviour::{Behaviour, Klap, Reply};
use super::klap::{self, Peer, Post};
use super::plug::{Answer, SimPlug, Way};

/// How many requests are remembered.
const LOG: usize = 4096;

/// Time in which a plug with a budget takes so many requests. The real one is not known (protocol.md 1.4).
const BUDGET_TIME: Duration = Duration::from_secs(10);

/// How long a plug is away that its watchdog restarted (protocol.md 9: less than a minute).
const AWAY: Duration = Duration::from_secs(30);

/// What some firmware sends instead of a reply. Its length is that of no reply either.
const HTML: &str = "<html><body>Bad request</body></html>";

/// What a simulated plug has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// TCP connections taken.
    pub connections: u64,
    /// Requests, by TCP and UDP.
    pub requests: u64,
    /// Commands to relays.
    pub relay_commands: u64,
    /// Restarts, wanted or not.
    pub reboots: u64,
    /// First handshakes of KLAP.
    pub handshakes: u64,
    /// Requests of KLAP that belonged to no session: 403.
    pub forbidden: u64,
}

pub(super) enum Ask {
    Request(Vec<u8>, Way, oneshot::Sender<Option<String>>),
    Post(Post, oneshot::Sender<Option<klap::Answer>>),
    Connected,
    Press(usize, bool),
    Look(oneshot::Sender<SimPlug>),
    Log(oneshot::Sender<Vec<String>>),
    Watch(mpsc::UnboundedSender<String>),
    Behave(Behaviour),
    Change(Box<dyn FnOnce(&mut SimPlug) + Send>),
}

/// What connections must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    pub behaviour: Behaviour,
    /// Restarts so far: no connection outlives one.
    pub number: u64,
    /// It is restarting.
    away: bool,
}

impl Life {
    pub fn speaks_xor(&self) -> bool {
        self.behaviour.klap.is_none()
    }

    pub fn speaks_klap(&self) -> bool {
        self.behaviour.klap.is_some()
    }

    pub fn is_deaf(&self) -> bool {
        self.away || self.behaviour.deaf
    }
}

/// The one task that has the plug.
pub(super) struct Host {
    plug: SimPlug,
    /// Made when it is first spoken to.
    klap: Option<Peer>,
    /// When its session is over.
    session_ends: Option<Duration>,
    life: watch::Sender<Life>,
    counts: watch::Sender<Counts>,
    relay: watch::Sender<bool>,
    log: VecDeque<String>,
    /// Who is told of every request.
    watcher: Option<mpsc::UnboundedSender<String>>,
    /// When the last requests came, as far as the budget cares.
    recent: VecDeque<Duration>,
    restart_at: Option<Duration>,
    back_at: Option<Duration>,
    watchdog: Option<Duration>,
    toggle: Option<Duration>,
    /// What it speaks again when port 9999 closes.
    klap_then: Option<Klap>,
    /// One moment by both clocks, so that time never jumps.
    origin: (Instant, Duration),
}

impl Host {
    /// Has this plug, at so much time since 1970; from then on time passes as the runtime's does.
    pub(super) fn new(plug: SimPlug, wall: Duration) -> Host {
        Host {
            life: watch::Sender::new(Life { behaviour: plug.behaviour.clone(), number: 0, away: false }),
            counts: watch::Sender::new(Counts::default()),
            relay: watch::Sender::new(plug.relay()),
            plug,
            klap: None,
            session_ends: None,
            log: VecDeque::new(),
            watcher: None,
            recent: VecDeque::new(),
            restart_at: None,
            back_at: None,
            watchdog: None,
            toggle: None,
            klap_then: None,
            origin: (Instant::now(), wall),
        }
    }

    pub(super) fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    pub(super) fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    pub(super) fn relay(&self) -> watch::Receiver<bool> {
        self.relay.subscribe()
    }

    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        loop {
            let due = self.pass_time();
            tokio::select! {
                ask = inbox.recv() => match ask {
                    Some(ask) => self.heard(ask),
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.origin.1 + self.origin.0.elapsed()
    }

    /// Does all that is due and tells when something is due next.
    fn pass_time(&mut self) -> Option<Instant> {
        let now = self.now();
        if recurs(&mut self.watchdog, self.plug.behaviour.watchdog, now) {
            self.leave(now, AWAY);
        }
        if recurs(&mut self.toggle, self.plug.behaviour.toggles, now) {
            self.open_or_close();
        }
        if self.restart_at.take_if(|at| *at <= now).is_some() {
            self.leave(now, self.plug.behaviour.boot);
        }
        if self.back_at.take_if(|at| *at <= now).is_some() {
            self.plug.restart(now);
            self.life.send_modify(|life| life.away = false);
        }
        self.plug.advance(now);
        self.show_relay();
        let due = [self.plug.next_event(), self.restart_at, self.back_at, self.watchdog, self.toggle];
        let due = due.into_iter().flatten().min()?;
        Some(self.origin.0 + due.saturating_sub(self.origin.1))
    }

    /// Drops every connection and is back after `time`.
    fn leave(&mut self, now: Duration, time: Duration) {
        self.klap = None;
        self.counts.send_modify(|counts| counts.reboots += 1);
        if time.is_zero() {
            self.plug.restart(now);
        } else {
            self.back_at = Some(now + time);
        }
        self.life.send_modify(|life| {
            life.number += 1;
            life.away = !time.is_zero();
        });
    }

    /// Port 9999 opens, or closes again.
    fn open_or_close(&mut self) {
        let klap = std::mem::replace(&mut self.klap_then, self.plug.behaviour.klap);
        self.behave(Behaviour { klap, ..self.plug.behaviour.clone() });
    }

    fn behave(&mut self, behaviour: Behaviour) {
        let before = &self.plug.behaviour;
        if (before.klap, &before.account) != (behaviour.klap, &behaviour.account) {
            self.klap = None;
        }
        self.plug.behaviour = behaviour.clone();
        self.life.send_modify(|life| life.behaviour = behaviour);
    }

    fn heard(&mut self, ask: Ask) {
        let now = self.now();
        match ask {
            Ask::Connected => self.counts.send_modify(|counts| counts.connections += 1),
            Ask::Press(index, on) => self.plug.switch_outlet(index, on, now),
            Ask::Behave(behaviour) => self.behave(behaviour),
            Ask::Change(change) => change(&mut self.plug),
            // Whoever asked may be gone.
            Ask::Look(reply) => drop(reply.send(self.plug.clone())),
            Ask::Watch(watcher) => self.watcher = Some(watcher),
            Ask::Log(reply) => drop(reply.send(self.log.iter().cloned().collect())),
            Ask::Post(post, reply) => drop(reply.send(self.post(&post, now))),
            Ask::Request(request, way, reply) => drop(reply.send(self.request(&request, way, now))),
        }
    }

    /// What the HTTP server answers; nothing where a plug answers nothing.
    fn post(&mut self, post: &Post, now: Duration) -> Option<klap::Answer> {
        let behaviour = self.plug.behaviour.clone();
        let version = behaviour.klap.unwrap_or(Klap::First);
        let new = || Peer::new(version, behaviour.account.as_deref()).lasting(behaviour.session_life);
        let peer = self.klap.get_or_insert_with(new);
        if self.session_ends.take_if(|ends| *ends <= now).is_some() {
            peer.forget();
        }
        match post.path.as_str() {
            "/app/handshake1" => {
                self.counts.send_modify(|counts| counts.handshakes += 1);
                self.session_ends = Some(now + peer.life());
                Some(peer.greet(&post.body, std::array::from_fn(|_| fastrand::u8(..)), fastrand::u64(..)))
            }
            "/app/handshake2" => Some(peer.confirm(post.cookie.as_deref(), &post.body)),
            "/app/request" => {
                let Some(request) = peer.open(post) else {
                    self.counts.send_modify(|counts| counts.forbidden += 1);
                    return Some(klap::Answer::new(403, ""));
                };
                if behaviour.html_above.is_some_and(|limit| request.len() > limit) {
                    return Some(klap::Answer::new(200, HTML));
                }
                let reply = self.request(&request, Way::Tcp, now)?;
                let reply = match behaviour.reply {
                    Reply::Rubbish => "\0 not JSON {".into(),
                    Reply::Deep => "[".repeat(10_000),
                    _ => reply,
                };
                // Gone where it restarted.
                let peer = self.klap.as_mut()?;
                let body = peer.seal(reply.as_bytes());
                if behaviour.forgets {
                    peer.forget();
                }
                Some(klap::Answer::new(200, body))
            }
            _ => Some(klap::Answer::new(404, HTML)),
        }
    }

    fn request(&mut self, request: &[u8], way: Way, now: Duration) -> Option<String> {
        let text = String::from_utf8_lossy(request).into_owned();
        if let Some(watcher) = &self.watcher {
            // Who does not watch any more has gone.
            let _ = watcher.send(text.clone());
        }
        self.log.push_back(text);
        if self.log.len() > LOG {
            self.log.pop_front();
        }
        let ignored = self.life.borrow().is_deaf()
            || self.is_over_budget(now)
            || self.plug.behaviour.reply == Reply::Silence;
        let mut answer = Answer::default();
        if !ignored {
            answer = self.plug.answer(request, way, now);
        }
        // The relay first: who awaits the counts shall find the relay switched.
        self.show_relay();
        self.counts.send_modify(|counts| {
            counts.requests += 1;
            counts.relay_commands += answer.relay_commands;
        });
        // Told to restart at once, a plug is gone before it has replied (protocol.md 2.1).
        match answer.restart {
            Some(delay) if delay.is_zero() => {
                self.leave(now, self.plug.behaviour.boot);
                return None;
            }
            Some(delay) => self.restart_at = Some(now + delay),
            None => {}
        }
        answer.reply
    }

    fn is_over_budget(&mut self, now: Duration) -> bool {
        let Some(budget) = self.plug.behaviour.budget else { return false };
        self.recent.retain(|at| *at + BUDGET_TIME > now);
        let over = self.recent.len() >= budget;
        if !over {
            self.recent.push_back(now);
        }
        over
    }

    fn show_relay(&self) {
        let on = self.plug.relay();
        self.relay.send_if_modified(|shown| std::mem::replace(shown, on) != on);
    }
}

/// Whether it is time again for what happens `every` so often; `at` is when it happens next.
fn recurs(at: &mut Option<Duration>, every: Option<Duration>, now: Duration) -> bool {
    let is_due = every.is_some() && at.is_some_and(|at| at <= now);
    *at = every.map(|every| at.filter(|_| !is_due).unwrap_or(now + every));
    is_due
}

/// The reply to a request; `None` where there is none.
pub(super) async fn ask(asks: &mpsc::Sender<Ask>, request: Vec<u8>, way: Way) -> Option<String> {
    let (sender, receiver) = oneshot::channel();
    asks.send(Ask::Request(request, way, sender)).await.ok()?;
    receiver.await.ok()?
}
