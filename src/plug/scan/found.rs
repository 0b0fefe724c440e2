//! What a scan knows: one entry for each plug, made of what it said on either port.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use crate::plug::mac::Mac;
pub use crate::plug::protocol::Protocol;
use crate::plug::settings::{HostPort, PORT};

/// One plug, as far as it is known. Texts come from the network: they have no control characters and a bounded length,
/// and are empty where the plug did not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Identity; `None` where only the state of its ports speaks for it.
    pub mac: Option<Mac>,
    /// Where it answers: port 9999 (XOR) or the port of its HTTP server (KLAP).
    pub address: SocketAddr,
    /// How to speak to it.
    pub protocol: Protocol,
    /// Whether port 9999 answered, by UDP or TCP.
    pub open: bool,
    /// What it calls itself, as in `IOT.SMARTPLUGSWITCH`.
    pub device_type: String,
    /// Alias given in the Kasa app.
    pub alias: String,
    /// Model with region, as in `HS110(EU)`.
    pub model: String,
    /// Hardware version, as in `4.1`.
    pub hw_ver: String,
    /// Firmware version, as in `1.2.5 Build 171129 Rel.174814`.
    pub sw_ver: String,
    /// Where its relays are, in the order of the outlets; empty where it did not say.
    pub relays: Vec<bool>,
    /// Signal strength in dBm.
    pub rssi: Option<i64>,
    /// Whether it has a meter.
    pub has_meter: bool,
    /// Active power in mW; of plugs with one outlet only.
    pub power_mw: Option<u64>,
}

impl Found {
    /// Something at `address` of which nothing is known yet.
    pub fn at(address: SocketAddr, protocol: Protocol) -> Found {
        Found {
            mac: None,
            address,
            protocol,
            open: false,
            device_type: String::new(),
            alias: String::new(),
            model: String::new(),
            hw_ver: String::new(),
            sw_ver: String::new(),
            relays: Vec::new(),
            rssi: None,
            has_meter: false,
            power_mw: None,
        }
    }

    /// The address to serve it at. Its port is that of XOR, which a plug that speaks KLAP may open again at any time.
    pub fn home(&self) -> HostPort {
        let port = if self.protocol == Protocol::Xor { self.address.port() } else { PORT };
        HostPort { host: self.address.ip().to_string(), port }
    }

    /// Whether it is a plug whose firmware closed port 9999.
    pub fn is_closed(&self) -> bool {
        !self.open && matches!(self.protocol, Protocol::Klap | Protocol::Klap2)
    }

    /// Takes over what `later` adds and says whether that is anything.
    ///
    /// What port 9999 says is the plug itself speaking XOR: it counts for more than what port 20002 says of protocols,
    /// on which the sources disagree (protocol.md 6).
    fn learn(&mut self, later: Found) -> bool {
        // Anybody can claim a MAC. The first address stands; whoever uses it asks there who it is.
        if later.address.ip() != self.address.ip() || !later.open {
            return false;
        }
        let known = std::mem::replace(self, later);
        self.power_mw = self.power_mw.or(known.power_mw);
        *self != known
    }
}

/// Everything found, each plug once.
#[derive(Debug, Default)]
pub struct Finds {
    known: BTreeMap<Mac, Found>,
    assumed: Vec<Found>,
}

/// More plugs than any scan finds. A sender of made-up replies fills this and not the memory.
const MAX_FINDS: usize = 16_384;

impl Finds {
    /// Takes in what was heard, and returns all that is now known of the plug when that is news.
    pub fn learn(&mut self, heard: Found) -> Option<&Found> {
        let full = self.known.len() + self.assumed.len() >= MAX_FINDS;
        let Some(mac) = heard.mac else {
            if full || self.heard_of(heard.address) {
                return None;
            }
            self.assumed.push(heard);
            return self.assumed.last();
        };
        match self.known.entry(mac) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                known.learn(heard).then_some(known)
            }
            Entry::Vacant(_) if full => None,
            Entry::Vacant(vacant) => Some(vacant.insert(heard)),
        }
    }

    /// Whether anything answered at this address, on either port: those of port 20002 share the address only.
    pub fn heard_of(&self, address: SocketAddr) -> bool {
        self.iter().any(|found| match found.open {
            true => found.address == address,
            false => found.address.ip() == address.ip(),
        })
    }

    /// All of them, in the order of their MACs.
    pub fn iter(&self) -> impl Iterator<Item = &Found> {
        self.known.values().chain(&self.assumed)
    }

    /// All of them, in the order of their MACs.
    pub fn into_vec(self) -> Vec<Found> {
        self.known.into_values().chain(self.assumed).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(mac: u8, address: &str, open: bool) -> Found {
        let mac = format!("50c7bf0000{mac:02x}").parse().unwrap();
        let protocol = if open { Protocol::Xor } else { Protocol::Klap2 };
        Found { mac: Some(mac), open, ..Found::at(address.parse().unwrap(), protocol) }
    }

    #[test]
    fn what_port_9999_says_counts_for_more() {
        let klap = found(1, "192.0.2.1:80", false);
        let xor = Found { relays: vec![true], ..found(1, "192.0.2.1:9999", true) };
        for order in [[&klap, &xor], [&xor, &klap]] {
            let mut finds = Finds::default();
            for heard in order {
                finds.learn(heard.clone());
            }
            assert_eq!(finds.into_vec(), std::slice::from_ref(&xor));
        }
    }

    #[test]
    fn only_news_is_news() {
        let mut finds = Finds::default();
        let plug = found(1, "192.0.2.1:9999", true);
        assert!(finds.learn(plug.clone()).is_some());
        assert!(finds.learn(plug.clone()).is_none());
        let metered = Found { power_mw: Some(7), ..plug.clone() };
        assert_eq!(finds.learn(metered.clone()), Some(&metered));
        assert!(finds.learn(plug).is_none(), "a late reply takes nothing away");
        assert_eq!(finds.into_vec(), [metered]);
    }

    #[test]
    fn a_claimed_mac_moves_no_plug() {
        let mut finds = Finds::default();
        let plug = found(1, "192.0.2.1:9999", true);
        finds.learn(plug.clone());
        assert!(finds.learn(found(1, "192.0.2.66:9999", true)).is_none());
        assert_eq!(finds.into_vec(), [plug]);
    }

    #[test]
    fn what_is_only_assumed_gives_way_to_what_answered() {
        let mut finds = Finds::default();
        finds.learn(found(1, "192.0.2.1:80", false));
        assert!(finds.learn(Found::at("192.0.2.1:80".parse().unwrap(), Protocol::Klap)).is_none());
        assert!(finds.learn(Found::at("192.0.2.2:80".parse().unwrap(), Protocol::Klap)).is_some());
        assert_eq!(finds.iter().count(), 2);
    }

    #[test]
    fn made_up_plugs_fill_the_list_and_not_the_memory() {
        let mut finds = Finds::default();
        for number in 0..MAX_FINDS + 10 {
            let mac = format!("50c7bf{number:06x}").parse().unwrap();
            finds.learn(Found { mac: Some(mac), ..found(0, "192.0.2.1:9999", true) });
        }
        assert_eq!(finds.iter().count(), MAX_FINDS);
    }

    proptest! {
        #[test]
        fn the_order_of_one_plugs_replies_does_not_matter(opens in prop::collection::vec(any::<bool>(), 1..8)) {
            let heard = |open: &bool| found(1, if *open { "192.0.2.1:9999" } else { "192.0.2.1:80" }, *open);
            let mut finds = Finds::default();
            for open in &opens {
                finds.learn(heard(open));
            }
            prop_assert_eq!(finds.into_vec(), vec![heard(&opens.contains(&true))]);
        }
    }
}
