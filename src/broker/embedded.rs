//! The `mqtt5` crate's broker in a thread of its own.

use std::fs;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mqtt5::broker::{AuthProvider, AuthResult, BrokerConfig, MqttBroker, StorageBackendType, StorageConfig};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::runtime;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Broker, Error, Settings};

/// The largest message, in bytes: the list of 10,000 plugs has about 4 MB.
const LARGEST_MESSAGE: usize = 16 << 20;

/// Four topics for each of 10,000 plugs, and room for others'.
const RETAINED: usize = 60_000;

/// A client that reads slowly is sent the newest of this many messages.
const QUEUED: usize = 1000;

/// A household's clients.
const CLIENTS: usize = 256;

/// Time for a clean end. The crate takes two seconds while clients are connected, and everything that must survive is
/// on disk before it is acknowledged.
const GRACE: Duration = Duration::from_millis(100);

/// The thread's ends that we hold.
#[derive(Debug)]
pub struct Thread {
    /// Dropped, it tells the thread to end.
    stop: Option<oneshot::Sender<()>>,
    /// Completes, one way or the other, when the thread has ended.
    ended: oneshot::Receiver<()>,
}

impl Broker {
    /// Starts, and returns when clients can connect.
    ///
    /// # Errors
    /// The address cannot be used, a password is missing or cannot be read.
    pub async fn start(settings: Settings) -> Result<Broker, Error> {
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let (ready, started) = oneshot::channel();
        let run = move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    runtime.block_on(serve(settings, ready, stopped));
                    // Abandons every connection, and closes the listener.
                    runtime.shutdown_background();
                }
                Err(error) => drop(ready.send(Err(Error::Crate(error.to_string())))),
            }
            drop(ending);
        };
        thread::Builder::new()
            .name("broker".into())
            .spawn(run)
            .map_err(|error| Error::Crate(error.to_string()))?;
        let address = started.await.unwrap_or_else(|_| Err(Error::Crate("its thread died".into())))?;
        Ok(Broker { address, thread: Thread { stop: Some(stop), ended } })
    }

    /// Completes when the broker ended by itself.
    pub async fn ended(&mut self) {
        let _ = (&mut self.thread.ended).await;
    }

    /// Stops, and returns when the port is free.
    pub async fn stop(mut self) {
        self.thread.stop = None;
        self.ended().await;
    }
}

async fn serve(
    settings: Settings,
    ready: oneshot::Sender<Result<SocketAddr, Error>>,
    stopped: oneshot::Receiver<()>,
) {
    let (mut broker, address) = match open(&settings).await {
        Ok(opened) => opened,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let handle = broker.shutdown_handle();
    let mut accepting = broker.ready_receiver();
    let run = async {
        if let Err(error) = broker.run().await {
            warn!(%error, "the embedded broker failed");
        }
    };
    let stop = async {
        let _ = accepting.wait_for(|accepting| *accepting).await;
        let user = settings.username.as_deref().unwrap_or("anonymous");
        info!("embedded broker on mqtt://{address}, {user}");
        let _ = ready.send(Ok(address));
        let _ = stopped.await;
        handle.shutdown();
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = run => {}
        () = stop => {}
    }
}

async fn open(settings: &Settings) -> Result<(MqttBroker, SocketAddr), Error> {
    let password = password(settings)?;
    if !settings.listen.ip().is_loopback() && password.is_none() {
        return Err(Error::Anonymous(settings.listen));
    }
    let store = settings.state_dir.as_deref().filter(|folder| is_writable(folder));
    let broker = match MqttBroker::with_config(config(settings, store)).await {
        Ok(broker) => broker,
        Err(error) => match (TcpListener::bind(settings.listen), store) {
            (Err(error), _) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(Error::PortTaken(settings.listen));
            }
            (Err(error), _) => return Err(Error::Listen { address: settings.listen, error }),
            (Ok(_), None) => return Err(Error::Crate(error.to_string())),
            // The bridge says everything again anyway; better without a memory than not at all.
            (Ok(free), Some(folder)) => {
                drop(free);
                warn!(%error, folder = %folder.display(), "retained messages will not survive a restart");
                let config = config(settings, None);
                MqttBroker::with_config(config).await.map_err(|error| Error::Crate(error.to_string()))?
            }
        },
    };
    let address = broker.local_addr().ok_or_else(|| Error::Crate("no address".into()))?;
    let user = settings.username.clone().zip(password);
    Ok((broker.with_auth_provider(Arc::new(Users(user))), address))
}

fn config(settings: &Settings, store: Option<&Path>) -> BrokerConfig {
    let storage = StorageConfig::new().with_max_queued_messages_per_client(QUEUED);
    let storage = match store {
        Some(folder) => {
            storage.with_backend(StorageBackendType::File).with_base_dir(folder.into()).with_persistence(true)
        }
        // Persistence off is no store at all: never a folder in the working directory.
        None => storage.with_backend(StorageBackendType::Memory).with_persistence(false),
    };
    BrokerConfig::new()
        .with_bind_addresses(vec![settings.listen])
        .with_max_clients(CLIENTS)
        .with_max_packet_size(LARGEST_MESSAGE)
        .with_max_retained_messages(RETAINED)
        .with_sys_topics_enabled(false)
        .with_storage(storage)
}

fn is_writable(folder: &Path) -> bool {
    let probe = folder.join(".kasa2mqtt");
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&probe, ""))
        .and_then(|()| fs::remove_file(&probe));
    if let Err(error) = &written {
        warn!(%error, folder = %folder.display(), "broker.state_dir cannot be used; retained messages will not survive a restart");
    }
    written.is_ok()
}

fn password(settings: &Settings) -> Result<Option<SecretString>, Error> {
    let Some(path) = &settings.password_file else { return Ok(settings.password.clone()) };
    let text = fs::read_to_string(path).map_err(Error::Password)?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).into()))
}

/// Everybody, or one user.
struct Users(Option<(String, SecretString)>);

impl Users {
    fn admits(&self, packet: &ConnectPacket) -> bool {
        let Some((user, password)) = &self.0 else { return true };
        let given = packet.password.as_deref().unwrap_or_default();
        let is_user = packet.username.as_deref() == Some(user.as_str());
        // How long the comparison takes must not tell how much of a guess was right.
        is_user & bool::from(password.expose_secret().as_bytes().ct_eq(given))
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl AuthProvider for Users {
    fn authenticate<'a>(
        &'a self,
        packet: &'a ConnectPacket,
        _: SocketAddr,
    ) -> Answer<'a, mqtt5::Result<AuthResult>> {
        let result = match self.admits(packet) {
            true => AuthResult::success(),
            false => AuthResult::fail(ReasonCode::BadUsernameOrPassword),
        };
        Box::pin(async { Ok(result) })
    }

    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(async { true })
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(async { true })
    }
}
