//! One of several bridges that share the plugs: which plugs are served here, and what becomes of those that are not.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use humantime::format_rfc3339_millis;
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::bridge::message::Message;
use crate::bridge::peers::Peers;
use crate::bridge::plug::{Entry, PlugNo};
use crate::bridge::request::{self, Request};
use crate::bridge::retained::{Owner, Role};
use crate::bridge::shard::Shard;
use crate::bridge::topics::Incoming;
use crate::plug::mac::Mac;
use crate::plug::task::{Event, Report};

use super::{Core, Wish};

/// Plugs that are named where two shards claim them.
const NAMED: usize = 10;

/// What a shard knows beside its plugs.
#[derive(Debug)]
pub(super) struct Shards {
    pub peers: Peers,
    /// Plugs that are ours and that another shard still serves.
    aside: BTreeMap<Mac, Entry>,
    /// A bridge without shards was here before, and has gone.
    follows: bool,
}

impl Shards {
    pub fn new(own: Shard) -> Shards {
        Shards { peers: Peers::new(own), aside: BTreeMap::new(), follows: false }
    }
}

impl Core {
    /// Which of several bridges this one is.
    pub(super) fn shard(&self) -> Option<Shard> {
        self.shards.as_ref().map(|shards| shards.peers.own())
    }

    /// Whether a plug is ours. Without shards every plug is.
    pub(super) fn owns(&self, mac: Mac) -> bool {
        self.shard().is_none_or(|shard| shard.owns(mac))
    }

    fn serves(&self, mac: Mac) -> bool {
        self.shards.as_ref().is_none_or(|shards| shards.peers.serves(mac))
    }

    /// Whether a plug that is new here is to be served. One that is ours, and that another shard has, is kept in mind.
    pub(super) fn takes(&mut self, entry: &Entry) -> bool {
        let Some(mac) = entry.mac else { return true };
        let takes = self.serves(mac);
        if !takes && self.owns(mac) {
            self.put_aside(mac, entry.clone());
        }
        takes
    }

    /// Whether a plug is ours that another shard serves.
    pub(super) fn is_aside(&self, mac: Mac) -> bool {
        self.shards.as_ref().is_some_and(|shards| shards.aside.contains_key(&mac))
    }

    /// Plugs that nobody lists any more are not waited for.
    pub(super) fn forget_aside(&mut self, macs: &[Mac]) {
        if let Some(shards) = &mut self.shards {
            shards.aside.retain(|mac, _| !macs.contains(mac));
        }
    }

    fn put_aside(&mut self, mac: Mac, entry: Entry) {
        if let Some(shards) = &mut self.shards {
            shards.aside.insert(mac, entry);
        }
    }

    /// Adds a plug of which the configuration knows only the host. Until it has said who it is, one shard speaks for it,
    /// and the others are silent.
    pub(super) fn add_unknown(&mut self, entry: Entry) -> PlugNo {
        let host = entry.address.as_ref().map(ToString::to_string).unwrap_or_default();
        let is_silent = entry.mac.is_none() && self.shard().is_some_and(|shard| !shard.speaks_for(&host));
        if is_silent { self.fleet.add_silent(entry) } else { self.fleet.add(entry) }
    }

    /// Whether a report comes from a plug that is another shard's, which is left alone from now on.
    pub(super) fn is_of_another(&mut self, now: Instant, report: &Report<PlugNo>) -> bool {
        let reading = match &report.event {
            Event::Polled(Ok(reading)) => Some(reading),
            Event::Done { reading, .. } => reading.as_ref(),
            Event::Polled(Err(_)) => None,
        };
        let Some(mac) = reading.map(|reading| reading.mac).filter(|mac| !self.serves(*mac)) else {
            return false;
        };
        debug!(%mac, "plug of another shard");
        self.let_go(now, report.plug, mac);
        true
    }

    /// The plug is another shard's from now on: it is not polled any more, and what is retained of it stays.
    fn let_go(&mut self, now: Instant, no: PlugNo, mac: Mac) {
        let Some(mut plug) = self.fleet.remove(no) else { return };
        for (command, failure) in plug.queue.drain("another shard serves the plug from now on") {
            self.finish_for(now, plug.called().as_deref(), &command, Err(failure));
        }
        self.wishes.push_back(Wish::End(no));
        self.show(no);
        for topic in self.projection.topics(Owner::Plug(no), Role::Discovery) {
            self.retirement.forget(&topic);
        }
        self.described.remove(&no);
        self.projection.let_go(Owner::Plug(no));
        let projection = &self.projection;
        self.ready.retain(|publish| projection.expects(publish.ticket));
        if self.owns(mac) {
            if let Some(name) = &plug.name {
                self.fleet.remember(mac, name);
            }
            self.put_aside(mac, Entry { mac: Some(mac), ..plug.entry });
        }
        self.list(now);
    }

    /// Plugs change hands, after something was heard of another shard.
    pub(super) fn reconsider(&mut self, now: Instant) {
        self.forget_superfluous();
        let known = self.fleet.plugs().filter_map(|(no, plug)| Some((no, plug.mac?)));
        let leaving: Vec<(PlugNo, Mac)> = known.filter(|(_, mac)| !self.serves(*mac)).collect();
        let Some(shards) = &mut self.shards else { return };
        let peers = &shards.peers;
        let coming: Vec<(Mac, Entry)> = shards.aside.extract_if(.., |mac, _| peers.serves(*mac)).collect();
        if !(leaving.is_empty() && coming.is_empty()) {
            info!(gone = leaving.len(), come = coming.len(), "plugs change shards");
        }
        for (no, mac) in leaving {
            self.let_go(now, no, mac);
        }
        for (mac, entry) in coming {
            if self.fleet.find(&mac.hex()).is_none() {
                let no = self.fleet.add(entry);
                self.fleet.believe(no, mac);
                self.run(no);
            }
        }
        self.list(now);
        // Whom we give way to.
        self.projection.mark(Owner::Bridge, true);
    }

    /// Another shard tells of itself.
    pub(super) fn heard_of_shard(&mut self, now: Instant, said: Incoming<'_>, message: &Message) {
        let Some(shards) = &mut self.shards else { return };
        let changed = match said {
            Incoming::PeerInfo(number) => {
                shards.peers.info(number, &serde_json::from_slice(&message.payload).unwrap_or_default())
            }
            Incoming::PeerState(number) => {
                shards.peers.state(number, message.payload == b"online", !message.retain)
            }
            Incoming::FormerState => {
                shards.follows = message.payload == b"offline";
                false
            }
            _ => false,
        };
        if changed {
            self.tell_of_disagreement();
            // Before the first session is open the others are still being heard of.
            if self.memory.is_none() {
                self.reconsider(now);
            }
        }
    }

    /// A node of a cluster that dies takes with it the commands that it had for us, and our will. Whoever sent one
    /// meanwhile learns that it was not heard.
    pub(super) fn tell_of_absence(&mut self, now: Instant, wall: SystemTime) {
        if self.shards.is_some() && self.vitals.sessions > 1 {
            let since = wall - now.saturating_duration_since(self.heard_at);
            // A clock that was never set shows less than the time that has passed.
            let shown = |at: SystemTime| format_rfc3339_millis(at.max(SystemTime::UNIX_EPOCH)).to_string();
            self.tell_of(json!({"type": "away", "from": shown(since), "to": shown(wall)}));
        }
    }

    /// Tells, once for each, of shards that count differently; and once more when the first plugs are known that both
    /// claim, as when all of them are listed by host or are still to be found.
    pub(super) fn tell_of_disagreement(&mut self) {
        let Some(shards) = &self.shards else { return };
        let own = shards.peers.own();
        for other in shards.peers.disagreeing().collect::<Vec<_>>() {
            let aside = self.shards.iter().flat_map(|shards| shards.aside.keys().copied());
            let known = self.fleet.plugs().filter_map(|(_, plug)| plug.mac).chain(aside);
            let both = known.filter(|mac| own.owns(*mac) && other.owns(*mac));
            let both: Vec<String> = both.map(|mac| mac.hex()).collect();
            if self.warned.len() >= super::commands::WARNED_TOPICS {
                return;
            }
            let is_new = self.warned.insert(format!("shard {other}"));
            let has_names = !both.is_empty() && self.warned.insert(format!("plugs of shard {other}"));
            if !(is_new || has_names) {
                continue;
            }
            warn!(
                shard = %own, %other, plugs = both.len(), first = both.first(),
                "another shard counts differently: the one that counts fewer serves what both claim"
            );
            let ids: Vec<&String> = both.iter().take(NAMED).collect();
            self.tell_of(json!({"type": "shards_disagree", "shard": own.to_string(),
                "other": other.to_string(), "plugs": both.len(), "ids": ids}));
        }
    }

    /// The first shard clears what those left that are not counted any more.
    fn forget_superfluous(&mut self) {
        let Some(shards) = self.shards.as_ref().filter(|shards| shards.peers.own().number == 1) else {
            return;
        };
        let former = shards.follows.then_some(None);
        for number in shards.peers.superfluous().into_iter().map(Some).chain(former) {
            for topic in self.settings.topics.of_shard(number) {
                self.projection.adopt(Owner::Bridge, Role::State, topic);
            }
        }
        self.projection.mark(Owner::Bridge, false);
    }

    /// Whether another shard answers this request: the one that has the plug. What names none, and should, is answered by
    /// the first; a MAC that nobody has, by its owner.
    pub(super) fn is_for_another(&self, topic: &str, request: &Result<Request, String>) -> bool {
        let Some(shard) = self.shard().filter(|_| topic.starts_with(request::OF_PLUG)) else { return false };
        let Ok(request) = request else { return shard.number != 1 };
        let Some(device) = request.device() else { return false };
        let is_here = self.fleet.find(device).is_some();
        !is_here && !device.parse().is_ok_and(|mac| self.serves(mac))
    }

    /// What `bridge/info` says of it.
    pub(super) fn shard_summary(&self) -> Option<Value> {
        let peers = &self.shards.as_ref()?.peers;
        let yields_to: Vec<String> = peers.yields_to().iter().map(Shard::to_string).collect();
        Some(json!({"shard": peers.own().to_string(), "yields_to": yields_to}))
    }
}
