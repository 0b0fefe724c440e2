//! Simulated plugs, thousands in one thread: one listener, and the loopback address that was called tells the plug.
//!
//! They know what pollers and switches ask for, and nothing else. `src/sim` has the faithful ones.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kasa2mqtt::plug::cipher::{self, HEADER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::options::name;

/// Connections that may wait for us to accept them.
const BACKLOG: u32 = 4096;

/// Something a plug was asked.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub plug: usize,
    pub at: Instant,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Polled,
    Switched(bool),
}

/// The plugs. They run until the program ends.
pub struct Plugs {
    shared: Arc<Shared>,
}

struct Shared {
    port: u16,
    metered: bool,
    started: Instant,
    relays: Vec<AtomicBool>,
    delay_us: AtomicU64,
    polls: AtomicU64,
    broken_from: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

impl Plugs {
    /// Starts as many plugs as any figure needs.
    pub fn start(count: usize, port: u16, metered: bool) -> Plugs {
        let shared = Arc::new(Shared {
            port,
            metered,
            started: Instant::now(),
            relays: (0..count).map(|_| AtomicBool::new(false)).collect(),
            delay_us: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            broken_from: AtomicUsize::new(usize::MAX),
            seen: Mutex::new(Vec::new()),
        });
        let (listening, listens) = std::sync::mpsc::channel();
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(server, &listening));
        });
        listens.recv().expect("the plugs' thread listens");
        Plugs { shared }
    }

    /// Where the plug of this number listens.
    pub fn address(&self, plug: usize) -> SocketAddr {
        let [high, low] = u16::try_from(plug / 250 * 256 + plug % 250 + 1).expect("few plugs").to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(127, 1, high, low), self.shared.port))
    }

    /// Time that every plug takes for each reply.
    pub fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_micros()).expect("a short time");
        self.shared.delay_us.store(delay, Ordering::Relaxed);
    }

    /// From this number on they are broken, in six ways that take turns.
    pub fn break_from(&self, plug: usize) {
        self.shared.broken_from.store(plug, Ordering::Relaxed);
    }

    /// All polls so far.
    pub fn polls(&self) -> u64 {
        self.shared.polls.load(Ordering::Relaxed)
    }

    /// Whether the relay is closed.
    pub fn relay(&self, plug: usize) -> bool {
        self.shared.relays[plug].load(Ordering::Relaxed)
    }

    /// Everything asked since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.shared.seen.lock().expect("nobody panics with it"))
    }
}

/// The other way of [`Plugs::address`].
fn number(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [_, _, high, low] = ip.octets();
            (usize::from(high) * 250 + usize::from(low)).checked_sub(1)
        }
        IpAddr::V6(_) => None,
    }
}

async fn serve(shared: Arc<Shared>, listening: &std::sync::mpsc::Sender<()>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of sockets");
    // All addresses of loopback, and no other: a listener for each would need twice the descriptors.
    socket.bind_device(Some(b"lo")).expect("a loopback device");
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, shared.port))).expect("the plugs' port is free");
    let listener = socket.listen(BACKLOG).expect("a listener");
    listening.send(()).expect("somebody waits for us");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let plug = stream.local_addr().ok().and_then(number).filter(|plug| *plug < shared.relays.len());
        if let Some(plug) = plug {
            tokio::spawn(converse(Arc::clone(&shared), plug, stream));
        }
    }
}

async fn converse(shared: Arc<Shared>, plug: usize, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).await?;
        let mut request = vec![0; u32::from_be_bytes(header).min(4096) as usize];
        stream.read_exact(&mut request).await?;
        let at = Instant::now();
        cipher::decrypt(&mut request);
        let (reply, what) = shared.answer(plug, &String::from_utf8_lossy(&request));
        shared.seen.lock().expect("nobody panics with it").push(Seen { plug, at, what });
        let delay = shared.delay_us.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep_until((at + Duration::from_micros(delay)).into()).await;
        }
        let mut frame = cipher::frame(reply.as_bytes());
        if plug >= shared.broken_from.load(Ordering::Relaxed) {
            match plug % 6 {
                // It never answers.
                0 => std::future::pending().await,
                // It closes without a word, or in the midst of one.
                1 => return Ok(()),
                2 => {
                    stream.write_all(&frame[..frame.len() / 2]).await?;
                    return Ok(());
                }
                // It announces 4 GiB, or speaks rubbish.
                3 => frame[..HEADER].fill(0xff),
                4 => frame[HEADER..].reverse(),
                _ => tokio::time::sleep(Duration::from_millis(4900)).await,
            }
        }
        stream.write_all(&frame).await?;
    }
}

impl Shared {
    fn answer(&self, plug: usize, request: &str) -> (String, What) {
        if request.contains("set_relay_state") {
            let on = request.contains(r#""state":1"#) || request.contains(r#""state": 1"#);
            self.relays[plug].store(on, Ordering::Relaxed);
            return (r#"{"system":{"set_relay_state":{"err_code":0}}}"#.into(), What::Switched(on));
        }
        self.polls.fetch_add(1, Ordering::Relaxed);
        let sysinfo = request.contains("get_sysinfo").then(|| self.sysinfo(plug));
        let meter = request.contains("emeter").then(|| self.meter().into());
        let modules: Vec<String> = [sysinfo, meter].into_iter().flatten().collect();
        (format!("{{{}}}", modules.join(",")), What::Polled)
    }

    /// An HS110(EU) 4.0, or an HS100(EU) 4.0 (protocol.md 3.2).
    fn sysinfo(&self, plug: usize) -> String {
        let (model, text, feature) = match self.metered {
            true => ("HS110(EU)", "Smart Wi-Fi Plug With Energy Monitoring", "TIM:ENE"),
            false => ("HS100(EU)", "Smart Wi-Fi Plug", "TIM"),
        };
        let relay = self.relays[plug].load(Ordering::Relaxed);
        let on_time = if relay { self.started.elapsed().as_secs() } else { 0 };
        let [high, low] = u16::try_from(plug).expect("few plugs").to_be_bytes();
        let identity = format!(
            r#""model":"{model}","deviceId":"8006AABBCCDDEEFF00112233445566778899{plug:04X}","mac":"50:C7:BF:5F:{high:02X}:{low:02X}""#
        );
        let hardware = r#""sw_ver":"1.0.4 Build 191111 Rel.143903","hw_ver":"4.0","oemId":"FFEEDDCCBBAA99887766554433221100","hwId":"00112233445566778899AABBCCDDEEFF""#;
        let place = r#""rssi":-54,"latitude_i":525000,"longitude_i":132500,"status":"new","mic_type":"IOT.SMARTPLUGSWITCH","icon_hash":"","updating":0,"led_off":0"#;
        let (alias, relay) = (name(plug), u8::from(relay));
        let present = format!(
            r#""alias":"{alias}","feature":"{feature}","relay_state":{relay},"on_time":{on_time},"dev_name":"{text}","active_mode":"none","next_action":{{"type":-1}},"ntc_state":0"#
        );
        format!(r#""system":{{"get_sysinfo":{{{hardware},{identity},{place},{present},"err_code":0}}}}"#)
    }

    fn meter(&self) -> &'static str {
        match self.metered {
            true => {
                r#""emeter":{"get_realtime":{"voltage_mv":230100,"current_ma":54,"power_mw":12300,"total_wh":12345,"err_code":0}}"#
            }
            false => r#""emeter":{"err_code":-1,"err_msg":"module not support"}"#,
        }
    }
}
