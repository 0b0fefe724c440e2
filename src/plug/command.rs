//! What a plug can be told.

use std::time::Duration;

use serde_json::Value;

/// Where a switch is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
    /// To where it is not, judged by what the plug last confirmed when the command runs.
    Toggle,
}

impl Switch {
    /// The position to command, given the present one.
    pub fn from(self, present: bool) -> bool {
        match self {
            Switch::On => true,
            Switch::Off => false,
            Switch::Toggle => !present,
        }
    }
}

/// Which outlets of a plug are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlets {
    /// The plug as a whole: its only outlet, or all outlets of a strip, one after the other.
    All,
    /// One outlet of a strip, by its number.
    One(u8),
}

impl Outlets {
    /// Whether every outlet of `other` is meant, too.
    pub fn cover(self, other: Outlets) -> bool {
        self == Outlets::All || self == other
    }
}

/// One thing a plug can be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Switch relays.
    Relay {
        /// Which.
        outlets: Outlets,
        /// Where to.
        to: Switch,
    },
    /// Switch or set a dimmer.
    Fade {
        /// Where to.
        to: Switch,
        /// Brightness in percent, 1 to 100; the last one where it is not given.
        level: Option<u8>,
        /// How long the change takes.
        over: Duration,
    },
    /// Have the plug itself switch off after a time, even if nobody is there to tell it. Replaces its timer; a time of
    /// zero only removes it.
    OffAfter {
        /// Which outlets.
        outlets: Outlets,
        /// In whole seconds.
        time: Duration,
    },
    /// Switch the status LED; off means dark.
    Led(Switch),
    /// Switch the motion sensor's control of the relay.
    Motion(Switch),
    /// Store a new alias in the plug, or in one outlet of a strip.
    Alias {
        /// All for the plug itself.
        outlets: Outlets,
        /// The alias.
        alias: String,
    },
    /// Blink the LED, so that a person finds the plug.
    Identify,
    /// Restart the plug; its relay keeps its position.
    Reboot,
    /// Read everything now.
    Refresh,
    /// Send a request as it is.
    Raw(Box<Value>),
}

impl Action {
    /// Whether it is about the position of relays.
    pub fn moves_relay(&self) -> bool {
        matches!(self, Action::Relay { .. } | Action::Fade { .. })
    }
}
