//! A simulated plug on the network: TCP and UDP on one port; where it speaks KLAP, HTTP and an announcement on others.

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

pub use super::behaviour::{Behaviour, Klap, Reply};
use super::connection;
use super::discovery::{self, Announcement, Scheme};
use super::door::Door;
pub use super::host::Counts;
use super::host::{Ask, Host, Life, ask};
use super::http;
use super::plug::{SimPlug, Way};
use crate::plug::cipher;

/// A simulated plug. Dropping it ends it and frees its port.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    klap: Option<KlapAddresses>,
    /// Whether its TCP ports are open: XOR, then KLAP.
    open: [watch::Receiver<bool>; 2],
    mac: String,
    asks: mpsc::Sender<Ask>,
    counts: watch::Receiver<Counts>,
    relay: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

/// Where a plug that speaks KLAP listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KlapAddresses {
    /// KLAP, by TCP.
    pub http: SocketAddr,
    /// The announcement, by UDP.
    pub discovery: SocketAddr,
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
        let free = SocketAddr::new(address.ip(), 0);
        Simulator::start_on(plug, address, KlapAddresses { http: free, discovery: free }, wall).await
    }

    /// The same with addresses for KLAP, which only a plug takes whose behaviour says that it speaks it.
    ///
    /// # Errors
    /// One of the addresses cannot be used.
    pub async fn start_on(
        plug: SimPlug,
        address: SocketAddr,
        klap: KlapAddresses,
        wall: SystemTime,
    ) -> io::Result<Simulator> {
        let speaks_klap = plug.behaviour.klap.is_some();
        let (xor, datagrams) = bind(address, !speaks_klap).await?;
        let address = xor.address()?;
        let (asks, inbox) = mpsc::channel(64);
        let (mac, model) = (plug.mac(), plug.model());
        let host = Host::new(plug, wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let (lives, counts, relay) = (host.life(), host.counts(), host.relay());
        let mut tasks = JoinSet::new();
        tasks.spawn(host.run(inbox));
        tasks.spawn(datagram(datagrams, asks.clone(), lives.clone()));
        let open = [watch::Sender::new(!speaks_klap), watch::Sender::new(speaks_klap)];
        let receivers = [open[0].subscribe(), open[1].subscribe()];
        let [xor_open, http_open] = open;
        let (sender, life) = (asks.clone(), lives.clone());
        let serve =
            move |stream| connected(sender.clone(), connection::serve(stream, sender.clone(), life.clone()));
        tasks.spawn(tend(xor, lives.clone(), Life::speaks_xor, xor_open, serve));
        let mut addresses = None;
        if speaks_klap {
            let door = Door::new(klap.http, true)?;
            let socket = UdpSocket::bind(klap.discovery).await?;
            let klap = KlapAddresses { http: door.address()?, discovery: socket.local_addr()? };
            addresses = Some(klap);
            let (sender, life) = (asks.clone(), lives.clone());
            let serve =
                move |stream| connected(sender.clone(), http::serve(stream, sender.clone(), life.clone()));
            tasks.spawn(tend(door, lives.clone(), Life::speaks_klap, http_open, serve));
            let announcement =
                Announcement { http_port: klap.http.port(), ..Announcement::plug(&mac, &model, Scheme::Xor) };
            tasks.spawn(discovery::answer(socket, move || announced(&announcement, &lives.borrow())));
        }
        Ok(Simulator { address, klap: addresses, open: receivers, mac, asks, counts, relay, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it speaks KLAP, if it was started as a plug that does.
    pub fn klap(&self) -> Option<KlapAddresses> {
        self.klap
    }

    /// Speaks KLAP from now on, or XOR, if it was started as a plug that speaks KLAP. Returns when one port is open and
    /// the other closed.
    pub async fn speak(&self, klap: Option<Klap>) {
        let behaviour = Behaviour { klap, ..self.look().await.behaviour };
        self.behave(behaviour).await;
        for (open, wanted) in self.open.clone().iter_mut().zip([klap.is_none(), klap.is_some()]) {
            let _ = open.wait_for(|open| *open == wanted).await;
        }
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

async fn bind(address: SocketAddr, open: bool) -> io::Result<(Door, UdpSocket)> {
    // A port that is free for TCP need not be so for UDP.
    for _ in 0..20 {
        let door = Door::new(address, open)?;
        match UdpSocket::bind(door.address()?).await {
            Ok(datagrams) => return Ok((door, datagrams)),
            Err(error) if address.port() != 0 => return Err(error),
            Err(_) => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port that is free for TCP and UDP"))
}

/// A port that is lost stays closed, which whoever asks there will notice.
async fn tend<C: Future<Output = ()> + Send + 'static>(
    door: Door,
    life: watch::Receiver<Life>,
    is_wanted: fn(&Life) -> bool,
    open: watch::Sender<bool>,
    serve: impl Fn(TcpStream) -> C,
) {
    let _ = door.tend(life, is_wanted, open, serve).await;
}

async fn connected(asks: mpsc::Sender<Ask>, connection: impl Future<Output = ()>) {
    let _ = asks.send(Ask::Connected).await;
    connection.await;
}

/// What it says of itself now; nothing while it is away.
fn announced(announcement: &Announcement, life: &Life) -> Vec<Announcement> {
    if life.is_deaf() {
        return Vec::new();
    }
    let scheme = match life.behaviour.klap {
        None => Scheme::Xor,
        Some(Klap::First) => Scheme::Klap,
        Some(Klap::Second) => Scheme::NewKlap,
    };
    vec![Announcement { scheme, ..announcement.clone() }]
}

async fn datagram(socket: UdpSocket, asks: mpsc::Sender<Ask>, life: watch::Receiver<Life>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        let silent = {
            let life = life.borrow();
            let reply = life.behaviour.reply;
            life.is_deaf()
                || life.speaks_klap()
                || life.behaviour.no_udp
                || matches!(reply, Reply::Silence | Reply::Lost)
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
