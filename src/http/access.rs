//! Who may look, and who may switch.
//!
//! Everybody who reaches the address may look. Whoever knows the token may switch; where there is none, whoever sits
//! at this machine. A browser is no proof of who asks, for any page in it may send requests: a page of another origin is
//! turned away, and so is one whose own name leads here (DNS rebinding); without a token whatever a proxy forwards, too.

use std::net::{IpAddr, Ipv4Addr};

use hyper::header::{AUTHORIZATION, FORWARDED, HOST, HeaderMap, HeaderName, ORIGIN, VIA};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::secret;

use super::settings::Settings;

/// Home Assistant's ingress: the only one who may speak to an add-on that stands behind it (homeassistant.md 7).
const INGRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 32, 2));

/// Shorter ones are guessed.
pub const SHORTEST_TOKEN: usize = 12;

/// What is asked of health checks.
pub const HEALTH: &str = "/health";

/// Endings of names that nobody can register on the internet, so that no stranger can make them lead here.
const LOCAL_NAMES: [&str; 6] = [".local", ".lan", ".internal", ".home.arpa", ".localhost", ".localdomain"];

/// See the module.
#[derive(Clone)]
pub struct Access {
    /// Digests are compared, so that the time it takes tells nothing.
    token: Option<[u8; 32]>,
    hosts: Vec<String>,
    ingress: bool,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Access").field("ingress", &self.ingress).finish_non_exhaustive()
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    address: IpAddr,
    /// Whether it has our own address. That may also be said of somebody whom a container's network let in.
    is_us: bool,
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

impl Peer {
    /// `own` is our end of the connection.
    pub fn new(address: IpAddr, own: IpAddr) -> Peer {
        let address = address.to_canonical();
        Peer { address, is_us: address == own.to_canonical() }
    }

    /// Whether the connection never left this machine.
    pub fn is_loopback(&self) -> bool {
        self.address.is_loopback()
    }
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
        let hosts = settings.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Ok(Access { token: token.map(digest), hosts, ingress: settings.ingress })
    }

    /// Whether `peer` is spoken to at all. Health is no secret; a health check may come from inside the container.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, peer: Peer, path: &str, headers: &HeaderMap) -> Result<(), &'static str> {
        if path == HEALTH && (!self.ingress || peer.is_loopback() || peer.is_us) {
            return Ok(());
        }
        if self.ingress {
            return if peer.address == INGRESS { Ok(()) } else { Err("only through Home Assistant") };
        }
        let host = text(headers, HOST);
        // Browsers name it always; what has none is none. What cannot be read is not ours.
        if headers.contains_key(HOST) && !host.is_some_and(|host| self.is_ours(host)) {
            return Err("not under this name: add it to http.hosts, or use the address");
        }
        match headers.contains_key(ORIGIN) && !self.is_own_origin(text(headers, ORIGIN), host) {
            true => Err("another origin's page asks"),
            false => Ok(()),
        }
    }

    /// What whoever asks like this may do, once he was admitted.
    pub fn rights(&self, peer: Peer, headers: &HeaderMap) -> Rights {
        match self.control(peer, headers) {
            Ok(()) => Rights { may_control: true, needs_token: !self.ingress && self.token.is_some() },
            Err(Refusal::Token) => Rights { may_control: true, needs_token: true },
            Err(Refusal::Forbidden(_)) => Rights { may_control: false, needs_token: false },
        }
    }

    /// Whether he may switch, once he was admitted.
    ///
    /// # Errors
    /// Why not.
    pub fn control(&self, peer: Peer, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.ingress {
            return Ok(());
        }
        let Some(token) = self.token else {
            return at_this_machine(peer, headers).map_err(Refusal::Forbidden);
        };
        let given = text(headers, AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let is_right = given.is_some_and(|given| <[u8; 32]>::from(Sha256::digest(given)) == token);
        if is_right { Ok(()) } else { Err(Refusal::Token) }
    }

    /// Whether nobody but us can have made this name lead here.
    fn is_ours(&self, host: &str) -> bool {
        let name = name(host).to_ascii_lowercase();
        address(&name).is_some()
            || !name.contains('.')
            || LOCAL_NAMES.iter().any(|ending| name.ends_with(ending))
            || self.hosts.contains(&name)
    }

    /// Whether the page was loaded from where it asks now. A proxy that keeps its own name to itself does not pass it on.
    fn is_own_origin(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let place =
            origin.and_then(|origin| origin.strip_prefix("http://").or(origin.strip_prefix("https://")));
        place.is_some_and(|place| {
            host.is_some_and(|host| place.eq_ignore_ascii_case(host))
                || self.hosts.contains(&name(place).to_ascii_lowercase())
        })
    }
}

/// Whether it is hard to guess, as far as its length tells.
pub fn is_long_enough(token: &SecretString) -> bool {
    token.expose_secret().len() >= SHORTEST_TOKEN
}

fn at_this_machine(peer: Peer, headers: &HeaderMap) -> Result<(), &'static str> {
    const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    if !peer.is_loopback() {
        return Err("set http.token to switch from other machines");
    }
    if [FORWARDED_FOR, FORWARDED, VIA].iter().any(|header| headers.contains_key(header)) {
        return Err("set http.token to switch through a proxy");
    }
    let host = text(headers, HOST).map(name);
    let is_loopback = |name: &str| {
        name.eq_ignore_ascii_case("localhost") || address(name).is_some_and(|address| address.is_loopback())
    };
    match host.is_some_and(is_loopback) {
        true => Ok(()),
        false => Err("set http.token to switch under this name, or use localhost"),
    }
}

/// The name in `name:port`.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

/// The address in `192.0.2.1` or `[2001:db8::1]`.
fn address(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse().ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const HERE: &str = "127.0.0.1";
    const THERE: &str = "192.0.2.7";
    const OURS: &str = "192.0.2.1";

    fn access(settings: Settings) -> Access {
        Access::of(&settings).unwrap()
    }

    fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
        let one =
            |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        headers.iter().map(one).collect()
    }

    fn peer(address: &str) -> Peer {
        Peer::new(address.parse().unwrap(), OURS.parse().unwrap())
    }

    /// What becomes of a command.
    fn asked(access: &Access, from: &str, given: &[(&'static str, &str)]) -> u16 {
        let headers = headers(given);
        if access.admit(peer(from), "/api/set", &headers).is_err() {
            return 403;
        }
        match access.control(peer(from), &headers) {
            Ok(()) => 200,
            Err(Refusal::Token) => 401,
            Err(Refusal::Forbidden(_)) => 403,
        }
    }

    #[test]
    fn without_a_token_only_this_machine_switches() {
        let access = access(Settings::default());
        for (from, given, expected) in [
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
            (HERE, &[("host", "127.0.0.1.evil.example")], 403),
            // A name of the local network is somebody else's view of this machine.
            (HERE, &[("host", "plugs.lan")], 403),
            (HERE, &[("host", "192.0.2.1:8099")], 403),
            (HERE, &[], 403),
            (HERE, &[("host", "localhost:8099"), ("origin", "http://evil.example")], 403),
            (HERE, &[("host", "localhost:8099"), ("origin", "http://localhost:1")], 403),
            (HERE, &[("host", "localhost:8099"), ("origin", "null")], 403),
            // A proxy here speaks for everybody.
            (HERE, &[("host", "127.0.0.1:8099"), ("x-forwarded-for", "192.0.2.7")], 403),
            (HERE, &[("host", "127.0.0.1:8099"), ("via", "1.1 proxy")], 403),
            (THERE, &[("host", "192.0.2.1:8099")], 403),
            (THERE, &[("host", "localhost")], 403),
            // So may a container's network do.
            (OURS, &[("host", "localhost")], 403),
            ("::ffff:192.0.2.7", &[("host", "192.0.2.1:8099")], 403),
        ] {
            assert_eq!(asked(&access, from, given), expected, "{from} {given:?}");
        }
        let rights = access.rights(peer(THERE), &headers(&[("host", "192.0.2.1")]));
        assert_eq!(rights, Rights { may_control: false, needs_token: false });
    }

    #[test]
    fn with_a_token_whoever_knows_it_switches() {
        let access = access(Settings { token: Some("correct horse".into()), ..Settings::default() });
        let host = ("host", "plugs.lan");
        for (from, given, expected) in [
            (THERE, &[host, ("authorization", "Bearer correct horse")][..], 200),
            (HERE, &[host, ("authorization", "Bearer correct horse"), ("origin", "https://plugs.lan")], 200),
            (HERE, &[("host", "localhost")], 401),
            (THERE, &[host, ("authorization", "Bearer correct hors")], 401),
            (THERE, &[host, ("authorization", "Bearer ")], 401),
            (THERE, &[host, ("authorization", "Basic correct horse")], 401),
            (THERE, &[host, ("authorization", "Bearer correct horse"), ("origin", "https://evil.lan")], 403),
            (THERE, &[("host", "evil.example"), ("authorization", "Bearer correct horse")], 403),
        ] {
            assert_eq!(asked(&access, from, given), expected, "{from} {given:?}");
        }
        let rights = access.rights(peer(THERE), &headers(&[host]));
        assert_eq!(rights, Rights { may_control: true, needs_token: true });
        assert!(!format!("{access:?}").contains("horse"));
        let short = Settings { token: Some("short".into()), ..Settings::default() };
        assert!(Access::of(&short).unwrap_err().contains("http.token"));
    }

    #[test]
    fn names_that_strangers_could_own_are_not_answered() {
        let hosts = vec!["Plugs.example.org".to_string()];
        let access = access(Settings { hosts, ..Settings::default() });
        let sees =
            |given: &[(&'static str, &str)]| access.admit(peer(THERE), "/api/state", &headers(given)).is_ok();
        let ours = ["192.0.2.1:8099", "[2001:db8::1]:8099", "2001:db8::1", "raspberry", "raspberry:8099"];
        let others =
            ["raspberry.local", "plugs.home.arpa:8099", "kasa.svc.cluster.local", "PLUGS.example.ORG:443"];
        for host in ours.iter().chain(&others) {
            assert!(sees(&[("host", host)]), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8099", "local.example", "plugs.example.org.evil.example", "a.b:c"]
        {
            assert!(!sees(&[("host", host)]), "{host}");
        }
        assert!(sees(&[]), "a program that names nobody is no browser");
        let unreadable =
            HeaderMap::from_iter([(HOST, HeaderValue::from_bytes(b"evil\xff.example").unwrap())]);
        assert!(access.admit(peer(THERE), "/api/state", &unreadable).is_err());
        // A proxy that asks under our address for its own page.
        assert!(sees(&[("host", "127.0.0.1:8099"), ("origin", "https://plugs.example.org")]));
        assert!(!sees(&[("host", "127.0.0.1:8099"), ("origin", "https://evil.example")]));
        // Health is asked by all kinds of machines, and no secret.
        assert!(access.admit(peer(THERE), HEALTH, &headers(&[("host", "evil.example")])).is_ok());
    }

    #[test]
    fn behind_ingress_only_ingress_is_there() {
        let access = access(Settings { ingress: true, ..Settings::default() });
        let foreign = [("host", "ha.local"), ("origin", "https://home.example")];
        let admits = |from: &str, path| access.admit(peer(from), path, &headers(&foreign)).is_ok();
        assert!(admits("172.30.32.2", "/") && admits("::ffff:172.30.32.2", "/api/set"));
        assert!(!admits(THERE, "/") && !admits(HERE, "/") && !admits(HERE, "/metrics") && !admits(OURS, "/"));
        assert!(admits(HERE, HEALTH) && admits(OURS, HEALTH) && !admits(THERE, HEALTH));
        assert_eq!(asked(&access, "172.30.32.2", &foreign), 200);
        assert_eq!(asked(&access, HERE, &[("host", "localhost")]), 403);
        let rights = access.rights(peer("172.30.32.2"), &headers(&foreign));
        assert_eq!(rights, Rights { may_control: true, needs_token: false });
    }
}
