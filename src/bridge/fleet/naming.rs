//! Who a plug is, and what it is called in topics: a configured name, a remembered one, its alias, or its MAC.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::bridge::event::Event;
use crate::bridge::names;
use crate::bridge::plug::{Outcome, PlugNo, Via};
use crate::plug::mac::Mac;
use crate::plug::reading::Reading;

use super::Fleet;

/// A name that was made of an alias may still be given to another plug for so long after the first of them answered:
/// in which order plugs answer is chance.
const SETTLING: Duration = Duration::from_secs(60);

impl Fleet {
    /// An earlier bridge knew a plug by this name.
    pub fn remember(&mut self, mac: Mac, name: &str) {
        self.remembered.insert(mac, name.into());
    }

    /// A plug that has not answered yet is believed to be the one that an earlier bridge met at its address.
    pub fn believe(&mut self, no: PlugNo, mac: Mac) {
        let name = self.remembered.get(&mac).filter(|name| !self.by_name.contains_key(*name)).cloned();
        let Some(plug) = self.plugs.get_mut(&no).filter(|plug| !plug.met) else { return };
        plug.mac = Some(mac);
        plug.silent = false;
        let name = plug.entry.name.clone().or(name);
        self.by_name.insert(mac.hex(), no);
        if plug.name.is_none()
            && let Some(name) = name
        {
            plug.name = Some(name.clone());
            self.by_name.insert(name, no);
        }
    }

    /// A plug that answered before an earlier bridge's memory came has the name that it had then.
    pub fn recall_name(&mut self, no: PlugNo) {
        let Some(plug) = self.plugs.get(&no).filter(|plug| plug.named_at.is_some()) else { return };
        let remembered = plug.mac.and_then(|mac| self.remembered.get(&mac));
        let free = |name: &&String| !self.by_name.contains_key(*name);
        if let Some(name) = remembered.filter(free).cloned() {
            self.rename(no, &name);
        }
    }

    /// Gives a plug another name; the caller has made sure that it is free.
    pub fn rename(&mut self, no: PlugNo, to: &str) -> Outcome {
        let Some(plug) = self.plugs.get_mut(&no) else { return Outcome::default() };
        let from = plug.name.replace(to.into());
        plug.named_at = None;
        if let Some(from) = &from {
            self.by_name.remove(from);
        }
        self.by_name.insert(to.into(), no);
        if let Some(mac) = plug.mac {
            // It may have been its name.
            self.by_name.insert(mac.hex(), no);
            self.remembered.insert(mac, to.into());
        }
        info!(from, to, "plug renamed");
        let events = from.map(|from| Event::Renamed { from, to: to.into() }).into_iter().collect();
        Outcome { changed: true, listed: true, named: Some(to.into()), events, ..Outcome::default() }
    }

    /// The first reading of a plug: learns its identity and gives it a name. False for a plug that another entry owns.
    pub(super) fn meet(&mut self, no: PlugNo, reading: &Reading, at: Instant, outcome: &mut Outcome) -> bool {
        let id = reading.mac.hex();
        let mut owner = self.find(&id).filter(|owner| *owner != no);
        if let Some(found) = owner
            && self.plug(found).entry.via == Via::Scan
            && self.plug(no).entry.via == Via::Config
        {
            // A search was quicker than the host that is listed.
            let queue = self
                .remove(found)
                .map(|plug| plug.queue)
                .unwrap_or_default()
                .drain("the plug is listed, too");
            outcome.ended.extend(queue.into_iter().map(|(command, failure)| (command, Err(failure))));
            outcome.absorbed = Some(found);
            owner = None;
        }
        if let Some(owner) = owner {
            let other = self.plug(owner);
            let trouble = format!("it is the same plug as {}", other.address);
            let plug = self.plug_mut(no);
            if plug.trouble.as_ref() != Some(&trouble) {
                warn!(address = plug.address, mac = %reading.mac, "plug ignored: {trouble}");
                plug.trouble = Some(trouble);
            }
            return false;
        }
        // The one that an earlier bridge met here has gone.
        if self.plug(no).mac.is_some_and(|believed| believed != reading.mac) {
            self.by_name.retain(|_, owner| *owner != no);
            let plug = self.plug_mut(no);
            plug.name = plug.entry.name.clone();
        }
        let known = self.plug(no).name.clone().or_else(|| self.plug(no).entry.name.clone());
        let (name, named_at) = match (known, self.remembered.get(&reading.mac)) {
            (Some(name), _) => (name, None),
            (None, Some(name)) if !self.by_name.contains_key(name) => (name.clone(), None),
            (None, _) => (self.free_name(no, reading, at, outcome), Some(at)),
        };
        let plug = self.plug_mut(no);
        (plug.mac, plug.name, plug.named_at) = (Some(reading.mac), Some(name.clone()), named_at);
        (plug.met, plug.silent) = (true, false);
        info!(plug = name, address = plug.address, mac = %reading.mac, model = reading.model, "plug found");
        self.by_name.insert(id, no);
        self.by_name.insert(name.clone(), no);
        outcome.named = Some(name);
        true
    }

    /// The alias as a name, if no other plug has it. Of two plugs with one alias that answer for the first time at about
    /// the same time, the one with the lower MAC has it, whoever answers first.
    fn free_name(&mut self, no: PlugNo, reading: &Reading, at: Instant, outcome: &mut Outcome) -> String {
        let id = reading.mac.hex();
        let Some(slug) = names::slug(&reading.alias) else { return id };
        if self.settings.sharded {
            return self.name_of_shard(&slug, reading.mac);
        }
        let Some(holder) = self.find(&slug).filter(|holder| *holder != no) else { return slug };
        let other = self.plug(holder);
        let settles =
            other.named_at.is_some_and(|named_at| at.saturating_duration_since(named_at) < SETTLING);
        match other.mac {
            Some(mac) if settles && reading.mac < mac => {
                let longer = self.with_digits(&slug, mac);
                let renamed = self.rename(holder, &longer);
                self.plug_mut(holder).named_at = Some(at);
                outcome.also = renamed.events.into_iter().next().map(|event| (holder, event));
                slug
            }
            _ => self.with_digits(&slug, reading.mac),
        }
    }

    /// The name with the last four digits of a MAC, or the MAC where that is taken, too.
    fn with_digits(&self, slug: &str, mac: Mac) -> String {
        let id = mac.hex();
        let longer = names::with_digits(slug, &id);
        if self.find(&longer).is_none() { longer } else { id }
    }

    /// Which names the plugs of other shards have is not known: the digits keep them apart.
    fn name_of_shard(&self, slug: &str, mac: Mac) -> String {
        let longer = names::with_more_digits(slug, &mac.hex());
        if self.find(&longer).is_none() { longer } else { mac.hex() }
    }

    /// Gives a plug whose alias has changed a new name, where that is wished for.
    pub(super) fn follow_alias(&mut self, no: PlugNo, reading: &Reading, outcome: &mut Outcome) {
        if !self.settings.follow_alias {
            return;
        }
        let plug = self.plug(no);
        let (None, Some(name), Some(slug)) = (&plug.entry.name, &plug.name, names::slug(&reading.alias))
        else {
            return;
        };
        let id = reading.mac.hex();
        let same = [slug.clone(), names::with_digits(&slug, &id), names::with_more_digits(&slug, &id)];
        if same.contains(name) {
            return;
        }
        let to = if self.settings.sharded {
            self.name_of_shard(&slug, reading.mac)
        } else if self.find(&slug).is_none() {
            slug
        } else {
            self.with_digits(&slug, reading.mac)
        };
        let renamed = self.rename(no, &to);
        outcome.events.extend(renamed.events);
        outcome.named = renamed.named;
        (outcome.changed, outcome.listed) = (true, true);
    }
}
