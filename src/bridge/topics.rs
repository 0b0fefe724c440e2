//! Topic names: ours out, everybody's in. Contract: homeassistant.md 4.1.

use crate::plug::mac::Mac;

use super::names::RESERVED;
use super::shard::Shard;

/// The names of all topics below one base topic and one discovery prefix.
#[derive(Debug, Clone)]
pub struct Topics {
    base: String,
    prefix: String,
    shard: Option<Shard>,
}

/// The largest strip that is known has six outlets.
const LARGEST_STRIP: u8 = 9;

/// Whose a retained topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own<'a> {
    /// A state of the plug of this name, or of one of its outlets.
    State(&'a str),
    /// The availability of the plug of this name.
    Availability(&'a str),
    /// A discovery config of the plug of this MAC, or of one of its outlets.
    Discovery(Mac),
}

/// What a topic that we subscribe to asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A command to the plug of this name or MAC.
    Command {
        /// Name or twelve hex digits.
        plug: &'a str,
        /// What stands for an outlet's number, where something does.
        outlet: Option<&'a str>,
        /// What the rest of the topic says.
        verb: Verb<'a>,
    },
    /// A request to the bridge itself, as in `<base>/bridge/request/restart`.
    Request(&'a str),
    /// Home Assistant's own birth and will.
    HomeAssistant,
    /// What a bridge says of itself: we do, and nobody else should.
    Info,
    /// Whether we are here.
    State,
    /// Whether a bridge without shards is here, below the base topic of shards.
    FormerState,
    /// What the shard of this number says of itself.
    PeerInfo(u32),
    /// Whether the shard of this number is here.
    PeerState(u32),
}

/// The end of a command topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb<'a> {
    /// `.../set`
    Set,
    /// `.../set/<attribute>`
    SetAttribute(&'a str),
    /// `.../get`
    Get,
}

impl Verb<'_> {
    /// The end of the topic, as it is repeated in the result.
    pub fn text(&self) -> String {
        match self {
            Verb::Set => "set".into(),
            Verb::SetAttribute(attribute) => format!("set/{attribute}"),
            Verb::Get => "get".into(),
        }
    }
}

impl Topics {
    /// Topics below `base`; discovery and Home Assistant's status below `prefix`.
    pub fn new(base: &str, prefix: &str) -> Topics {
        Topics { base: base.into(), prefix: prefix.into(), shard: None }
    }

    /// The same for one of several bridges that share the plugs: plugs' topics are as they were, those of the bridge
    /// itself are this shard's.
    pub fn of(self, shard: Option<Shard>) -> Topics {
        Topics { shard, ..self }
    }

    /// Which of several bridges this is.
    pub fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// The name of an outlet of a strip in topics: `<strip>/<n>`, with `n` from 1. It takes the place of a plug's name
    /// in state, set and result topics.
    pub fn outlet(strip: &str, number: u8) -> String {
        format!("{strip}/{number}")
    }

    /// A plug's or an outlet's state, retained JSON.
    pub fn state(&self, plug: &str) -> String {
        format!("{}/{plug}", self.base)
    }

    /// `online` or `offline`, retained.
    pub fn availability(&self, plug: &str) -> String {
        format!("{}/{plug}/availability", self.base)
    }

    /// Where commands to a plug are answered; not retained.
    pub fn result(&self, plug: &str) -> String {
        format!("{}/{plug}/result", self.base)
    }

    /// Where a plug takes commands.
    pub fn set(&self, plug: &str) -> String {
        format!("{}/{plug}/set", self.base)
    }

    /// Where a plug takes commands for one attribute.
    pub fn set_attribute(&self, plug: &str, attribute: &str) -> String {
        format!("{}/{plug}/set/{attribute}", self.base)
    }

    /// A topic of the bridge itself, as in `<base>/bridge/state`; of a shard, as in `<base>/bridge/shard-2/state`.
    pub fn bridge(&self, what: &str) -> String {
        match self.shard {
            None => self.common(what),
            Some(shard) => self.common(&format!("{}/{what}", shard.name())),
        }
    }

    /// A topic of the bridge as a whole, whichever shard speaks there.
    pub fn common(&self, what: &str) -> String {
        format!("{}/{RESERVED}/{what}", self.base)
    }

    /// What a shard of this number leaves when it goes, or the bridge before there were shards.
    pub fn of_shard(&self, number: Option<u32>) -> Vec<String> {
        let topics = Topics { shard: number.map(|number| Shard { number, count: number }), ..self.clone() };
        let mut all = vec![topics.bridge_discovery()];
        all.extend(["state", "info", "devices", "health"].map(|what| topics.bridge(what)));
        all
    }

    /// The birth and will of this program, retained.
    pub fn bridge_state(&self) -> String {
        self.bridge("state")
    }

    /// The discovery config of a plug, or of a strip's outlet. The object id is made of the hardware's identity and
    /// never changes.
    pub fn discovery(&self, mac: Mac, outlet: Option<u8>) -> String {
        format!("{}/device/{}/config", self.prefix, device_id(mac, outlet))
    }

    /// The discovery config of the bridge itself.
    pub fn bridge_discovery(&self) -> String {
        format!("{}/device/{}/config", self.prefix, self.bridge_id())
    }

    /// What Home Assistant knows the bridge by.
    pub fn bridge_id(&self) -> String {
        self.shard.map_or_else(|| "kasa_bridge".into(), |shard| format!("kasa_bridge_{}", shard.number))
    }

    /// The state topic of this bridge, or of another shard of it.
    pub fn is_bridge_state(&self, topic: &str) -> bool {
        topic == self.bridge_state() || (self.shard.is_some() && self.of_any_shard(topic) == Some("state"))
    }

    /// The list of all plugs of this bridge, or of another shard of it.
    pub fn is_devices(&self, topic: &str) -> bool {
        topic == self.bridge("devices")
            || (self.shard.is_some() && self.of_any_shard(topic) == Some("devices"))
    }

    /// What a topic of any shard, or of the bridge before there were shards, is for.
    fn of_any_shard<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let rest = self.of_bridge(topic)?;
        let Some((shard, what)) = rest.split_once('/') else { return Some(rest) };
        shard_number(shard).map(|_| what)
    }

    fn of_bridge<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let rest = topic.strip_prefix(self.base.as_str())?.strip_prefix('/')?;
        rest.strip_prefix(RESERVED)?.strip_prefix('/')
    }

    /// Everything we listen to. The filters are disjoint: overlapping ones would deliver a command twice
    /// (homeassistant.md 5).
    pub fn filters(&self) -> Vec<String> {
        let base = &self.base;
        let mut filters = vec![
            format!("{base}/+/set"),
            format!("{base}/+/set/+"),
            format!("{base}/+/get"),
            format!("{base}/+/+/set"),
            format!("{base}/+/+/set/+"),
            format!("{base}/+/+/get"),
            format!("{base}/{RESERVED}/request/#"),
            format!("{base}/{RESERVED}/info"),
            format!("{}/status", self.prefix),
        ];
        match self.shard {
            None => filters.push(self.bridge_state()),
            Some(_) => {
                filters.push(self.bridge("request/#"));
                filters.extend(["info", "state"].map(|what| format!("{base}/{RESERVED}/+/{what}")));
            }
        }
        filters
    }

    /// Whether a topic is of the plug of this name, or of one of its outlets.
    pub fn is_of(&self, topic: &str, name: &str) -> bool {
        let rest = topic.strip_prefix(self.base.as_str()).and_then(|rest| rest.strip_prefix('/'));
        rest.and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Where an earlier bridge may have left something of ours; listened to once, at the start. Disjoint from
    /// [`Topics::filters`], too.
    pub fn memory_filters(&self) -> Vec<String> {
        let base = &self.base;
        let outlets = (1..=LARGEST_STRIP).map(|number| format!("{base}/+/{number}"));
        [format!("{base}/{RESERVED}/devices"), format!("{base}/+"), format!("{base}/+/availability")]
            .into_iter()
            .chain(outlets)
            .chain([format!("{}/device/+/config", self.prefix)])
            .chain(self.shard.iter().flat_map(|_| {
                ["+/devices", "+/info", "+/state", "state"].map(|what| format!("{base}/{RESERVED}/{what}"))
            }))
            .collect()
    }

    /// Whose a retained topic of ours would be; `None` for one that is no plug's.
    pub fn own<'a>(&self, topic: &'a str) -> Option<Own<'a>> {
        let device = topic.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_prefix("/device/"));
        if let Some(id) = device.and_then(|rest| rest.strip_suffix("/config")) {
            let mac = id.strip_prefix("kasa_")?;
            return Some(Own::Discovery(mac.get(..12)?.parse().ok()?));
        }
        let rest = topic.strip_prefix(self.base.as_str())?.strip_prefix('/')?;
        match rest.split('/').collect::<Vec<_>>()[..] {
            [RESERVED, ..] => None,
            [name] => Some(Own::State(name)),
            [name, "availability"] => Some(Own::Availability(name)),
            [name, outlet] if outlet.parse::<u8>().is_ok() => Some(Own::State(name)),
            _ => None,
        }
    }

    fn parse_of_bridge<'a>(&self, rest: &'a str) -> Option<Incoming<'a>> {
        let own = |what: &'a str| match what {
            "info" => Some(Incoming::Info),
            "state" => Some(Incoming::State),
            _ => what.strip_prefix("request/").map(Incoming::Request),
        };
        let Some(shard) = self.shard else { return own(rest) };
        // A bridge without shards below the same base is as much a rival as one of our number.
        if rest == "info" || rest.starts_with("request/") {
            return own(rest);
        }
        if rest == "state" {
            return Some(Incoming::FormerState);
        }
        let (name, what) = rest.split_once('/')?;
        match shard_number(name)? {
            number if number == shard.number => own(what),
            number if what == "info" => Some(Incoming::PeerInfo(number)),
            number if what == "state" => Some(Incoming::PeerState(number)),
            _ => None,
        }
    }

    /// Reads a topic; `None` for one that we did not subscribe to.
    pub fn parse<'a>(&self, topic: &'a str) -> Option<Incoming<'a>> {
        if topic.strip_prefix(self.prefix.as_str()) == Some("/status") {
            return Some(Incoming::HomeAssistant);
        }
        let rest = topic.strip_prefix(self.base.as_str())?.strip_prefix('/')?;
        let (plug, rest) = rest.split_once('/')?;
        if plug == RESERVED {
            return self.parse_of_bridge(rest);
        }
        // `x/set/set` and `x/set/get` match two filters and arrive twice: nobody's command.
        let (outlet, verb) = match rest.split('/').collect::<Vec<_>>()[..] {
            ["set"] => (None, Verb::Set),
            ["get"] => (None, Verb::Get),
            ["set", "set" | "get"] => return None,
            ["set", attribute] => (None, Verb::SetAttribute(attribute)),
            [outlet, "set"] => (Some(outlet), Verb::Set),
            [outlet, "get"] => (Some(outlet), Verb::Get),
            [outlet, "set", attribute] => (Some(outlet), Verb::SetAttribute(attribute)),
            _ => return None,
        };
        Some(Incoming::Command { plug, outlet, verb })
    }
}

fn shard_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("shard-")?.parse().ok()?;
    Shard::is_reasonable(number).then_some(number)
}

/// What Home Assistant knows a plug, or a strip's outlet, by.
pub fn device_id(mac: Mac, outlet: Option<u8>) -> String {
    match outlet {
        None => format!("kasa_{}", mac.hex()),
        Some(number) => format!("kasa_{}_{number}", mac.hex()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_retained_of_ours_is_known_by_its_topic() {
        let topics = Topics::new("kasa", "homeassistant");
        let mac = "50c7bf010203".parse().unwrap();
        for (topic, expected) in [
            ("kasa/desk-lamp", Some(Own::State("desk-lamp"))),
            ("kasa/strip/3", Some(Own::State("strip"))),
            ("kasa/desk-lamp/availability", Some(Own::Availability("desk-lamp"))),
            ("homeassistant/device/kasa_50c7bf010203/config", Some(Own::Discovery(mac))),
            ("homeassistant/device/kasa_50c7bf010203_6/config", Some(Own::Discovery(mac))),
            ("homeassistant/device/kasa_bridge/config", None),
            ("homeassistant/device/other_50c7bf010203/config", None),
            ("kasa/bridge/info", None),
            ("kasa/desk-lamp/set", None),
            ("kasa/desk-lamp/x/1", None),
            ("kasa", None),
        ] {
            assert_eq!(topics.own(topic), expected, "{topic}");
        }
        assert!(topics.memory_filters().iter().all(|filter| !topics.filters().contains(filter)));
    }

    #[test]
    fn topics_are_read_as_a_table() {
        let topics = Topics::new("kasa", "homeassistant");
        let command = |plug, verb| Some(Incoming::Command { plug, outlet: None, verb });
        let outlet = |plug, outlet, verb| Some(Incoming::Command { plug, outlet: Some(outlet), verb });
        for (topic, expected) in [
            ("kasa/desk-lamp/set", command("desk-lamp", Verb::Set)),
            ("kasa/50c7bf010203/set", command("50c7bf010203", Verb::Set)),
            ("kasa/desk-lamp/set/led", command("desk-lamp", Verb::SetAttribute("led"))),
            ("kasa/desk-lamp/set/", command("desk-lamp", Verb::SetAttribute(""))),
            ("kasa/desk-lamp/get", command("desk-lamp", Verb::Get)),
            ("kasa//set", command("", Verb::Set)),
            ("kasa/bridge/request/restart", Some(Incoming::Request("restart"))),
            ("kasa/bridge/request/device/rename", Some(Incoming::Request("device/rename"))),
            ("homeassistant/status", Some(Incoming::HomeAssistant)),
            ("kasa/bridge/info", Some(Incoming::Info)),
            ("kasa/bridge/state", Some(Incoming::State)),
            ("kasa/bridge/set", None),
            ("kasa/desk-lamp", None),
            ("kasa/desk-lamp/availability", None),
            ("kasa/desk-lamp/set/led/x", None),
            ("kasa/strip/2/set", outlet("strip", "2", Verb::Set)),
            ("kasa/strip/2/get", outlet("strip", "2", Verb::Get)),
            ("kasa/strip/2/set/alias", outlet("strip", "2", Verb::SetAttribute("alias"))),
            ("kasa/strip/x/set", outlet("strip", "x", Verb::Set)),
            ("kasa/strip/set/set", None),
            ("kasa/strip/set/get", None),
            ("kasa/strip/1/2/set", None),
            ("kasa/bridge/request/set", Some(Incoming::Request("set"))),
            ("kasas/desk-lamp/set", None),
            ("kasa", None),
            ("", None),
        ] {
            assert_eq!(topics.parse(topic), expected, "{topic}");
        }
    }

    #[test]
    fn a_shards_own_topics_are_its_own_and_plugs_are_everybodys() {
        let shard = Topics::new("kasa", "homeassistant").of("2/5".parse().ok());
        assert_eq!(shard.bridge_state(), "kasa/bridge/shard-2/state");
        assert_eq!(shard.bridge_discovery(), "homeassistant/device/kasa_bridge_2/config");
        assert_eq!(shard.state("lamp"), "kasa/lamp");
        assert_eq!(shard.common("response/device/remove"), "kasa/bridge/response/device/remove");
        for (topic, expected) in [
            ("kasa/bridge/shard-2/info", Some(Incoming::Info)),
            ("kasa/bridge/info", Some(Incoming::Info)),
            ("kasa/bridge/shard-2/state", Some(Incoming::State)),
            ("kasa/bridge/state", Some(Incoming::FormerState)),
            ("kasa/bridge/shard-3/info", Some(Incoming::PeerInfo(3))),
            ("kasa/bridge/shard-3/state", Some(Incoming::PeerState(3))),
            ("kasa/bridge/shard-0/state", None),
            ("kasa/bridge/shard-x/state", None),
            ("kasa/bridge/shard-3/devices", None),
            ("kasa/bridge/shard-3/request/restart", None),
            ("kasa/bridge/shard-2/request/restart", Some(Incoming::Request("restart"))),
            ("kasa/bridge/request/device/rename", Some(Incoming::Request("device/rename"))),
            ("kasa/lamp/set", Some(Incoming::Command { plug: "lamp", outlet: None, verb: Verb::Set })),
        ] {
            assert_eq!(shard.parse(topic), expected, "{topic}");
        }
        assert_eq!(shard.filters().len(), 12, "as docs/scale.md says");
        assert!(shard.is_devices("kasa/bridge/shard-4/devices") && shard.is_devices("kasa/bridge/devices"));
        assert!(
            shard.is_bridge_state("kasa/bridge/shard-4/state") && shard.is_bridge_state("kasa/bridge/state")
        );
        let single = Topics::new("kasa", "homeassistant");
        assert!(!single.is_devices("kasa/bridge/shard-4/devices"));
        assert!(!single.is_bridge_state("kasa/bridge/shard-4/state"));
        let kept = shard.of_shard(Some(7));
        assert!(kept.contains(&"kasa/bridge/shard-7/devices".to_string()), "{kept:?}");
        assert!(kept.contains(&"homeassistant/device/kasa_bridge_7/config".to_string()), "{kept:?}");
        let ids = ["kasa_bridge_7", "kasa_bridge_1000"].map(|id| format!("homeassistant/device/{id}/config"));
        assert!(ids.iter().all(|topic| shard.own(topic).is_none()), "no plug's");
    }

    #[test]
    fn a_base_of_several_levels_is_just_a_base() {
        let topics = Topics::new("home/kasa", "ha");
        assert_eq!(
            topics.parse("home/kasa/lamp/set"),
            Some(Incoming::Command { plug: "lamp", outlet: None, verb: Verb::Set })
        );
        assert_eq!(topics.parse("ha/status"), Some(Incoming::HomeAssistant));
        assert_eq!(topics.state("lamp"), "home/kasa/lamp");
    }
}
