//! The `mqtt5` crate's broker in a thread of its own.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mqtt5::MqttError;
use mqtt5::broker::{
    AuthProvider, BrokerConfig, BrokerShutdownHandle, MqttBroker, StorageBackendType, StorageConfig,
};
use tokio::runtime;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::users::Users;
use super::{Broker, Error, Settings};

/// The largest message, in bytes: the list of 10,000 plugs has a few MB.
const LARGEST_MESSAGE: usize = 16 << 20;

/// Four topics for each of 10,000 plugs, and room for others'.
const RETAINED: usize = 60_000;

/// Messages on their way to one client. All retained messages must fit, since the crate hands them over at once when a
/// client subscribes, and silently drops what does not fit: with its default of 10,000, Home Assistant would miss most
/// of a large fleet. Memory is only taken by messages that are there.
const LANE: usize = RETAINED + 4000;

/// Beyond these, and for clients that are away, the newest of this many messages are kept.
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
    /// The address cannot be used, or a user's name or password is missing or cannot be read.
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
    let Running { address, handle, run } = match open(&settings).await {
        Ok(running) => running,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let user = settings.username.as_deref().unwrap_or("anonymous");
    info!("embedded broker on mqtt://{address}, {user}");
    let _ = ready.send(Ok(address));
    let stop = async {
        let _ = stopped.await;
        handle.shutdown();
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = run => if let Err(error) = ended {
            warn!(%error, "the embedded broker failed");
        },
        () = stop => {}
    }
}

/// A broker that accepts connections for as long as `run` is polled.
struct Running {
    address: SocketAddr,
    handle: BrokerShutdownHandle,
    run: Pin<Box<dyn Future<Output = mqtt5::Result<()>>>>,
}

async fn open(settings: &Settings) -> Result<Running, Error> {
    let users = Arc::new(Users::of(settings)?);
    let store = settings.state_dir.as_deref().filter(|folder| is_writable(folder));
    let error = match run(settings, store, &users).await {
        Ok(running) => return Ok(running),
        Err(error) => error,
    };
    // The crate says in words alone what went wrong; whether it was the address is quickly tried.
    match (TcpListener::bind(settings.listen), store) {
        (Err(error), _) if error.kind() == io::ErrorKind::AddrInUse => Err(Error::PortTaken(settings.listen)),
        (Err(error), _) => Err(Error::Listen { address: settings.listen, error }),
        (Ok(_), None) => Err(Error::Crate(error.to_string())),
        // The bridge says everything again anyway; better without a memory than not at all.
        (Ok(free), Some(folder)) => {
            drop(free);
            warn!(%error, folder = %folder.display(), "retained messages will not survive a restart");
            run(settings, None, &users).await.map_err(|error| Error::Crate(error.to_string()))
        }
    }
}

/// Returns when clients can connect. The store is read on the way, so what is wrong with it shows here.
async fn run(settings: &Settings, store: Option<&Path>, users: &Arc<Users>) -> mqtt5::Result<Running> {
    let users: Arc<dyn AuthProvider> = users.clone();
    let mut broker = MqttBroker::with_config(config(settings, store)).await?.with_auth_provider(users);
    let address = broker.local_addr().ok_or_else(|| MqttError::InvalidState("no address".into()))?;
    let handle = broker.shutdown_handle();
    let mut accepting = broker.ready_receiver();
    let mut run = Box::pin(async move { broker.run().await });
    tokio::select! {
        ended = &mut run => {
            ended?;
            Err(MqttError::InvalidState("it ended at once".into()))
        }
        _ = accepting.wait_for(|accepting| *accepting) => Ok(Running { address, handle, run }),
    }
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
        .with_client_channel_capacity(LANE)
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
