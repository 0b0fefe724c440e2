//! `cargo bench --bench soak [-- --minutes 60]`: the whole thing for a long time, with chaos: a broker that is killed, plugs
//! that break and heal, a bridge that is frozen, and commands all the while. Says what became of every one of them.
//! docs/reliability.md shows a run.

#[path = "../bridge/broker.rs"]
mod broker;
mod ledger;
#[path = "../bridge/process.rs"]
#[allow(dead_code)] // the other benchmark needs more of it
mod process;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::sim::behaviour::{Behaviour, Reply};
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;
use rumqttc::{AsyncClient, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use broker::Broker;
use ledger::Ledger;
use process::Memory;

/// Runs the bridge for a long time while everything around it breaks.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench soak --")]
struct Options {
    /// How long.
    #[arg(long, default_value_t = 2)]
    minutes: u64,
    /// Plugs: dimmers, with a meter, without, and strips, in turn. Dimmers do not break: they tell each command from
    /// the next.
    #[arg(long, default_value_t = 500)]
    plugs: u16,
    /// Commands in a second.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

const MODELS: [&str; 4] = ["HS220", "HS110-G3", "HS100-G3", "KP303"];

/// Time between two deaths of the broker, two broken plugs, two standstills.
const APART: (Duration, Duration, Duration) =
    (Duration::from_secs(45), Duration::from_secs(2), Duration::from_secs(600));

/// How long the bridge is frozen: longer than any command may wait.
const FROZEN: Duration = Duration::from_secs(15);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // `cargo test --all-targets` runs this program too, without a word; it has nothing to test.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let options = Options::parse();
    kasa2mqtt::descriptors::raise();
    let mut plugs = Vec::new();
    for number in 0..options.plugs {
        let model = Model::named(MODELS[usize::from(number) % MODELS.len()]).expect("a model");
        let plug = SimPlug::new(model, &format!("Plug {number}"), mac(number));
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        plugs.push(Simulator::start(plug, free).await.expect("a free port"));
    }
    let mut dimmers = BTreeMap::new();
    for number in (0..plugs.len()).step_by(MODELS.len()) {
        dimmers.insert(number, Dimmer { requests: plugs[number].watch().await, sent: 0, seen: None });
    }
    let mut broker = Broker::start(None);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bridge = Bridge(start(&folder, broker.address, &plugs));
    let id = bridge.0.id();
    let (results, mut heard) = mpsc::unbounded_channel();
    let mut client = listen(broker.address, results.clone()).await;
    // Everything is to be found before the chaos.
    sleep(Duration::from_secs(10)).await;
    let begin = Instant::now();
    let end = begin + Duration::from_secs(60 * options.minutes);
    let memory_at_begin = Memory::of(id).now;
    let sockets_at_begin = sockets(id);
    let mut ledger = Ledger::default();
    let (mut deaths, mut broken, mut standstills, mut repeated) = (0u32, 0u32, 0u32, 0u32);
    let mut sending = interval(Duration::from_secs(1) / options.rate.max(1));
    sending.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = (begin + APART.0, begin + APART.1, begin + APART.2);
    let mut ill: Vec<(Instant, usize)> = Vec::new();
    let mut transaction = 0;
    while Instant::now() < end {
        sending.tick().await;
        let now = Instant::now();
        let number = fastrand::usize(..plugs.len());
        let mut command = json!({"transaction": transaction});
        match dimmers.get_mut(&number) {
            Some(dimmer) => command["brightness"] = dimmer.next().into(),
            None => command["state"] = "TOGGLE".into(),
        }
        ledger.sends(transaction, now);
        transaction += 1;
        let _ = client.0.try_publish(
            format!("kasa/{}/set", name(number)),
            QoS::AtLeastOnce,
            false,
            command.to_string(),
        );
        if now >= next.0 {
            next.0 = now + APART.0;
            deaths += 1;
            ledger.cuts(now);
            broker.kill();
            sleep(Duration::from_millis(fastrand::u64(0..3000))).await;
            broker.restart();
            client = listen(broker.address, results.clone()).await;
            ledger.cuts(Instant::now());
            // What is sent before the bridge listens again is for nobody.
            sleep(Duration::from_secs(4)).await;
        }
        if now >= next.1 {
            next.1 = now + APART.1;
            let number = fastrand::usize(..plugs.len());
            if !dimmers.contains_key(&number) {
                broken += 1;
                plugs[number].behave(illness()).await;
                ill.push((now + Duration::from_secs(fastrand::u64(5..60)), number));
            }
        }
        for (_, number) in ill.extract_if(.., |(until, _)| *until <= now) {
            plugs[number].behave(Behaviour::default()).await;
        }
        if now >= next.2 {
            next.2 = now + APART.2;
            standstills += 1;
            ledger.cuts(now);
            signal(id, "STOP");
            sleep(FROZEN).await;
            signal(id, "CONT");
            sleep(Duration::from_secs(4)).await;
            ledger.cuts(Instant::now());
        }
        while let Ok((transaction, end)) = heard.try_recv() {
            ledger.hears(transaction, &end, Instant::now());
        }
        for dimmer in dimmers.values_mut() {
            repeated += dimmer.look();
        }
        ledger.settle(Instant::now());
    }
    // What waits still gets its time.
    let end = Instant::now() + ledger::PATIENCE + Duration::from_secs(2);
    while ledger.waiting() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(100)).await;
        while let Ok((transaction, end)) = heard.try_recv() {
            ledger.hears(transaction, &end, Instant::now());
        }
        ledger.settle(Instant::now());
    }
    for dimmer in dimmers.values_mut() {
        repeated += dimmer.look();
    }
    let run: u64 = plugs.iter().map(|plug| plug.counts().borrow().relay_commands).sum();
    let polls: u64 = plugs.iter().map(|plug| plug.counts().borrow().requests).sum();
    let Memory { now: memory, highest, .. } = Memory::of(id);
    println!("{} plugs for {:?}", plugs.len(), begin.elapsed());
    println!(
        "the broker died {deaths} times, {broken} plugs broke, the bridge was frozen {standstills} times"
    );
    println!("requests to plugs      {polls}");
    println!("commands sent          {}", ledger.sent);
    println!("    by their results   {:?}", ledger.ended);
    println!("    gone with a broker's death or in a standstill  {}", ledger.cut);
    println!("    lost               {}", ledger.lost);
    println!("results told twice     {}", ledger.repeated);
    println!("commands done twice    {repeated}, of those that are told apart; relays were told {run} times");
    println!(
        "resident memory        {memory_at_begin:.1} MB at the beginning, {memory:.1} MB at the end, {highest:.1} MB at most"
    );
    println!("sockets                {sockets_at_begin} at the beginning, {} at the end", sockets(id));
    let told = Command::new("kill").args(["-TERM", &id.to_string()]).status();
    assert!(told.is_ok_and(|status| status.success()), "kill(1) works");
    drop(bridge);
}

/// Levels go up from 1 to 100 and begin anew, so that one that comes twice is seen.
struct Dimmer {
    requests: mpsc::UnboundedReceiver<String>,
    sent: u64,
    seen: Option<u64>,
}

impl Dimmer {
    fn next(&mut self) -> u64 {
        self.sent += 1;
        (self.sent - 1) % 100 + 1
    }

    /// How many levels came that were not to come any more.
    fn look(&mut self) -> u32 {
        let mut repeated = 0;
        while let Ok(request) = self.requests.try_recv() {
            let Ok(request) = serde_json::from_str::<Value>(&request) else { continue };
            let Some(level) = request["smartlife.iot.dimmer"]["set_brightness"]["brightness"].as_u64() else {
                continue;
            };
            let first = self.seen.map_or(0, |seen| seen + 1);
            let place = first + (level - 1 + 100 - first % 100) % 100;
            if place < self.sent { self.seen = Some(place) } else { repeated += 1 }
        }
        repeated
    }
}

fn name(number: usize) -> String {
    format!("plug-{number}")
}

fn illness() -> Behaviour {
    let well = Behaviour::default;
    match fastrand::u8(..8) {
        0 => Behaviour { deaf: true, ..well() },
        1 => Behaviour { reply: Reply::Silence, ..well() },
        2 => Behaviour { reply: Reply::Half, ..well() },
        3 => Behaviour { reply: Reply::Rubbish, ..well() },
        4 => Behaviour { delay: Duration::from_millis(4900), ..well() },
        5 => Behaviour { close: true, bad_wifi: true, ..well() },
        6 => Behaviour { refuse: true, ..well() },
        _ => Behaviour { fragment: 1, delay: Duration::from_millis(200), ..well() },
    }
}

struct Bridge(Child);

impl Drop for Bridge {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_secs(1));
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a copy of the binary: it is not to change while it runs.
fn start(folder: &tempfile::TempDir, broker: SocketAddr, plugs: &[Simulator]) -> Child {
    let mut config =
        format!("[mqtt]\nurl = \"mqtt://{broker}\"\n[poll]\ninterval = \"5s\"\n[scan]\nenabled = false\n");
    for (number, plug) in plugs.iter().enumerate() {
        writeln!(config, "[[plug]]\nhost = \"{}\"\nname = \"{}\"", plug.address(), name(number))
            .expect("a String takes all");
    }
    let (file, binary) = (folder.path().join("config.toml"), folder.path().join("kasa2mqtt"));
    std::fs::write(&file, config).expect("a file of ours");
    std::fs::copy(env!("CARGO_BIN_EXE_kasa2mqtt"), &binary).expect("a file of ours");
    let command = Command::new(binary)
        .arg("run")
        .arg("-c")
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    command.expect("the bridge starts")
}

/// A client that hears every result until its broker dies.
async fn listen(
    broker: SocketAddr,
    results: mpsc::UnboundedSender<(u64, String)>,
) -> (AsyncClient, JoinHandle<()>) {
    let mut options = MqttOptions::new("soak", broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(60)).set_inflight(1000);
    let (client, mut event_loop) = AsyncClient::new(options, 10_000);
    client.try_subscribe("kasa/+/result", QoS::AtLeastOnce).expect("there is room");
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let mut ready = Some(ready);
    let task = tokio::spawn(async move {
        while let Ok(event) = event_loop.poll().await {
            match event {
                rumqttc::Event::Incoming(Packet::SubAck(_)) => drop(ready.take().map(|ready| ready.send(()))),
                rumqttc::Event::Incoming(Packet::Publish(publish)) => {
                    let result: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
                    if let Some(transaction) = result["transaction"].as_u64() {
                        let end = match result["ok"].as_bool() {
                            Some(true) => "ok".to_string(),
                            _ => result["error"]["code"].as_str().unwrap_or("?").to_string(),
                        };
                        let _ = results.send((transaction, end));
                    }
                }
                _ => {}
            }
        }
    });
    is_ready.await.expect("the broker answers");
    (client, task)
}

fn signal(process: u32, name: &str) {
    let told = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(told.is_ok_and(|status| status.success()), "kill(1) works");
}

fn sockets(process: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).expect("the process runs");
    let is_socket = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    open.flatten().filter(is_socket).count()
}
