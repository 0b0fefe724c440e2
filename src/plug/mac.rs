//! A plug's lasting identity.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A MAC address. Identity is always the MAC, never the address or the alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Mac([u8; 6]);

/// The text is not a MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: expected twelve hex digits, as in 50:C7:BF:01:02:03")]
pub struct NotAMac;

impl Mac {
    /// As a number of 48 bits.
    pub fn number(&self) -> u64 {
        self.0.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Twelve lower-case hex digits without separators, as in topics and unique ids.
    pub fn hex(&self) -> String {
        let [a, b, c, d, e, f] = self.0;
        format!("{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
    }
}

impl TryFrom<String> for Mac {
    type Error = NotAMac;

    fn try_from(text: String) -> Result<Mac, NotAMac> {
        text.parse()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Accepts `AA:BB:..`, `AA-BB-..` and bare hex, in any case: plugs and bulbs differ (protocol.md 3.1).
impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Mac, NotAMac> {
        let mut digits = text.chars().filter(|c| !matches!(c, ':' | '-'));
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let mut digit = || digits.next().and_then(|c| c.to_digit(16)).ok_or(NotAMac);
            *byte = (digit()? * 16 + digit()?) as u8;
        }
        if digits.next().is_some() { Err(NotAMac) } else { Ok(Mac(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_one_identity() {
        for text in ["50:C7:BF:01:02:03", "50-c7-bf-01-02-03", "50C7BF010203"] {
            let mac: Mac = text.parse().unwrap();
            assert_eq!(mac.hex(), "50c7bf010203");
            assert_eq!(mac.to_string(), "50:c7:bf:01:02:03");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "50", "50:C7:BF:01:02", "50:C7:BF:01:02:03:04", "50:C7:BF:01:02:0g", "päivää"] {
            assert_eq!(text.parse::<Mac>(), Err(NotAMac), "{text}");
        }
    }
}
