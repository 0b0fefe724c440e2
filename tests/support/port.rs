//! Ports for brokers that must come back on the same one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below what Linux gives to outgoing connections: there, while a broker is down, its port would now and then become
/// some client's, or a client that calls in vain would find itself at the other end.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// An address of loopback on which nobody listens, and that this process gives out once.
pub fn unused() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        // Test programs that run side by side begin at different places.
        let number = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).expect("below 32,000");
        if let Ok(free) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return free.local_addr().unwrap();
        }
    }
    panic!("no free port from {FIRST} on");
}
