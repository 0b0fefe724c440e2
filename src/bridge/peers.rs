//! What a shard knows of the others, from the topics on which each says who it is. Only those matter that count
//! differently: while shards are added or taken away, or somebody has made a mistake, two of them claim some plugs.
//!
//! A plug that two claim is served by the one that counts fewer shards. Whoever counts more gives way, and says so; the
//! other begins when it has heard that, or when the first has gone. So a plug has one master at any time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::plug::mac::Mac;

use super::shard::Shard;

/// All shards but ourselves.
#[derive(Debug)]
pub struct Peers {
    own: Shard,
    others: BTreeMap<u32, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// What it says to be.
    shard: Option<Shard>,
    online: bool,
    /// To whom it says to give way.
    yields_to: BTreeSet<Shard>,
}

impl Peers {
    /// Nobody has been heard of.
    pub fn new(own: Shard) -> Peers {
        Peers { own, others: BTreeMap::new() }
    }

    /// Which shard we are.
    pub fn own(&self) -> Shard {
        self.own
    }

    /// The shard of this number tells of itself. True when that may change who serves which plug.
    pub fn info(&mut self, number: u32, info: &Value) -> bool {
        let shard = |text: &Value| text.as_str().and_then(|text| text.parse::<Shard>().ok());
        let said = shard(&info["shard"]).filter(|shard| shard.number == number);
        let yields_to = info["yields_to"].as_array().into_iter().flatten().filter_map(shard).collect();
        let Some(peer) = self.peer(number) else { return false };
        let changed = peer.shard != said || peer.yields_to != yields_to;
        (peer.shard, peer.yields_to) = (said, yields_to);
        changed
    }

    /// The shard of this number is there or not, as it says now, or said a while ago. True when that may change who
    /// serves which plug.
    pub fn state(&mut self, number: u32, online: bool, now: bool) -> bool {
        let Some(peer) = self.peer(number) else { return false };
        let changed = std::mem::replace(&mut peer.online, online) != online;
        if changed && online && now {
            // It may have another count than last time, which it says next.
            (peer.shard, peer.yields_to) = (None, BTreeSet::new());
        }
        changed
    }

    /// Numbers beyond all reason are not kept.
    fn peer(&mut self, number: u32) -> Option<&mut Peer> {
        let reasonable = Shard::is_reasonable(number) && number != self.own.number;
        reasonable.then(|| self.others.entry(number).or_default())
    }

    /// Those who are there and count differently.
    pub fn disagreeing(&self) -> impl Iterator<Item = Shard> {
        let there = self.others.values().filter(|peer| peer.online).filter_map(|peer| peer.shard);
        there.filter(|shard| shard.count != self.own.count)
    }

    /// Those to whom we give way.
    pub fn yields_to(&self) -> Vec<Shard> {
        self.disagreeing().filter(|shard| shard.count < self.own.count).collect()
    }

    /// Those who have gone and are not counted any more.
    pub fn superfluous(&self) -> Vec<u32> {
        let gone = self.others.iter().filter(|(number, peer)| **number > self.own.count && !peer.online);
        gone.map(|(number, _)| *number).collect()
    }

    /// Whether we serve a plug now: it is ours, and nobody else has it.
    pub fn serves(&self, mac: Mac) -> bool {
        self.own.owns(mac) && !self.others.values().any(|peer| self.is_taken(peer, mac))
    }

    fn is_taken(&self, peer: &Peer, mac: Mac) -> bool {
        let Some(shard) = peer.shard.filter(|shard| peer.online && shard.count != self.own.count) else {
            return false;
        };
        let has_let_go = shard.count > self.own.count && peer.yields_to.contains(&self.own);
        !has_let_go && shard.owns(mac)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shard(text: &str) -> Shard {
        text.parse().unwrap()
    }

    fn macs() -> impl Iterator<Item = Mac> {
        (0..500).map(|number: u64| format!("{:012x}", 0x50c7_bf00_0000 + number).parse().unwrap())
    }

    /// Everybody hears of everybody, again and again, until nothing changes.
    fn settle(all: &mut [Peers]) {
        for _ in 0..3 {
            let said: Vec<(Shard, Value)> = all
                .iter()
                .map(|peers| {
                    let yields_to: Vec<String> = peers.yields_to().iter().map(Shard::to_string).collect();
                    (peers.own(), json!({"shard": peers.own().to_string(), "yields_to": yields_to}))
                })
                .collect();
            for peers in &mut *all {
                for (other, info) in &said {
                    peers.info(other.number, info);
                    peers.state(other.number, true, false);
                    // Nobody ever takes what somebody has: checked at each step by `masters`.
                }
            }
        }
    }

    fn masters(all: &[Peers], mac: Mac) -> Vec<Shard> {
        all.iter().filter(|peers| peers.serves(mac)).map(Peers::own).collect()
    }

    #[test]
    fn whatever_shards_count_a_plug_has_one_master_at_most_and_one_if_anybody_claims_it() {
        for texts in [
            &["1/5", "2/5", "3/5", "4/5", "5/5"][..],
            &["1/5", "2/5", "3/5", "4/5", "5/5", "6/6"],
            &["1/5", "2/5", "3/6", "4/6", "5/6", "6/6"],
            &["1/5", "2/5", "3/5", "4/5", "5/6", "6/6"],
            &["1/4", "2/5", "3/6", "4/7"],
            &["1/1", "2/2"],
        ] {
            let mut all: Vec<Peers> = texts.iter().map(|text| Peers::new(shard(text))).collect();
            settle(&mut all);
            for mac in macs() {
                let claimed = all.iter().any(|peers| peers.own().owns(mac));
                assert_eq!(masters(&all, mac).len(), usize::from(claimed), "{texts:?} {mac}");
            }
        }
    }

    #[test]
    fn nobody_begins_before_the_other_has_let_go() {
        let (mut few, mut many) = (Peers::new(shard("2/5")), Peers::new(shard("6/6")));
        let contested: Vec<Mac> =
            macs().filter(|mac| few.own().owns(*mac) && many.own().owns(*mac)).collect();
        assert!(contested.len() > 5);
        let mac = contested[0];
        assert!(many.serves(mac), "alone");
        // The one that counts fewer comes, and knows of the other.
        few.state(6, true, false);
        assert!(few.info(6, &json!({"shard": "6/6", "yields_to": []})));
        assert!(!few.serves(mac) && many.serves(mac));
        many.state(2, true, false);
        assert!(many.info(2, &json!({"shard": "2/5"})));
        assert!(!many.serves(mac) && !few.serves(mac));
        assert_eq!(many.yields_to(), [shard("2/5")]);
        assert!(few.info(6, &json!({"shard": "6/6", "yields_to": ["2/5"]})));
        assert!(few.serves(mac));
        // It goes: the other has it back.
        assert!(many.state(2, false, true) && many.serves(mac));
        // It comes again, and counts like us now. Its old word does not count.
        assert!(many.state(2, true, true) && many.serves(mac));
        many.info(2, &json!({"shard": "2/6"}));
        assert!(many.serves(mac));
    }

    #[test]
    fn what_strangers_write_is_no_peer() {
        let mut peers = Peers::new(shard("2/5"));
        for (number, info) in [
            (6, json!({"shard": "7/7"})),
            (6, json!({"shard": 6})),
            (0, json!({"shard": "0/7"})),
            (4_000_000_000, json!({"shard": "4000000000/4000000001"})),
            (6, json!(null)),
        ] {
            peers.info(number, &info);
            peers.state(number, true, false);
        }
        assert_eq!(peers.disagreeing().count(), 0);
        assert_eq!(peers.others.len(), 1);
        // Ourselves are none.
        assert!(!peers.info(2, &json!({"shard": "2/4"})) && !peers.state(2, true, true));
    }
}
