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
                    let behaviour = life.clone();
                    tokio::select! {
                        biased;
                        // Who held the plug has gone.
                        closed = life.wait_for(|life| !is_wanted(life)) => if closed.is_err() { return Ok(()) },
                        () = welcome(&listener, &behaviour, &serve) => {}
                    }
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

/// Takes connections, which end with it.
async fn welcome<C: Future<Output = ()> + Send + 'static>(
    listener: &TcpListener,
    life: &watch::Receiver<Life>,
    serve: impl Fn(TcpStream) -> C,
) {
    let mut connections = JoinSet::new();
    let mut accepted_so_far = 0u64;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                accepted_so_far += 1;
                if life.borrow().behaviour.bad_wifi && accepted_so_far.is_multiple_of(3) {
                    continue;
                }
                connections.spawn(serve(stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
