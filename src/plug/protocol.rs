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
}
