//! The embedded broker, for people who have none: MQTT 5 and 3.1.1 on one port, retained messages, one user or none.
//!
//! A broker like any other: the bridge reaches it over TCP. It has a thread and a runtime of its own, so that a slow
//! client of the broker costs the bridge nothing, and ending it needs nobody's consent. It is not meant to be a
//! house's general broker: no TLS, no access lists, no clustering. Known oddity of the crate: it adds a user property
//! `x-mqtt-client-id` to what MQTT 5 subscribers receive.

pub mod settings;

use std::io;
use std::net::SocketAddr;

use self::settings::Settings;

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else listens there.
    #[error(
        "the embedded broker cannot listen on {0}: the port is taken. Choose another with broker.listen \
         (KASA2MQTT_BROKER__LISTEN), or use the broker that is there by setting mqtt.url"
    )]
    PortTaken(SocketAddr),
    /// The address is not ours, or not allowed.
    #[error("the embedded broker cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Beyond loopback there is no anonymous access.
    #[error(
        "the embedded broker does not listen on {0} without a password, since others can reach it: \
         set broker.username and broker.password_file"
    )]
    Anonymous(SocketAddr),
    /// A user needs both.
    #[error(
        "broker.username needs broker.password or broker.password_file beside it, and neither may be empty"
    )]
    HalfUser,
    /// The password cannot be read.
    #[error("{0}")]
    Password(io::Error),
    /// The crate gave up.
    #[error("the embedded broker did not start: {0}")]
    Crate(String),
    /// This program was built without it.
    #[error(
        "no broker: set mqtt.url (KASA2MQTT_MQTT__URL); this program was built without the embedded broker \
         (feature embedded-broker)"
    )]
    NotBuilt,
}

/// A running broker. Ends when dropped.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    #[cfg(feature = "embedded-broker")]
    thread: embedded::Thread,
}

#[cfg(feature = "embedded-broker")]
mod embedded;
#[cfg(feature = "embedded-broker")]
mod users;

#[cfg(not(feature = "embedded-broker"))]
impl Broker {
    /// Fails: the broker was left out of this build.
    ///
    /// # Errors
    /// [`Error::NotBuilt`], always.
    pub async fn start(_: Settings) -> Result<Broker, Error> {
        Err(Error::NotBuilt)
    }

    /// Waits for ever.
    pub async fn ended(&mut self) {
        std::future::pending().await
    }

    /// Nothing to stop.
    pub async fn stop(self) {}
}

impl Broker {
    /// Where it listens; the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
