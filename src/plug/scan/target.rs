//! Whom to ask: what people write, and the addresses that it stands for.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::plug::settings::HostPort;

/// The shortest prefix that is searched, in bits: 65,534 addresses, some minutes.
const SHORTEST_PREFIX: u8 = 16;

/// Somebody to ask, or a network full of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Target {
    /// One host. May be a broadcast address.
    Host(HostPort),
    /// Every host of an IPv4 network, for networks that a broadcast does not reach.
    Network(Ipv4Net),
}

impl Target {
    /// How many addresses it stands for.
    pub fn count(&self) -> usize {
        match self {
            Target::Host(_) => 1,
            Target::Network(network) => hosts(*network).count(),
        }
    }
}

/// The text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotATarget {
    /// Not understood.
    #[error("{0}: expected an address, a name or an IPv4 network, such as 192.168.1.20 or 192.168.1.0/24")]
    Unclear(String),
    /// Understood, and too much.
    #[error("{0}: too many addresses to ask one by one; the largest network is a /{SHORTEST_PREFIX}")]
    TooLarge(Ipv4Net),
}

impl FromStr for Target {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Target, NotATarget> {
        let unclear = || NotATarget::Unclear(text.into());
        if !text.contains('/') {
            return text.parse().map(Target::Host).map_err(|_| unclear());
        }
        let network: Ipv4Net = text.parse().map_err(|_| unclear())?;
        match network.prefix_len() {
            ..SHORTEST_PREFIX => Err(NotATarget::TooLarge(network)),
            _ => Ok(Target::Network(network.trunc())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Host(host) => host.fmt(formatter),
            Target::Network(network) => network.fmt(formatter),
        }
    }
}

/// The addresses of a network that hosts can have.
pub fn hosts(network: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    network.hosts()
}

/// The address that reaches every host of the network in which `address` lies; `None` where there are no others.
pub fn broadcast(address: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let network = Ipv4Net::new(address, prefix).ok().filter(|network| network.prefix_len() < 31)?;
    Some(network.broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn targets_as_people_write_them() {
        for (text, means, count) in [
            ("192.168.1.20", "192.168.1.20:9999", 1),
            ("127.0.0.1:4711", "127.0.0.1:4711", 1),
            ("plug.lan", "plug.lan:9999", 1),
            ("255.255.255.255", "255.255.255.255:9999", 1),
            ("192.168.1.77/24", "192.168.1.0/24", 254),
            ("192.168.1.7/32", "192.168.1.7/32", 1),
            ("192.168.1.6/31", "192.168.1.6/31", 2),
            ("10.1.0.0/16", "10.1.0.0/16", 65_534),
        ] {
            assert_eq!(target(text).to_string(), means);
            assert_eq!(target(text).count(), count, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in ["", "192.168.1.0/33", "192.168.1/24", "fe80::/64", "plug.lan/24", "a b", "/", "1.2.3.4/"]
        {
            assert_eq!(text.parse::<Target>(), Err(NotATarget::Unclear(text.into())));
        }
        for text in ["10.0.0.0/15", "0.0.0.0/0"] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("/16"), "{error}");
        }
    }

    #[test]
    fn broadcast_addresses_follow_from_the_prefix() {
        let address = Ipv4Addr::new(10, 1, 2, 3);
        assert_eq!(broadcast(address, 24), Some(Ipv4Addr::new(10, 1, 2, 255)));
        assert_eq!(broadcast(address, 30), Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(broadcast(address, 31), None);
        assert_eq!(broadcast(address, 32), None);
    }
}
