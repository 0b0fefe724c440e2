//! What a plug can be told.

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

/// One thing a plug can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Switch an outlet's relay. Outlets count from 0.
    Relay {
        /// Which outlet.
        outlet: usize,
        /// Where to.
        to: Switch,
    },
    /// Switch the status LED; off means dark.
    Led(Switch),
    /// Store a new alias in the plug.
    Alias(String),
    /// Restart the plug; its relay keeps its position.
    Reboot,
    /// Read everything now.
    Refresh,
}

impl Action {
    /// Whether doing it twice may differ from doing it once, so that it must never be sent again on a doubt.
    pub fn is_repeatable(&self) -> bool {
        !matches!(self, Action::Reboot)
    }
}
