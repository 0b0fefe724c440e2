//! Who may look, and who may switch.
//!
//! Everybody who reaches the address may look. Whoever knows the token may switch; where there is none, whoever sits
//! at this machine. A browser on this machine is no proof of that, for any page in it may send requests: a page of
//! another origin is turned away, and so is one whose own name leads here (DNS rebinding), and whatever a proxy forwards.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hyper::header::{AUTHORIZATION, FORWARDED, HOST, HeaderMap, HeaderName, ORIGIN, VIA};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::secret;

use super::settings::Settings;

/// Home Assistant's ingress: the only one who may speak to an add-on that stands behind it.
const INGRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 32, 2));

/// Shorter ones are guessed.
const SHORTEST_TOKEN: usize = 8;

/// What is asked of health checks.
pub const HEALTH: &str = "/health";

/// See the module.
#[derive(Clone)]
pub struct Access {
    /// Digests are compared, so that the time it takes tells nothing.
    token: Option<[u8; 32]>,
    ingress: bool,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Access").field("ingress", &self.ingress).finish_non_exhaustive()
    }
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Whether he may switch.
    pub may_control: bool,
    /// Whether he has to know the token for it.
    pub needs_token: bool,
}

/// Why somebody may not switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The token is missing, or is another one.
    Token,
    /// Not from there.
    Forbidden(&'static str),
}

impl Access {
    /// As configured.
    ///
    /// # Errors
    /// The token's file cannot be read, or the token is too short.
    pub fn of(settings: &Settings) -> Result<Access, String> {
        let token = secret::read("http.token_file", settings.token.as_ref(), settings.token_file.as_deref())
            .map_err(|error| error.to_string())?;
        if token.as_ref().is_some_and(|token| !is_long_enough(token)) {
            return Err(format!("http.token: expected {SHORTEST_TOKEN} characters or more"));
        }
        let digest = |token: SecretString| Sha256::digest(token.expose_secret()).into();
        Ok(Access { token: token.map(digest), ingress: settings.ingress })
    }

    /// Whether `peer` is spoken to at all. A health check may also come from inside the container.
    pub fn admits(&self, peer: IpAddr, path: &str) -> bool {
        let peer = peer.to_canonical();
        !self.ingress || peer == INGRESS || (peer.is_loopback() && path == HEALTH)
    }

    /// What whoever asks like this may do.
    pub fn rights(&self, peer: IpAddr, headers: &HeaderMap) -> Rights {
        match self.control(peer, headers) {
            Ok(()) => Rights { may_control: true, needs_token: !self.ingress && self.token.is_some() },
            Err(Refusal::Token) => Rights { may_control: true, needs_token: true },
            Err(Refusal::Forbidden(_)) => Rights { may_control: false, needs_token: self.token.is_some() },
        }
    }

    /// Whether he may switch.
    ///
    /// # Errors
    /// Why not.
    pub fn control(&self, peer: IpAddr, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.ingress {
            return match peer.to_canonical() == INGRESS {
                true => Ok(()),
                false => Err(Refusal::Forbidden("only through Home Assistant")),
            };
        }
        let host = text(headers, HOST);
        if headers.contains_key(ORIGIN) && !is_of(text(headers, ORIGIN), host) {
            return Err(Refusal::Forbidden("another origin's page asks"));
        }
        let Some(token) = self.token else {
            return at_this_machine(peer, headers, host).map_err(Refusal::Forbidden);
        };
        let given = text(headers, AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let is_right = given.is_some_and(|given| <[u8; 32]>::from(Sha256::digest(given)) == token);
        if is_right { Ok(()) } else { Err(Refusal::Token) }
    }
}

/// Whether it is hard to guess, as far as its length tells.
pub fn is_long_enough(token: &SecretString) -> bool {
    token.expose_secret().len() >= SHORTEST_TOKEN
}

fn at_this_machine(peer: IpAddr, headers: &HeaderMap, host: Option<&str>) -> Result<(), &'static str> {
    const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    if !peer.to_canonical().is_loopback() {
        return Err("set http.token to switch from other machines");
    }
    if [FORWARDED_FOR, FORWARDED, VIA].iter().any(|header| headers.contains_key(header)) {
        return Err("set http.token to switch through a proxy");
    }
    match host.is_some_and(is_nobodys_name) {
        true => Ok(()),
        false => Err("set http.token to switch under this name, or use the address"),
    }
}

/// Whether nobody can make his own name lead here.
fn is_nobodys_name(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || bare.parse::<IpAddr>().is_ok()
}

/// Whether the origin is the host that was asked.
fn is_of(origin: Option<&str>, host: Option<&str>) -> bool {
    let place = origin.and_then(|origin| origin.strip_prefix("http://").or(origin.strip_prefix("https://")));
    place.zip(host).is_some_and(|(place, host)| place.eq_ignore_ascii_case(host))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "127.0.0.1";
    const THERE: &str = "192.0.2.7";

    fn access(token: Option<&str>, ingress: bool) -> Access {
        let settings = Settings { token: token.map(Into::into), ingress, ..Settings::default() };
        Access::of(&settings).unwrap()
    }

    fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
        let one =
            |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        headers.iter().map(one).collect()
    }

    fn asked(access: &Access, peer: &str, given: &[(&'static str, &str)]) -> u16 {
        match access.control(peer.parse().unwrap(), &headers(given)) {
            Ok(()) => 200,
            Err(Refusal::Token) => 401,
            Err(Refusal::Forbidden(_)) => 403,
        }
    }

    #[test]
    fn without_a_token_only_this_machine_switches() {
        let access = access(None, false);
        for (peer, given, expected) in [
            (HERE, &[("host", "127.0.0.1:8099")][..], 200),
            (HERE, &[("host", "localhost:8099")], 200),
            (HERE, &[("host", "LOCALHOST")], 200),
            (HERE, &[("host", "[::1]:8099")], 200),
            (HERE, &[("host", "[::1]")], 200),
            ("::1", &[("host", "[::1]:8099"), ("origin", "http://[::1]:8099")], 200),
            ("::ffff:127.0.0.1", &[("host", "127.0.0.1")], 200),
            (HERE, &[("host", "localhost:8099"), ("origin", "http://localhost:8099")], 200),
            // Rebinding: the page's own name leads here, so its origin fits.
            (HERE, &[("host", "evil.example:8099"), ("origin", "http://evil.example:8099")], 403),
            (HERE, &[("host", "evil.example")], 403),
            (HERE, &[("host", "localhost.evil.example")], 403),
            (HERE, &[], 403),
            (HERE, &[("host", "localhost:8099"), ("origin", "http://evil.example")], 403),
            (HERE, &[("host", "localhost:8099"), ("origin", "http://localhost:1")], 403),
            (HERE, &[("host", "localhost:8099"), ("origin", "null")], 403),
            // A proxy here speaks for everybody.
            (HERE, &[("host", "127.0.0.1:8099"), ("x-forwarded-for", "192.0.2.7")], 403),
            (THERE, &[("host", "192.0.2.1:8099")], 403),
            ("::ffff:192.0.2.7", &[("host", "192.0.2.1:8099")], 403),
        ] {
            assert_eq!(asked(&access, peer, given), expected, "{peer} {given:?}");
        }
        let rights = access.rights(THERE.parse().unwrap(), &headers(&[("host", "192.0.2.1")]));
        assert_eq!(rights, Rights { may_control: false, needs_token: false });
    }

    #[test]
    fn with_a_token_whoever_knows_it_switches() {
        let access = access(Some("correct horse"), false);
        let host = ("host", "plugs.lan");
        for (peer, given, expected) in [
            (THERE, &[host, ("authorization", "Bearer correct horse")][..], 200),
            (HERE, &[host, ("authorization", "Bearer correct horse"), ("origin", "https://plugs.lan")], 200),
            (HERE, &[("host", "localhost")], 401),
            (THERE, &[host, ("authorization", "Bearer correct hors")], 401),
            (THERE, &[host, ("authorization", "Bearer ")], 401),
            (THERE, &[host, ("authorization", "Basic correct horse")], 401),
            (THERE, &[host, ("authorization", "Bearer correct horse"), ("origin", "https://evil.lan")], 403),
        ] {
            assert_eq!(asked(&access, peer, given), expected, "{peer} {given:?}");
        }
        let rights = access.rights(THERE.parse().unwrap(), &headers(&[host]));
        assert_eq!(rights, Rights { may_control: true, needs_token: true });
        assert!(!format!("{access:?}").contains("horse"));
        let short = Settings { token: Some("short".into()), ..Settings::default() };
        assert!(Access::of(&short).unwrap_err().contains("http.token"));
    }

    #[test]
    fn behind_ingress_only_ingress_is_there() {
        let access = access(None, true);
        let admits = |peer: &str, path| access.admits(peer.parse().unwrap(), path);
        assert!(admits("172.30.32.2", "/") && admits("::ffff:172.30.32.2", "/api/set"));
        assert!(!admits(THERE, "/") && !admits(HERE, "/") && !admits(HERE, "/metrics"));
        assert!(admits(HERE, HEALTH) && !admits(THERE, HEALTH));
        let foreign = [("host", "ha.local"), ("origin", "https://home.example")];
        assert_eq!(asked(&access, "172.30.32.2", &foreign), 200);
        assert_eq!(asked(&access, HERE, &[("host", "localhost")]), 403);
        let rights = access.rights("172.30.32.2".parse().unwrap(), &headers(&foreign));
        assert_eq!(rights, Rights { may_control: true, needs_token: false });
    }
}
