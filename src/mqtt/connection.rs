//! One connection to the broker: its options, and the task that polls it.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Outgoing, QoS,
    TlsConfiguration, Transport,
};
use secrecy::ExposeSecret;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::pulse::Pulse;
use super::settings::{BrokerUrl, Settings};
use super::tls;
use super::window::WINDOW;

/// The client's own limit of messages in flight.
const IN_FLIGHT: u16 = 100;

/// Requests that the client holds for its event loop; never full, since the window is smaller.
const REQUESTS: usize = 128;

/// The largest message, in bytes: the list of 10,000 plugs has a few MB, and is read again at the next start. A larger
/// one ends the connection.
const LARGEST: usize = 16 << 20;

/// Time for TCP, TLS and CONNACK together.
const CONNECT: Duration = Duration::from_secs(10);

/// The same where there is another broker to go to.
const CONNECT_TO_ONE_OF_SEVERAL: Duration = Duration::from_secs(3);

/// Time for the broker to close its end after our disconnect.
const DRAIN: Duration = Duration::from_millis(200);

/// The message that the broker publishes, retained, when we vanish.
#[derive(Debug, Clone)]
pub struct Will {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: &'static str,
}

/// Why no connection could be begun.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// A password, certificate or key cannot be read, or is not one.
    #[error("{0}")]
    Configuration(String),
    /// The broker's name cannot be resolved.
    #[error("cannot resolve {host}: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
}

/// What the event loop says, with the moment at which it came off the wire.
pub type Polled = (Instant, Result<Event, End>);

/// How a connection ends.
#[derive(Debug)]
pub enum End {
    /// As the client says.
    Client(ConnectionError),
    /// Nobody knows how old that is what would be read next: we stood still for so long.
    StoodStill(Duration),
}

/// A fresh client, its event loop polled by a task of its own.
pub struct Connection {
    /// For `try_` calls only: a call that waits can wait for itself.
    pub client: AsyncClient,
    /// Everything the event loop says. Ends after an error, or after our own disconnect.
    pub events: mpsc::Receiver<Polled>,
    poller: JoinHandle<()>,
}

impl Connection {
    /// Begins a connection. `attempt` picks among several addresses of one name: the client would try only the first.
    /// `since` is when timers began ([`Steps`](crate::steps::Steps)).
    pub async fn begin(
        settings: &Settings,
        url: &BrokerUrl,
        client_id: &str,
        will: Option<&Will>,
        attempt: usize,
        since: Instant,
    ) -> Result<Connection, NotBegun> {
        let configuration = |error: &dyn std::fmt::Display| NotBegun::Configuration(error.to_string());
        let host = match url.tls {
            // The name is also what the certificate must say.
            true => url.host.clone(),
            false => resolve(&url.host, url.port, attempt).await?.ip().to_string(),
        };
        let mut options = MqttOptions::new(client_id, host, url.port);
        options
            .set_keep_alive(settings.patience())
            .set_clean_session(true)
            .set_inflight(IN_FLIGHT)
            .set_max_packet_size(LARGEST, LARGEST);
        if let Some(will) = will {
            options.set_last_will(LastWill::new(&will.topic, will.payload, QoS::AtLeastOnce, true));
        }
        if let Some(username) = &settings.username {
            let password = settings.secret().map_err(|error| configuration(&error))?;
            let password = password.as_ref().map_or("", |password| password.expose_secret());
            options.set_credentials(username, password);
        }
        if url.tls {
            let tls = tls::client_config(settings).map_err(|error| configuration(&error))?;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
        }
        let (client, mut event_loop) = AsyncClient::new(options, REQUESTS);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        let time = if settings.urls.len() > 1 { CONNECT_TO_ONE_OF_SEVERAL } else { CONNECT };
        network.set_connection_timeout(time.as_secs());
        event_loop.set_network_options(network);
        // Wide enough that the event loop hardly ever waits for us; acknowledgements of a whole window fit.
        let (sender, events) = mpsc::channel(4 * WINDOW + 56);
        let poller = tokio::spawn(poll(event_loop, sender, Pulse::start(since)));
        Ok(Connection { client, events, poller })
    }
}

/// The event loop is not used again, so ending its task anywhere is safe; this closes the socket.
impl Drop for Connection {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

/// Polls, and does nothing else: `EventLoop::poll` loses messages when it is cancelled, and freezes when its consumer
/// waits for it while it waits for its consumer.
async fn poll(mut event_loop: EventLoop, events: mpsc::Sender<Polled>, mut pulse: Pulse) {
    loop {
        let polled = next(&mut event_loop, &mut pulse).await;
        let failed = polled.is_err();
        if let Err(End::Client(_)) = polled {
            // What came with the end of the connection is still in the client's hands, which would give it to nobody, or
            // to the next connection.
            for event in std::mem::take(&mut event_loop.state.events) {
                if events.send((Instant::now(), Ok(event))).await.is_err() {
                    return;
                }
            }
        }
        let disconnected = matches!(polled, Ok(Event::Outgoing(Outgoing::Disconnect)));
        if events.send((Instant::now(), polled)).await.is_err() || failed {
            return;
        }
        if disconnected {
            // Until the broker has closed its end: what it still sends, and nobody reads, would make our own end a reset,
            // and of a reset it takes no disconnect. Not once more than that: the client would connect again.
            let _ = timeout(DRAIN, async { while event_loop.poll().await.is_ok() {} }).await;
            return;
        }
    }
}

/// What the event loop says next. It is never cancelled, but when we stood still, and then not used again.
async fn next(event_loop: &mut EventLoop, pulse: &mut Pulse) -> Result<Event, End> {
    let mut poll = pin!(event_loop.poll());
    loop {
        let polled = tokio::select! {
            biased;
            () = pulse.beat() => None,
            polled = &mut poll => Some(polled),
        };
        if let Some(pause) = pulse.look() {
            return Err(End::StoodStill(pause));
        }
        if let Some(polled) = polled {
            return polled.map_err(End::Client);
        }
    }
}

async fn resolve(host: &str, port: u16, attempt: usize) -> Result<SocketAddr, NotBegun> {
    let failed = |error| NotBegun::Resolve { host: host.into(), error };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(failed)?.collect();
    let none = || failed(io::Error::new(io::ErrorKind::NotFound, "no address"));
    addresses.get(attempt % addresses.len().max(1)).copied().ok_or_else(none)
}
