//! A TCP port that can be closed: then connections are refused, and nobody else gets the port.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::host::Life;

/// Connections that wait to be taken.
const BACKLOG: u32 = 64;

/// An open or closed port.
#[derive(Debug)]
pub(super) enum Door {
    Open(TcpListener),
    Closed(TcpSocket),
}

impl Door {
    /// Port 0 takes a free one.
    pub fn new(address: SocketAddr, open: bool) -> io::Result<Door> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        if open { Ok(Door::Open(socket.listen(BACKLOG)?)) } else { Ok(Door::Closed(socket)) }
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Door::Open(listener) => listener.local_addr(),
            Door::Closed(socket) => socket.local_addr(),
        }
    }

    fn is_open(&self) -> bool {
        matches!(self, Door::Open(_))
    }

    /// Opens and closes it as `is_wanted` has it, and says in `open` when that is done. Ends when the plug does, or when
    /// the port is lost.
    pub async fn tend<C: Future<Output = ()> + Send + 'static>(
        mut self,
        mut life: watch::Receiver<Life>,
        is_wanted: fn(&Life) -> bool,
        open: watch::Sender<bool>,
        serve: impl Fn(TcpStream) -> C,
    ) -> io::Result<()> {
        let address = self.address()?;
        loop {
            open.send_replace(self.is_open());
            self = match self {
                Door::Open(listener) => {
                    let mut connections = JoinSet::new();
                    loop {
                        tokio::select! {
                            biased;
                            closed = life.wait_for(|life| !is_wanted(life)) => match closed {
                                Ok(_) => break,
                                Err(_) => return Ok(()),
                            },
                            accepted = listener.accept() => {
                                if let Ok((stream, _)) = accepted {
                                    connections.spawn(serve(stream));
                                }
                            }
                            Some(_) = connections.join_next() => {}
                        }
                    }
                    connections.shutdown().await;
                    drop(listener);
                    Door::new(address, false)?
                }
                Door::Closed(socket) => match life.wait_for(is_wanted).await {
                    Ok(_) => Door::Open(socket.listen(BACKLOG)?),
                    Err(_) => return Ok(()),
                },
            };
        }
    }
}
