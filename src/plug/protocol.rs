//! The protocols that plugs speak, by name.

/// How a plug is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Port 9999, which needs no account.
    #[default]
    Xor,
    /// HTTP with keys made of the account, first version (protocol.md 7).
    Klap,
    /// The same, second version: firmware of 2024 and later.
    Klap2,
    /// A bulb, a Tapo device, or something that wants HTTPS.
    Unsupported,
}

impl Protocol {
    /// `xor`, `klap`, `klap v2` or `unsupported`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Xor => "xor",
            Protocol::Klap => "klap",
            Protocol::Klap2 => "klap v2",
            Protocol::Unsupported => "unsupported",
        }
    }

    /// What it means that a plug speaks this since it spoke `before`, and what can be done about it: one sentence.
    ///
    /// Owners have opened port 9999 again in this way (homeassistant.md 6, row 21).
    pub fn news_since(self, before: Protocol) -> &'static str {
        match (before, self) {
            (Protocol::Xor, _) => {
                "port 9999 was closed, as updates of the firmware do, and the plug is spoken to with its account now: to \
                 open the port again, switch Me > Settings > Third-Party Compatibility off and on in the Kasa app, and \
                 keep the plug from the internet, so that nothing updates it unasked"
            }
            (_, Protocol::Xor) => {
                "port 9999 is open again, so that no account is needed: keep the plug from the internet, so that no \
                 update of the firmware closes it"
            }
            _ => {
                "the firmware was updated and nothing needs to be done: keep the plug from the internet if nothing is to \
                 update it unasked"
            }
        }
    }
}
