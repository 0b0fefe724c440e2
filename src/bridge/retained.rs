//! What ought to be retained, what the broker holds, and the difference.
//!
//! The bridge keeps no list of things to publish. Each owner of topics (a plug, or the bridge itself) is *dirty* or not;
//! a dirty one is rendered when the connection has room, and what differs from what the broker holds is handed out.
//! A topic has at most one message on its way: what it should say meanwhile is looked at when the broker has
//! acknowledged the first. Deduplication, reconnection and births are then the same thing: something was forgotten.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use super::plug::PlugNo;

/// Whose topics: rendered together, and never with anybody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// The bridge's own topics.
    Bridge,
    /// One plug's topics.
    Plug(PlugNo),
}

/// What a topic is for; also the order in which one owner's messages go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Whether its owner is there.
    Availability,
    /// A Home Assistant discovery config.
    Discovery,
    /// Everything else.
    State,
}

/// A retained message that ought to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// What it is for.
    pub role: Role,
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
}

/// Comes back from the broker's acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What one topic of the broker holds, as far as we know.
#[derive(Debug, Clone, Copy)]
struct Held {
    role: Role,
    /// Of the payload last handed out. 64 bits: two versions of one topic collide once in 10^19 changes.
    fingerprint: u64,
    /// Not acknowledged yet.
    on_its_way: bool,
    /// It looked different while the last message was on its way.
    look_again: bool,
    /// To be sent whatever the fingerprint says.
    forgotten: bool,
}

/// What differs between the broker and the truth, pulled one owner at a time.
#[derive(Debug, Default)]
pub struct Projection {
    held: HashMap<Owner, BTreeMap<String, Held>>,
    urgent: VecDeque<Owner>,
    dirty: VecDeque<Owner>,
    queued: HashSet<Owner>,
    on_their_way: HashMap<Ticket, (Owner, String)>,
    last_ticket: u64,
}

impl Projection {
    /// Something of this owner may have changed. Ahead of others when `urgent`: somebody waits for it.
    pub fn mark(&mut self, owner: Owner, urgent: bool) {
        if urgent {
            // May stand in the other queue as well; the second look then finds nothing to do.
            if !self.urgent.contains(&owner) {
                self.urgent.push_back(owner);
            }
        } else if self.queued.insert(owner) {
            self.dirty.push_back(owner);
        }
    }

    /// Whether nobody is dirty.
    pub fn is_clean(&self) -> bool {
        self.urgent.is_empty() && self.dirty.is_empty()
    }

    /// Whether somebody waits for what is to be said next.
    pub fn has_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// The next dirty owner, no longer dirty then.
    pub fn next_dirty(&mut self) -> Option<Owner> {
        if let Some(owner) = self.urgent.pop_front() {
            return Some(owner);
        }
        let owner = self.dirty.pop_front()?;
        self.queued.remove(&owner);
        Some(owner)
    }

    /// Whether a message of this owner is not acknowledged yet.
    pub fn is_on_its_way(&self, owner: Owner) -> bool {
        self.held.get(&owner).is_some_and(|topics| topics.values().any(|held| held.on_its_way))
    }

    /// Whether the broker holds the owner's topics of this role as they were last rendered.
    pub fn is_settled(&self, owner: Owner, role: Role) -> bool {
        let topics = self.held.get(&owner).into_iter().flatten();
        let mut held = topics.map(|(_, held)| held).filter(|held| held.role == role);
        held.all(|held| !held.on_its_way && !held.forgotten)
    }

    /// Nobody is dirty any more; what changed is left unsaid.
    pub fn unmark_all(&mut self) {
        self.urgent.clear();
        self.dirty.clear();
        self.queued.clear();
    }

    /// A new broker, or a broker that lost its memory: nothing is held any more. Everything is to be marked after it.
    pub fn forget_all(&mut self) {
        self.unmark_all();
        self.on_their_way.clear();
        for held in self.held.values_mut().flat_map(BTreeMap::values_mut) {
            // Kept, so that what is not wanted any more is cleared whoever remembers it.
            (held.on_its_way, held.look_again, held.forgotten) = (false, false, true);
        }
    }

    /// An earlier bridge has left this topic; it is the owner's now, and what it says is not known.
    pub fn adopt(&mut self, owner: Owner, role: Role, topic: String) {
        let held = Held { role, fingerprint: 0, on_its_way: false, look_again: false, forgotten: true };
        self.held.entry(owner).or_default().entry(topic).or_insert(held);
    }

    /// What this owner has is somebody else's, who is not of this bridge: it is neither kept nor cleared.
    pub fn let_go(&mut self, owner: Owner) {
        self.held.remove(&owner);
        self.on_their_way.retain(|_, (other, _)| *other != owner);
    }

    /// Whether the acknowledgement of a message is of interest.
    pub fn expects(&self, ticket: Ticket) -> bool {
        self.on_their_way.contains_key(&ticket)
    }

    /// What one owner has is another's from now on.
    pub fn merge(&mut self, from: Owner, to: Owner) {
        self.hand_over(from, to, |_| true);
        self.held.remove(&from);
    }

    /// Some topics of one owner are another's from now on: it has the name that the one had. What is on its way arrives,
    /// and what the topics say is looked at again.
    pub fn hand_over(&mut self, from: Owner, to: Owner, is_meant: impl Fn(&str) -> bool) {
        let Some(topics) = self.held.get_mut(&from) else { return };
        let meant = topics.extract_if(.., |topic, _| is_meant(topic)).collect::<Vec<_>>();
        for (owner, topic) in self.on_their_way.values_mut().filter(|(owner, _)| *owner == from) {
            if meant.iter().any(|(handed, _)| handed == topic) {
                *owner = to;
            }
        }
        let topics = self.held.entry(to).or_default();
        for (topic, held) in meant {
            topics.entry(topic).or_insert(held).forgotten = true;
        }
    }

    /// Everybody who has topics, or had.
    pub fn owners(&self) -> Vec<Owner> {
        self.held.iter().filter(|(_, topics)| !topics.is_empty()).map(|(owner, _)| *owner).collect()
    }

    /// The owner's topics of this role, as far as the broker holds them.
    pub fn topics(&self, owner: Owner, role: Role) -> Vec<String> {
        let topics = self.held.get(&owner).into_iter().flatten();
        topics.filter(|(_, held)| held.role == role).map(|(topic, _)| topic.clone()).collect()
    }

    /// The next [`Projection::diff`] sends the owner's topics of this role again, changed or not.
    pub fn forget(&mut self, owner: Owner, role: Role) {
        for held in self.held.entry(owner).or_default().values_mut().filter(|held| held.role == role) {
            held.forgotten = true;
        }
    }

    /// What is to be published so that the broker holds `wanted` and nothing else of this owner. A topic that is no
    /// longer wanted gets an empty message, which clears it. Messages that `holds_back` are left for later.
    pub fn diff(
        &mut self,
        owner: Owner,
        wanted: Vec<Retained>,
        holds_back: impl Fn(&Retained) -> bool,
    ) -> Vec<(Ticket, Retained)> {
        let topics = self.held.entry(owner).or_default();
        let vanished: Vec<Retained> = topics
            .iter()
            .filter(|(topic, _)| !wanted.iter().any(|wanted| wanted.topic == **topic))
            .map(|(topic, held)| Retained { role: held.role, topic: topic.clone(), payload: Vec::new() })
            .collect();
        let mut publishes = Vec::new();
        for retained in wanted.into_iter().chain(vanished).filter(|retained| !holds_back(retained)) {
            let fingerprint = fingerprint(&retained.payload);
            match topics.get_mut(&retained.topic) {
                Some(held) if held.fingerprint == fingerprint && !held.forgotten => continue,
                Some(held) if held.on_its_way => {
                    held.look_again = true;
                    continue;
                }
                _ => {}
            }
            let held = Held {
                role: retained.role,
                fingerprint,
                on_its_way: true,
                look_again: false,
                forgotten: false,
            };
            topics.insert(retained.topic.clone(), held);
            self.last_ticket += 1;
            let ticket = Ticket(self.last_ticket);
            self.on_their_way.insert(ticket, (owner, retained.topic.clone()));
            publishes.push((ticket, retained));
        }
        // Nobody is to miss what he still listens to: what is cleared comes last.
        publishes.sort_by_key(|(_, retained)| (retained.payload.is_empty(), retained.role));
        publishes
    }

    /// The broker acknowledged a message: its topic is held from now on.
    pub fn acknowledged(&mut self, ticket: Ticket) {
        let Some((owner, topic)) = self.on_their_way.remove(&ticket) else { return };
        let Some(topics) = self.held.get_mut(&owner) else { return };
        let Some(held) = topics.get_mut(&topic) else { return };
        held.on_its_way = false;
        let look_again = std::mem::take(&mut held.look_again);
        if held.fingerprint == fingerprint(&[]) {
            topics.remove(&topic);
        }
        if look_again {
            self.mark(owner, true);
        }
    }
}

fn fingerprint(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAMP: Owner = Owner::Plug(PlugNo(0));

    fn retained(topic: &str, payload: &str) -> Retained {
        Retained { role: Role::State, topic: topic.into(), payload: payload.into() }
    }

    fn diff(projection: &mut Projection, wanted: &[(&str, &str)]) -> Vec<(Ticket, String)> {
        let wanted = wanted.iter().map(|(topic, payload)| retained(topic, payload)).collect();
        let text = |retained: Retained| {
            format!("{}={}", retained.topic, String::from_utf8(retained.payload).unwrap())
        };
        projection
            .diff(LAMP, wanted, |_| false)
            .into_iter()
            .map(|(ticket, retained)| (ticket, text(retained)))
            .collect()
    }

    /// Hands out and acknowledges; returns what was handed out.
    fn sync(projection: &mut Projection, wanted: &[(&str, &str)]) -> Vec<String> {
        let publishes = diff(projection, wanted);
        for (ticket, _) in &publishes {
            projection.acknowledged(*ticket);
        }
        publishes.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn only_differences_are_published() {
        let mut projection = Projection::default();
        assert_eq!(sync(&mut projection, &[("a", "1"), ("b", "1")]), ["a=1", "b=1"]);
        assert!(sync(&mut projection, &[("a", "1"), ("b", "1")]).is_empty());
        assert_eq!(sync(&mut projection, &[("a", "1"), ("b", "2")]), ["b=2"]);
        assert_eq!(sync(&mut projection, &[("a", "1")]), ["b="], "what vanished is cleared");
        assert!(sync(&mut projection, &[("a", "1")]).is_empty());
    }

    #[test]
    fn one_message_a_topic_is_on_its_way_and_the_newest_wins() {
        let mut projection = Projection::default();
        let first = diff(&mut projection, &[("a", "1")]);
        assert!(diff(&mut projection, &[("a", "2")]).is_empty());
        assert!(diff(&mut projection, &[("a", "3")]).is_empty());
        assert!(projection.is_clean());
        projection.acknowledged(first[0].0);
        assert_eq!(projection.next_dirty(), Some(LAMP), "it is looked at again");
        assert_eq!(sync(&mut projection, &[("a", "3")]), ["a=3"]);
        assert!(projection.is_clean());
    }

    #[test]
    fn what_is_forgotten_is_sent_again() {
        let mut projection = Projection::default();
        sync(&mut projection, &[("a", "1")]);
        projection.forget(LAMP, Role::Discovery);
        assert!(sync(&mut projection, &[("a", "1")]).is_empty());
        projection.forget(LAMP, Role::State);
        assert_eq!(sync(&mut projection, &[("a", "1")]), ["a=1"]);
        let late = diff(&mut projection, &[("a", "2")]);
        projection.forget_all();
        projection.acknowledged(late[0].0);
        assert_eq!(
            sync(&mut projection, &[("a", "2")]),
            ["a=2"],
            "acknowledgements of the old session count for nothing"
        );
    }

    #[test]
    fn urgent_owners_come_first_and_each_once() {
        let mut projection = Projection::default();
        let owner = |no| Owner::Plug(PlugNo(no));
        for no in 0..3 {
            projection.mark(owner(no), false);
            projection.mark(owner(no), false);
        }
        projection.mark(owner(9), true);
        let order: Vec<Owner> = std::iter::from_fn(|| projection.next_dirty()).collect();
        assert_eq!(order, [owner(9), owner(0), owner(1), owner(2)]);
    }
}
