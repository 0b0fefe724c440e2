//! The least client of a broker: QoS 0, one socket, no thread. It is the floor, so it does nothing that it need not.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CONNECT: u8 = 0x10;
const SUBSCRIBE: u8 = 0x82;
const PUBLISH: u8 = 0x30;

pub struct Client {
    stream: TcpStream,
    /// What was read and is not taken yet.
    buffer: Vec<u8>,
    taken: usize,
}

/// A message that was heard.
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub at: Instant,
}

impl Client {
    /// Connects, clean session, no keep-alive.
    pub fn connect(broker: SocketAddr, id: &str) -> Client {
        let stream = TcpStream::connect(broker).expect("the broker accepts connections");
        stream.set_nodelay(true).expect("an option of sockets");
        let mut client = Client { stream, buffer: Vec::new(), taken: 0 };
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        text(&mut body, id);
        client.send(&packet(CONNECT, &body));
        let acknowledged = client.packet(Instant::now() + Duration::from_secs(5));
        assert!(
            acknowledged.is_some_and(|(kind, body)| kind >> 4 == 2 && body[1] == 0),
            "the broker takes us"
        );
        client
    }

    /// Subscribes with QoS 0 and waits for the broker's word. What is retained comes after it.
    pub fn subscribe(&mut self, filter: &str) {
        let mut body = vec![0, 1];
        text(&mut body, filter);
        body.push(0);
        self.send(&packet(SUBSCRIBE, &body));
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Some((kind, _)) = self.packet(deadline) {
            if kind >> 4 == 9 {
                return;
            }
        }
        panic!("the broker does not answer our subscription");
    }

    pub fn publish(&mut self, topic: &str, payload: &str) {
        self.send(&publish(topic, payload));
    }

    /// Bytes of [`publish`], any number of them.
    pub fn send(&mut self, packets: &[u8]) {
        self.stream.write_all(packets).expect("the broker reads");
    }

    /// The next message, if one comes in time.
    pub fn next(&mut self, deadline: Instant) -> Option<Message> {
        loop {
            let (kind, body) = self.packet(deadline)?;
            if kind >> 4 != 3 {
                continue;
            }
            let at = Instant::now();
            let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let topic = String::from_utf8_lossy(&body[2..2 + length]).into();
            return Some(Message { topic, payload: body[2 + length..].to_vec(), at });
        }
    }

    fn packet(&mut self, deadline: Instant) -> Option<(u8, Vec<u8>)> {
        loop {
            let unread = &self.buffer[self.taken..];
            if let Some((head, length)) = header(unread)
                && unread.len() >= head + length
            {
                let found = (unread[0], unread[head..head + length].to_vec());
                self.taken += head + length;
                return Some(found);
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).expect("an option of sockets");
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return None;
                }
                Err(error) => panic!("the broker: {error}"),
            }
        }
    }
}

/// A message with QoS 0, as it goes over the wire.
pub fn publish(topic: &str, payload: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend_from_slice(payload.as_bytes());
    packet(PUBLISH, &body)
}

fn text(body: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a short text");
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    while length >= 128 {
        packet.push((length % 128) as u8 | 0x80);
        length /= 128;
    }
    packet.push(length as u8);
    packet.extend_from_slice(body);
    packet
}

/// Lengths of a packet's header and body, once the header is whole.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((at + 2, length));
        }
    }
    None
}
