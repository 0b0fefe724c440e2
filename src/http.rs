//! The status page, `/metrics` and `/health`.
//!
//! ```text
//!  core loop ──changes──► painter ──events──► browsers
//!      ▲                     ▲
//!      └──────asks─────── server ◄──requests── browsers, Prometheus, health checks
//! ```
//! Server and painter have a thread and a runtime of their own: rendering ten thousand plugs delays no command, and
//! whether the core still turns is seen from outside. The painter keeps a picture of the fleet and draws what is asked
//! for; commands go to the core, and their results come from it.

pub mod access;
pub mod history;
pub mod metrics;
mod painter;
mod patience;
pub mod picture;
pub mod process;
mod server;
pub mod settings;

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::SystemTime;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use crate::bridge::view::{Change, Whole};

use self::access::Access;
use self::settings::Settings;

/// Changes on their way to the painter.
const CHANGES: usize = 256;

/// Questions on their way to the core.
const ASKS: usize = 64;

/// What the system holds of each slow reader's answer, instead of megabytes.
const SEND_BUFFER: u32 = 64 << 10;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// Why the status page did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, not ours, or not allowed.
    #[error("the status page cannot listen on {address} (http.listen): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The token cannot be read, or is too short.
    #[error("{0}")]
    Token(String),
    /// No thread.
    #[error("the status page did not start: {0}")]
    Thread(io::Error),
}

/// What the core is asked.
#[derive(Debug)]
pub enum Ask {
    /// How it is. Who answers is alive.
    Whole(oneshot::Sender<Whole>),
    /// To switch.
    Set {
        /// Name or MAC.
        plug: String,
        /// The number of a strip's outlet; 0 for the plug as a whole.
        outlet: u8,
        /// As on the topic `set`.
        payload: &'static str,
        /// When it was asked.
        received: std::time::Instant,
        /// For the result; `None` when there is no such plug or outlet.
        result: oneshot::Sender<Option<Vec<u8>>>,
    },
}

/// The core's ends.
#[derive(Debug)]
pub struct Ends {
    /// For every plug that changed.
    pub changes: mpsc::Sender<Change>,
    /// The newest of the whole.
    pub whole: watch::Sender<Whole>,
    /// What the core is asked.
    pub asks: mpsc::Receiver<Ask>,
}

/// The address is taken; nobody is served yet.
#[derive(Debug)]
pub struct Door {
    listener: std::net::TcpListener,
    address: SocketAddr,
    access: Access,
}

impl Door {
    /// Takes the address, if there is one. Within a runtime.
    ///
    /// # Errors
    /// The address or the token cannot be used.
    pub fn open(settings: &Settings) -> Result<Option<Door>, Error> {
        let Some(address) = settings.listen else { return Ok(None) };
        let access = Access::of(settings).map_err(Error::Token)?;
        let failed = |error| Error::Listen { address, error };
        let listener = listen(address).and_then(TcpListener::into_std).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        info!("the status page is at http://{address}");
        Ok(Some(Door { listener, address, access }))
    }

    /// Where it is; the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves, in a thread of its own. `started` is when the program did.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn serve(self, started: SystemTime) -> Result<(Server, Ends), Error> {
        let (changes, changed) = mpsc::channel(CHANGES);
        let (whole, seen) = watch::channel(Whole::default());
        let (asks, asked) = mpsc::channel(ASKS);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ending, ended) = oneshot::channel::<()>();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let run = move || {
            runtime.block_on(async {
                let (painter, questions) = painter::Painter::new(changed, seen, started);
                tokio::select! {
                    () = painter.run() => {}
                    () = server::run(self.listener, self.access, questions, asks) => {}
                    _ = stopped => {}
                }
            });
            // Abandons every connection.
            runtime.shutdown_background();
            drop(ending);
        };
        thread::Builder::new().name("http".into()).spawn(run).map_err(Error::Thread)?;
        Ok((Server { stop: Some(stop), ended }, Ends { changes, whole, asks: asked }))
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The port of a bridge that has just ended.
    socket.set_reuseaddr(true)?;
    // Of each connection, too.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The running server. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl Server {
    /// Completes when it has ended.
    pub async fn ended(&mut self) {
        if !self.ended.is_terminated() {
            let _ = (&mut self.ended).await;
        }
    }

    /// Stops, and returns when the port is free.
    pub async fn stop(mut self) {
        self.stop = None;
        self.ended().await;
    }
}
