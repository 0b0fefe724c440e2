//! What a plug says of itself on UDP port 20002: whether it speaks KLAP, and where (protocol.md 6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use crate::plug::scan::answer;
use crate::plug::scan::found::Found;
use crate::plug::scan::probe;
use crate::plug::settings::PORT;

/// How often it is asked: UDP loses datagrams, above all over Wi-Fi.
const ROUNDS: u32 = 3;

/// Time given to each round.
const ROUND: Duration = Duration::from_millis(400);

/// Longer than any announcement, in bytes.
const LONGEST: usize = 4096;

/// Asks `host` at UDP `port`. `None` where nothing listens there, or nothing useful came.
pub async fn announced(host: &str, port: u16) -> Option<Found> {
    let address = timeout(ROUNDS * ROUND, lookup_host((host, port))).await.ok()?.ok()?.next()?;
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await.ok()?;
    // From now on only this address is heard; a port that is closed is an error.
    socket.connect(address).await.ok()?;
    let probe = probe::discovery(fastrand::u32(..));
    for _ in 0..ROUNDS {
        socket.send(&probe).await.ok()?;
        match timeout(ROUND, heard(&socket, address)).await {
            Ok(found) => return found,
            Err(_) => continue,
        }
    }
    None
}

/// The first datagram that is an announcement; `None` where nothing listens.
async fn heard(socket: &UdpSocket, address: SocketAddr) -> Option<Found> {
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await.ok()?;
        match answer::announcement(&buffer[..length], address, PORT) {
            Ok(found) => return Some(found),
            Err(error) => tracing::debug!("{address}: a reply that is no plug's: {error}"),
        }
    }
}
