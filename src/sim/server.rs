//! A simulated plug on the network: TCP and UDP on one port.

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

pub use super::behaviour::{Behaviour, Reply};
use super::connection;
pub use super::host::Counts;
use super::host::{Ask, Host, Life, ask};
use super::plug::{SimPlug, Way};
use crate::plug::cipher;

/// A simulated plug. Dropping it ends it and frees its port.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    mac: String,
    asks: mpsc::Sender<Ask>,
    counts: watch::Receiver<Counts>,
    relay: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

impl Simulator {
    /// Puts `plug` on `address`; port 0 takes a free one, for TCP and UDP alike.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn start(plug: SimPlug, address: SocketAddr) -> io::Result<Simulator> {
        Simulator::start_at(plug, address, SystemTime::now()).await
    }

    /// The same in a world where it is now `wall`; from then on time passes as the runtime's does.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn start_at(plug: SimPlug, address: SocketAddr, wall: SystemTime) -> io::Result<Simulator> {
        let (listener, datagrams) = bind(address).await?;
        let address = listener.local_addr()?;
        let (asks, inbox) = mpsc::channel(64);
        let mac = plug.mac();
        let host = Host::new(plug, wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let (lives, counts, relay) = (host.life(), host.counts(), host.relay());
        let mut tasks = JoinSet::new();
        tasks.spawn(host.run(inbox));
        tasks.spawn(listen(listener, asks.clone(), lives.clone()));
        tasks.spawn(datagram(datagrams, asks.clone(), lives));
        Ok(Simulator { address, mac, asks, counts, relay, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `50:C7:BF:...`
    pub fn mac(&self) -> &str {
        &self.mac
    }

    /// The plug as it is now.
    pub async fn look(&self) -> SimPlug {
        self.ask(Ask::Look).await
    }

    /// The last requests that it read, as they were, the oldest first.
    pub async fn log(&self) -> Vec<String> {
        self.ask(Ask::Log).await
    }

    /// Every request from now on, as it is read.
    pub async fn watch(&self) -> mpsc::UnboundedReceiver<String> {
        let (sender, requests) = mpsc::unbounded_channel();
        let _ = self.asks.send(Ask::Watch(sender)).await;
        requests
    }

    /// Somebody presses the button; of a strip, its first.
    pub async fn press(&self, on: bool) {
        self.press_outlet(0, on).await;
    }

    /// Somebody presses one button of a strip.
    pub async fn press_outlet(&self, index: usize, on: bool) {
        let _ = self.asks.send(Ask::Press(index, on)).await;
    }

    /// Changes its habits from the next request on; a deaf one drops the connections that it has as well.
    pub async fn behave(&self, behaviour: Behaviour) {
        let _ = self.asks.send(Ask::Behave(behaviour)).await;
    }

    /// Changes the plug itself.
    pub async fn change(&self, change: impl FnOnce(&mut SimPlug) + Send + 'static) {
        let _ = self.asks.send(Ask::Change(Box::new(change))).await;
    }

    /// What it has seen so far; can be waited on.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.clone()
    }

    /// Where its (first) relay is; can be waited on.
    pub fn relay(&self) -> watch::Receiver<bool> {
        self.relay.clone()
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> T {
        let (sender, receiver) = oneshot::channel();
        let _ = self.asks.send(question(sender)).await;
        receiver.await.expect("the owner lives as long as the simulator")
    }
}

async fn bind(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    // A port that is free for TCP need not be so for UDP.
    for _ in 0..20 {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(64)?;
        match UdpSocket::bind(listener.local_addr()?).await {
            Ok(datagrams) => return Ok((listener, datagrams)),
            Err(error) if address.port() != 0 => return Err(error),
            Err(_) => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port that is free for TCP and UDP"))
}

async fn listen(listener: TcpListener, asks: mpsc::Sender<Ask>, life: watch::Receiver<Life>) {
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
                let _ = asks.send(Ask::Connected).await;
                connections.spawn(connection::serve(stream, asks.clone(), life.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn datagram(socket: UdpSocket, asks: mpsc::Sender<Ask>, life: watch::Receiver<Life>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        let silent = {
            let life = life.borrow();
            let reply = life.behaviour.reply;
            life.is_deaf() || life.behaviour.no_udp || matches!(reply, Reply::Silence | Reply::Lost)
        };
        if silent {
            continue;
        }
        let mut request = buffer[..length].to_vec();
        cipher::decrypt(&mut request);
        if let Some(reply) = ask(&asks, request, Way::Udp).await {
            let _ = socket.send_to(&cipher::encrypt(reply.as_bytes()), sender).await;
        }
    }
}
