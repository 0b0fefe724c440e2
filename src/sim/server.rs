//! A simulated plug on the network: TCP and UDP on one port, with the habits and the faults of real ones
//! (protocol.md 1.3, 1.4, 11).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::plug::cipher::{self, Body};

use super::plug::{Effect, SimPlug};

/// What it does with a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behaviour {
    /// How the reply travels.
    pub reply: Reply,
    /// Time before each reply.
    pub delay: Duration,
    /// Bytes in each piece of the reply; 0 for all in one.
    pub fragment: usize,
    /// Ends the connection after each reply, as most plugs do.
    pub close: bool,
    /// Answers every method with an `err_code`.
    pub refuse: bool,
    /// Ends every connection at once, as a plug whose port is closed.
    pub deaf: bool,
}

/// How a reply travels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reply {
    /// As it should.
    #[default]
    Whole,
    /// With a length of zero, and then closes: firmware of 2016.
    ZeroLength,
    /// Not at all; the connection stays open.
    Silence,
    /// A well-framed something that is not JSON.
    Rubbish,
    /// A header that announces 4 GiB.
    Huge,
    /// The first half, then closes.
    Half,
    /// Resets the connection after the first half.
    Reset,
}

/// What a simulated plug has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// TCP connections taken.
    pub connections: u64,
    /// Requests, by TCP and UDP.
    pub requests: u64,
    /// Commands to the relay.
    pub relay_commands: u64,
    /// Restarts.
    pub reboots: u64,
}

enum Ask {
    Request(Vec<u8>, oneshot::Sender<Option<String>>),
    Connected,
    Press(bool),
    Look(oneshot::Sender<SimPlug>),
    Refuse(bool),
}

/// A simulated plug. Dropping it ends it and frees its port.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    mac: String,
    asks: mpsc::Sender<Ask>,
    behaviour: watch::Sender<Behaviour>,
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
        let (listener, datagrams) = bind(address).await?;
        let address = listener.local_addr()?;
        let (asks, inbox) = mpsc::channel(64);
        let (behaviour, behaviours) = watch::channel(Behaviour::default());
        let (count, counts) = watch::channel(Counts::default());
        let (relay_moved, relay) = watch::channel(plug.relay());
        let mac = plug.mac();
        let mut tasks = JoinSet::new();
        tasks.spawn(own(plug, inbox, count, relay_moved));
        tasks.spawn(listen(listener, asks.clone(), behaviours.clone()));
        tasks.spawn(datagram(datagrams, asks.clone(), behaviours));
        Ok(Simulator { address, mac, asks, behaviour, counts, relay, _tasks: tasks })
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
        let (sender, receiver) = oneshot::channel();
        let _ = self.asks.send(Ask::Look(sender)).await;
        receiver.await.expect("the owner lives as long as the simulator")
    }

    /// Somebody presses the button.
    pub async fn press(&self, on: bool) {
        let _ = self.asks.send(Ask::Press(on)).await;
    }

    /// Changes its habits from the next request on; a deaf one drops the connections that it has as well.
    pub async fn behave(&self, behaviour: Behaviour) {
        let _ = self.asks.send(Ask::Refuse(behaviour.refuse)).await;
        self.behaviour.send_replace(behaviour);
    }

    /// What it has seen so far; can be waited on.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.clone()
    }

    /// Where its relay is; can be waited on.
    pub fn relay(&self) -> watch::Receiver<bool> {
        self.relay.clone()
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

/// The one task that has the plug.
async fn own(
    mut plug: SimPlug,
    mut inbox: mpsc::Receiver<Ask>,
    counts: watch::Sender<Counts>,
    relay: watch::Sender<bool>,
) {
    while let Some(ask) = inbox.recv().await {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match ask {
            Ask::Connected => counts.send_modify(|counts| counts.connections += 1),
            Ask::Press(on) => plug.switch(on, now),
            Ask::Refuse(refuse) => plug.refusing = refuse,
            Ask::Look(reply) => drop(reply.send(plug.clone())),
            Ask::Request(request, reply) => {
                let (text, effect) = plug.answer(&request, now).unzip();
                counts.send_modify(|counts| {
                    counts.requests += 1;
                    counts.relay_commands += u64::from(matches!(effect, Some(Effect::Relay(_))));
                    counts.reboots += u64::from(effect == Some(Effect::Reboot));
                });
                let _ = reply.send(text);
            }
        }
        relay.send_if_modified(|relay| std::mem::replace(relay, plug.relay()) != plug.relay());
    }
}

async fn listen(listener: TcpListener, asks: mpsc::Sender<Ask>, behaviours: watch::Receiver<Behaviour>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = asks.send(Ask::Connected).await;
                connections.spawn(connection(stream, asks.clone(), behaviours.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Ends with the connection, whoever ends it.
async fn connection(stream: TcpStream, asks: mpsc::Sender<Ask>, mut behaviours: watch::Receiver<Behaviour>) {
    let mut deafness = behaviours.clone();
    tokio::select! {
        _ = deafness.wait_for(|behaviour| behaviour.deaf) => {}
        _ = converse(stream, &asks, &mut behaviours) => {}
    }
}

async fn converse(
    mut stream: TcpStream,
    asks: &mpsc::Sender<Ask>,
    behaviours: &mut watch::Receiver<Behaviour>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut header = [0; cipher::HEADER];
        stream.read_exact(&mut header).await?;
        let Ok(Body::Bytes(length)) = cipher::body_length(header) else { return Ok(()) };
        let mut request = vec![0; length];
        stream.read_exact(&mut request).await?;
        cipher::decrypt(&mut request);
        let Some(reply) = ask(asks, request).await else { continue };
        let behaviour = behaviours.borrow().clone();
        tokio::time::sleep(behaviour.delay).await;
        let mut wire = cipher::frame(reply.as_bytes());
        let half = wire.len() / 2;
        match behaviour.reply {
            Reply::Whole => {}
            Reply::ZeroLength => wire[..cipher::HEADER].fill(0),
            Reply::Silence => std::future::pending().await,
            Reply::Rubbish => wire = cipher::frame(b"\x00\xff not JSON {"),
            Reply::Huge => wire[..cipher::HEADER].fill(0xff),
            Reply::Half | Reply::Reset => wire.truncate(half),
        }
        match behaviour.fragment {
            0 => stream.write_all(&wire).await?,
            size => {
                for piece in wire.chunks(size) {
                    stream.write_all(piece).await?;
                    tokio::task::yield_now().await;
                }
            }
        }
        match behaviour.reply {
            Reply::Reset => return stream.set_zero_linger(),
            Reply::ZeroLength | Reply::Half => return Ok(()),
            _ if behaviour.close => return Ok(()),
            _ => {}
        }
    }
}

async fn datagram(socket: UdpSocket, asks: mpsc::Sender<Ask>, behaviours: watch::Receiver<Behaviour>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        let silent = {
            let behaviour = behaviours.borrow();
            behaviour.deaf || behaviour.reply == Reply::Silence
        };
        if silent {
            continue;
        }
        let mut request = buffer[..length].to_vec();
        cipher::decrypt(&mut request);
        if let Some(reply) = ask(&asks, request).await {
            let _ = socket.send_to(&cipher::encrypt(reply.as_bytes()), sender).await;
        }
    }
}

async fn ask(asks: &mpsc::Sender<Ask>, request: Vec<u8>) -> Option<String> {
    let (sender, receiver) = oneshot::channel();
    asks.send(Ask::Request(request, sender)).await.ok()?;
    receiver.await.ok()?
}
