//! The sockets of a scan, and whom a broadcast reaches.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use if_addrs::{IfAddr, Interface};
use tokio::net::UdpSocket;

use super::target;

/// One socket for each kind of probe, so that a reply is known by where it arrives.
#[derive(Debug)]
pub struct Sockets {
    /// For port 9999.
    pub sysinfo: UdpSocket,
    /// For port 20002.
    pub discovery: UdpSocket,
}

impl Sockets {
    /// Opens both, on one interface or on all.
    pub async fn open(interface: Option<&str>) -> io::Result<Sockets> {
        Ok(Sockets { sysinfo: open(interface).await?, discovery: open(interface).await? })
    }
}

async fn open(interface: Option<&str>) -> io::Result<UdpSocket> {
    let address = match interface {
        Some(name) => addresses(Some(name))?[0].0,
        None => Ipv4Addr::UNSPECIFIED,
    };
    let socket = UdpSocket::bind((address, 0)).await?;
    socket.set_broadcast(true)?;
    #[cfg(target_os = "linux")]
    if let Some(name) = interface
        && let Err(error) = socket.bind_device(Some(name.as_bytes()))
    {
        // Old kernels allow it to root only. Then the routes decide, which the subnet's own broadcast address follows.
        tracing::debug!("{name}: not bound to the interface: {error}");
    }
    Ok(socket)
}

/// Room for the longest reply known, several times (protocol.md 1.2).
pub fn buffer() -> Vec<u8> {
    vec![0; 16 * 1024]
}

/// The limited broadcast address, and that of each network. The first alone leaves by one interface only, and the
/// others are what a machine with several needs (protocol.md 6).
///
/// # Errors
/// There is no such interface, or the system does not list them.
pub fn broadcasts(interface: Option<&str>) -> io::Result<Vec<Ipv4Addr>> {
    let mut broadcasts = vec![Ipv4Addr::BROADCAST];
    for (address, prefix) in addresses(interface)? {
        broadcasts
            .extend(target::broadcast(address, prefix).filter(|directed| !broadcasts.contains(directed)));
    }
    Ok(broadcasts)
}

/// The IPv4 addresses of this machine with their prefixes, loopback only when asked for by name.
fn addresses(interface: Option<&str>) -> io::Result<Vec<(Ipv4Addr, u8)>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let of = |one: &Interface| match (&one.addr, one.is_p2p()) {
        (IfAddr::V4(address), false) => Some((address.ip, address.prefixlen)),
        _ => None,
    };
    let Some(name) = interface else {
        return Ok(interfaces.iter().filter(|one| !one.is_loopback()).filter_map(of).collect());
    };
    let addresses: Vec<_> = interfaces.iter().filter(|one| one.name == name).filter_map(of).collect();
    if addresses.is_empty() {
        let mut names: Vec<&str> = interfaces
            .iter()
            .filter(|one| matches!(one.ip(), IpAddr::V4(_)))
            .map(|one| one.name.as_str())
            .collect();
        names.dedup();
        let text = format!("no interface {name} with an IPv4 address; there are {}", names.join(", "));
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(addresses)
}
