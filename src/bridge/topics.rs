//! Topic names: ours out, everybody's in. Contract: homeassistant.md 4.1.

use crate::plug::mac::Mac;

use super::names::RESERVED;

/// The names of all topics below one base topic and one discovery prefix.
#[derive(Debug, Clone)]
pub struct Topics {
    base: String,
    prefix: String,
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
        Topics { base: base.into(), prefix: prefix.into() }
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

    /// A topic of the bridge itself, as in `<base>/bridge/state`.
    pub fn bridge(&self, what: &str) -> String {
        format!("{}/{RESERVED}/{what}", self.base)
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
        format!("{}/device/kasa_bridge/config", self.prefix)
    }

    /// Everything we listen to. The filters are disjoint: overlapping ones would deliver a command twice
    /// (homeassistant.md 5).
    pub fn filters(&self) -> Vec<String> {
        let base = &self.base;
        vec![
            format!("{base}/+/set"),
            format!("{base}/+/set/+"),
            format!("{base}/+/get"),
            format!("{base}/+/+/set"),
            format!("{base}/+/+/set/+"),
            format!("{base}/+/+/get"),
            format!("{base}/{RESERVED}/request/#"),
            format!("{base}/{RESERVED}/info"),
            format!("{base}/{RESERVED}/state"),
            format!("{}/status", self.prefix),
        ]
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

    /// Reads a topic; `None` for one that we did not subscribe to.
    pub fn parse<'a>(&self, topic: &'a str) -> Option<Incoming<'a>> {
        if topic.strip_prefix(self.prefix.as_str()) == Some("/status") {
            return Some(Incoming::HomeAssistant);
        }
        let rest = topic.strip_prefix(self.base.as_str())?.strip_prefix('/')?;
        let (plug, rest) = rest.split_once('/')?;
        if plug == RESERVED {
            return match rest {
                "info" => Some(Incoming::Info),
                "state" => Some(Incoming::State),
                _ => rest.strip_prefix("request/").map(Incoming::Request),
            };
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
