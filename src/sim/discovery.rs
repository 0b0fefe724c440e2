//! The answer of newer firmware on UDP port 20002: who a plug is and how it wants to be spoken to, in clear JSON
//! (protocol.md 6).

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Bytes before the JSON, in both directions.
const HEADER: usize = 16;

/// How a plug says that it wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Port 9999, as ever.
    Xor,
    /// KLAP, first version: HS100(UK) hardware 4.1.
    Klap,
    /// KLAP, second version: firmware 1.1 of 2024 and later.
    NewKlap,
}

/// What one plug announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// `50:C7:BF:01:02:03`; dashes on this port.
    pub mac: String,
    /// Model with region.
    pub model: String,
    /// Hardware version.
    pub hw_ver: String,
    /// `IOT.SMARTPLUGSWITCH`, or something else.
    pub device_type: String,
    /// How it wants to be spoken to.
    pub scheme: Scheme,
    /// The port of its HTTP server.
    pub http_port: u16,
}

impl Announcement {
    /// A plug, as far as this port tells.
    pub fn plug(mac: &str, model: &str, scheme: Scheme) -> Announcement {
        Announcement {
            mac: mac.into(),
            model: model.into(),
            hw_ver: "4.1".into(),
            device_type: "IOT.SMARTPLUGSWITCH".into(),
            scheme,
            http_port: 80,
        }
    }

    /// The reply's body, in the order of a real one.
    fn body(&self, address: IpAddr) -> String {
        let encryption = if self.scheme == Scheme::Xor { "XOR" } else { "KLAP" };
        let (newer, version) = match self.scheme {
            Scheme::NewKlap => {
                (r#","obd_src":"tplink","protocol_version":1"#, r#","lv":2,"new_klap":1,"ANS":false"#)
            }
            Scheme::Xor | Scheme::Klap => ("", ""),
        };
        format!(
            concat!(
                r#"{{"result":{{"device_id":"00112233445566778899aabbccddeeff","owner":"00000000000000000000000000000000","#,
                r#""device_type":"{}","device_model":"{}","ip":"{}","mac":"{}","factory_default":false{},"hw_ver":"{}","#,
                r#""mgt_encrypt_schm":{{"is_support_https":false,"encrypt_type":"{}","http_port":{}{}}}}},"error_code":0}}"#,
            ),
            self.device_type,
            self.model,
            address,
            self.mac.replace(':', "-"),
            newer,
            self.hw_ver,
            encryption,
            self.http_port,
            version,
        )
    }
}

/// Announces plugs. Dropping it ends it and frees its port.
#[derive(Debug)]
pub struct Discovery {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Discovery {
    /// Answers each probe at `address` with one datagram for each of `plugs`.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn start(address: SocketAddr, plugs: Vec<Announcement>) -> io::Result<Discovery> {
        let socket = UdpSocket::bind(address).await?;
        let address = socket.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(answer(socket, move || plugs.clone()));
        Ok(Discovery { address, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Answers each probe with one datagram for each of the plugs that there are then.
pub(super) async fn answer(socket: UdpSocket, plugs: impl Fn() -> Vec<Announcement>) {
    let mut buffer = vec![0; 2048];
    loop {
        let Ok((length, sender)) = socket.recv_from(&mut buffer).await else { continue };
        if !is_probe(&buffer[..length]) {
            continue;
        }
        let here = socket.local_addr().map(|address| address.ip());
        for plug in plugs() {
            let body = plug.body(here.as_ref().map_or(sender.ip(), |address| *address));
            // What stands in a reply's header beside the length is not known; nobody reads it.
            let mut reply = buffer[..HEADER].to_vec();
            reply[4..6].copy_from_slice(&u16::try_from(body.len()).unwrap_or_default().to_be_bytes());
            reply.extend(body.as_bytes());
            let _ = socket.send_to(&reply, sender).await;
        }
    }
}

/// Whether the header is right: version, operation, length, and the checksum over all with its own place preset.
fn is_probe(datagram: &[u8]) -> bool {
    let Some((header, body)) = datagram.split_at_checked(HEADER) else { return false };
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let mut checked = datagram.to_vec();
    checked[12..HEADER].copy_from_slice(&[0x5a, 0x6b, 0x7c, 0x8d]);
    header[..4] == [2, 0, 0, 1] && length == body.len() && crc32(&checked).to_be_bytes() == header[12..]
}

/// CRC-32 as in Ethernet, bit by bit: a witness shares no code with what it watches.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_told_from_noise() {
        // protocol.md 6: the old static probe.
        let probe = [2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x46, 0x3c, 0xb5, 0xd3];
        assert!(is_probe(&probe));
        for at in 0..HEADER {
            let mut noise = probe;
            noise[at] ^= 1;
            assert!(!is_probe(&noise), "byte {at}");
        }
        assert!(!is_probe(&probe[..15]) && !is_probe(b""));
    }

    #[test]
    fn announcements_are_json() {
        for scheme in [Scheme::Xor, Scheme::Klap, Scheme::NewKlap] {
            let body =
                Announcement::plug("CC:32:E5:01:02:03", "HS100(UK)", scheme).body([192, 0, 2, 1].into());
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["result"]["mac"], "CC-32-E5-01-02-03");
            assert_eq!(body["result"]["mgt_encrypt_schm"]["new_klap"] == 1, scheme == Scheme::NewKlap);
        }
    }
}
