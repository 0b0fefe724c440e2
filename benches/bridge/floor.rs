//! The least that a bridge's work could cost: one hop through the same broker, one exchange with the same plugs, by
//! a program that does nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kasa2mqtt::plug::cipher::{self, HEADER};

use crate::mqtt::Client;
use crate::process::Usage;

/// The question of nearly all polls.
pub const POLL: &str = r#"{"system":{"get_sysinfo":{}},"emeter":{"get_realtime":{}}}"#;

const SWITCH: &str = r#"{"system":{"set_relay_state":{"state":0}}}"#;

/// A kept connection to one plug.
pub struct Exchange {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Exchange {
    pub fn connect(plug: SocketAddr) -> Exchange {
        let stream = TcpStream::connect(plug).expect("the plug accepts connections");
        stream.set_nodelay(true).expect("an option of sockets");
        Exchange { stream, buffer: vec![0; 4096] }
    }

    /// One request, one reply.
    pub fn ask(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).expect("the plug reads");
        let mut have = 0;
        loop {
            have += self.stream.read(&mut self.buffer[have..]).expect("the plug answers");
            if have >= HEADER {
                let header = self.buffer[..HEADER].try_into().expect("as many bytes");
                if have >= HEADER + u32::from_be_bytes(header) as usize {
                    return;
                }
            }
        }
    }
}

/// Both, ready to be measured again and again.
pub struct Floor {
    speaker: Client,
    listener: Client,
    exchange: Exchange,
    switch: Vec<u8>,
}

impl Floor {
    /// `plug` must be one that nobody else uses.
    pub fn new(broker: SocketAddr, plug: SocketAddr) -> Floor {
        let speaker = Client::connect(broker, "bench-speaker");
        let mut listener = Client::connect(broker, "bench-listener");
        listener.subscribe("bench/floor");
        Floor {
            speaker,
            listener,
            exchange: Exchange::connect(plug),
            switch: cipher::frame(SWITCH.as_bytes()),
        }
    }

    /// A message from one client to another.
    pub fn hop(&mut self) -> Duration {
        let began = Instant::now();
        self.speaker.publish("bench/floor", "ON");
        let heard =
            self.listener.next(began + Duration::from_secs(5)).expect("the broker passes messages on");
        heard.at - began
    }

    /// A command to a plug and its confirmation.
    pub fn exchange(&mut self) -> Duration {
        let began = Instant::now();
        self.exchange.ask(&self.switch);
        began.elapsed()
    }
}

/// CPU of one poll by a loop that does nothing but ask each plug in turn, one every `pace`, if any.
pub fn cpu_of_a_poll(plugs: &[SocketAddr], rounds: usize, pace: Option<Duration>) -> Duration {
    let poll = cipher::frame(POLL.as_bytes());
    let mut exchanges: Vec<Exchange> = plugs.iter().map(|plug| Exchange::connect(*plug)).collect();
    let before = Usage::of_this_thread();
    for exchange in (0..rounds).flat_map(|_| 0..plugs.len()) {
        exchanges[exchange].ask(&poll);
        if let Some(pace) = pace {
            std::thread::sleep(pace);
        }
    }
    let polls = u32::try_from(rounds * plugs.len()).expect("few polls");
    (Usage::of_this_thread() - before) / polls
}
