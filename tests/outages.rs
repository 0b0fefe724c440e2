//! The broker's troubles, against the real program: what is polled goes on, nothing is done twice or late, and what is
//! retained is whole again when the broker is well again.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kasa2mqtt::sim::server::Simulator;
use serde_json::{Value, json};
use support::bridge::Program;
use support::house::plugs;
use support::mosquitto::Mosquitto;
use support::soon;
use support::watcher::{self, Log, Watcher};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// `KASA2MQTT_TEST_KILLS` kills the broker more often than the usual few times.
fn kills() -> usize {
    let kills = std::env::var("KASA2MQTT_TEST_KILLS").ok();
    kills.map_or(5, |kills| kills.parse().expect("KASA2MQTT_TEST_KILLS is a number"))
}

/// A dimmer's levels as they are sent, 1 to 100 and then anew, and as they come: each once at most, none after a newer
/// one, none late.
struct Levels {
    sent: Vec<Instant>,
    came: mpsc::UnboundedReceiver<(Instant, u64)>,
    last: Option<usize>,
    run: usize,
}

/// Beyond `commands.ttl`, the plug's own way and a busy machine.
const LATE: Duration = Duration::from_secs(12);

impl Levels {
    async fn of(plug: &Simulator) -> Levels {
        let mut requests = plug.watch().await;
        let (sender, came) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let request: Value = serde_json::from_str(&request).unwrap();
                let level = request["smartlife.iot.dimmer"]["set_brightness"]["brightness"].as_u64();
                if let Some(level) = level
                    && sender.send((Instant::now(), level)).is_err()
                {
                    return;
                }
            }
        });
        Levels { sent: Vec::new(), came, last: None, run: 0 }
    }

    fn next(&mut self) -> usize {
        self.sent.push(Instant::now());
        (self.sent.len() - 1) % 100 + 1
    }

    fn check(&mut self) {
        while let Ok((at, level)) = self.came.try_recv() {
            let from = self.last.map_or(0, |last| last + 1);
            let place = from + (level as usize + 99 - from % 100) % 100;
            assert!(place < self.sent.len(), "level {level} came twice, or after a newer one");
            let took = at.duration_since(self.sent[place]);
            assert!(took < LATE, "level {level} came {took:?} after it was sent");
            self.last = Some(place);
            self.run += 1;
        }
    }
}

/// A folder with the program's log in it.
fn log() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    (folder, log)
}

fn lines(log: &Path, part: &str) -> usize {
    fs::read_to_string(log).unwrap().lines().filter(|line| line.contains(part)).count()
}

/// Waits for a line of the log that has this in it.
async fn logs(log: &Path, part: &str) {
    let written = soon(part, async {
        while lines(log, part) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    written.await;
}

async fn watch(broker: &Mosquitto) -> Watcher {
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.subscribe("homeassistant/#").await;
    watcher
}

/// Ten plugs whose broker is killed again and again in the midst of commands that it has acknowledged to the sender.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: tests/run"]
async fn a_broker_that_dies_again_and_again_costs_nothing_but_its_own_time() {
    const PLUGS: usize = 10;
    let plugs = plugs(&["HS220"; PLUGS]).await;
    let mut levels = Vec::new();
    for plug in &plugs {
        levels.push(Levels::of(plug).await);
    }
    let mut broker = Mosquitto::start().await;
    let addresses: Vec<_> = plugs.iter().map(|plug| plug.address()).collect();
    let (_folder, log) = log();
    let program = Program::run_logged(&broker.address().to_string(), &addresses, &log);
    let everything = |log: &Log| {
        let has = |topic: &str| log.heard.iter().any(|heard| heard.topic == topic);
        let of = |number: usize| {
            has(&format!("kasa/plug-{number}")) && has(&format!("kasa/plug-{number}/availability"))
        };
        let configs = log.heard.iter().filter(|heard| heard.topic.starts_with("homeassistant/device/"));
        let mut configs: Vec<_> = configs.map(|heard| &heard.topic).collect();
        configs.sort();
        configs.dedup();
        (0..PLUGS).all(of) && configs.len() == PLUGS + 1 && has("kasa/bridge/devices")
    };
    let (mut sent, mut longest) = (0, Duration::ZERO);
    for round in 0..kills() {
        // Nobody waits for the bridge here: what is retained comes by itself.
        let watcher = watch(&broker).await;
        let up = Instant::now();
        watcher.wait("everything", everything).await;
        if round > 0 {
            longest = longest.max(up.elapsed());
        }
        let burst = fastrand::usize(1..100);
        for number in 0..burst {
            let topic = format!("kasa/plug-{}/set", number % PLUGS);
            let mut payload = json!({"transaction": sent + number});
            match fastrand::bool() {
                true => payload["state"] = "TOGGLE".into(),
                false => payload["brightness"] = levels[number % PLUGS].next().into(),
            }
            let payload = payload.to_string();
            watcher.client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).await.unwrap();
        }
        sent += burst;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
        broker.kill();
        watcher.wait("the end", |log| log.ended).await;
        let mut transactions: Vec<u64> = Vec::new();
        for heard in watcher.log.borrow().heard.iter().filter(|heard| heard.topic.ends_with("/result")) {
            let result: Value = serde_json::from_str(&heard.payload).unwrap();
            transactions.extend(result["transaction"].as_u64());
        }
        let results = transactions.len();
        transactions.sort_unstable();
        transactions.dedup();
        assert_eq!(results, transactions.len(), "a command was answered twice");
        // Polling does not stop while nobody hears of it.
        let polls = plugs[0].counts().borrow().requests;
        // Now and then it stays away for so long that the pauses between tries are as long as they get.
        let more = if round % 5 == 2 { 6 } else { 1 };
        soon("polls", plugs[0].counts().wait_for(|counts| counts.requests > polls + more)).await.unwrap();
        levels.iter_mut().for_each(Levels::check);
        broker.restart().await;
    }
    let toggled: u64 = plugs.iter().map(|plug| plug.counts().borrow().relay_commands).sum();
    let dimmed: usize = levels.iter().map(|levels| levels.run).sum();
    let run = toggled as usize + dimmed;
    assert!(run <= sent, "{run} of {sent} commands ran");
    println!("{} kills, {sent} commands, {run} ran, everything is back after {longest:?} at most", kills());
    assert!(longest < Duration::from_secs(2), "everything is back after {longest:?}");
    assert!(lines(&log, " ERROR ") == 0 && lines(&log, "panicked") == 0);
    let begin = Instant::now();
    program.signal("TERM");
    assert!(program.ended().await.success());
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

/// Opens a session and then never reads again.
async fn mute(listener: TcpListener) {
    let mut open = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 1024];
        let _ = stream.read(&mut bytes).await;
        let _ = stream.write_all(&[0x20, 2, 0, 0]).await;
        // The identifier of the subscription follows its header; long ones have two bytes of length.
        let length = stream.read(&mut bytes).await.unwrap_or(0);
        if length > 8 {
            let header = if bytes[1] & 0x80 == 0 { 2 } else { 3 };
            let id = [bytes[header], bytes[header + 1]];
            let _ = stream.write_all(&[0x90, 12, id[0], id[1], 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]).await;
        }
        open.push(stream);
    }
}

#[tokio::test]
async fn a_broker_that_never_reads_stops_no_poll_and_no_end() {
    let plugs = plugs(&["HS110-G3"; 20]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broker = listener.local_addr().unwrap().to_string();
    let mute = tokio::spawn(mute(listener));
    let addresses: Vec<_> = plugs.iter().map(|plug| plug.address()).collect();
    let (_folder, log) = log();
    let program = Program::run_logged(&broker, &addresses, &log);
    for plug in &plugs {
        soon("polls", plug.counts().wait_for(|counts| counts.requests > 5)).await.unwrap();
    }
    let begin = Instant::now();
    program.signal("TERM");
    assert!(program.ended().await.success());
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    mute.abort();
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn a_refused_password_is_said_once_and_tried_slowly() {
    let plugs = plugs(&["HS100-G3"]).await;
    let folder = TempDir::new().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "").unwrap();
    let broker =
        Mosquitto::start_with(&format!("allow_anonymous false\npassword_file {}\n", users.display())).await;
    let (_folder, log) = log();
    let _program = Program::run_logged(&broker.address().to_string(), &[plugs[0].address()], &log);
    logs(&log, "the broker refuses us: check mqtt.username").await;
    let polls = plugs[0].counts().borrow().requests;
    soon("polls", plugs[0].counts().wait_for(|counts| counts.requests > polls + 6)).await.unwrap();
    assert_eq!(lines(&log, "the broker refuses us"), 1);
    let tried = fs::read_to_string(broker.file("mosquitto.log")).unwrap();
    let tried = tried.lines().filter(|line| line.contains("New connection")).count();
    assert!((1..=3).contains(&tried), "{tried} times in six seconds");
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn another_client_with_our_id_is_named_and_not_fought() {
    let plugs = plugs(&["HS100-G3"]).await;
    let broker = Mosquitto::start().await;
    let (_folder, log) = log();
    let mut command = Program::logged(&broker.address().to_string(), &[plugs[0].address()], &log);
    command.env("KASA2MQTT_MQTT__CLIENT_ID", "kasa");
    let _program = Program::spawn(&mut command);
    logs(&log, "connected to the broker").await;
    // As a second bridge with the same configuration does.
    let rival = tokio::spawn({
        let address = broker.address();
        async move {
            loop {
                let mut options = rumqttc::MqttOptions::new("kasa", address.ip().to_string(), address.port());
                options.set_keep_alive(Duration::from_secs(30));
                let watcher = Watcher::connect_with(options).await;
                watcher.wait("the end", |log| log.ended).await;
            }
        }
    });
    logs(&log, "does another client use this id?").await;
    let polls = plugs[0].counts().borrow().requests;
    soon("polls", plugs[0].counts().wait_for(|counts| counts.requests > polls + 5)).await.unwrap();
    assert_eq!(lines(&log, "does another client use this id?"), 1);
    assert!(lines(&log, "") < 30, "{} lines", lines(&log, ""));
    rival.abort();
    logs_after(&log, "connected to the broker").await;
    let watcher = watch(&broker).await;
    watcher.publish("kasa/plug-0/set", "ON", false).await;
    soon("the relay", plugs[0].relay().wait_for(|relay| *relay)).await.unwrap();
}

/// Waits until the log's last line about the broker is this one.
async fn logs_after(log: &Path, part: &str) {
    let is_last = || {
        let text = fs::read_to_string(log).unwrap();
        text.lines().rfind(|line| line.contains("broker")).is_some_and(|line| line.contains(part))
    };
    soon(part, async {
        while !is_last() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A broker that takes no packet as large as a plug's discovery.
#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn a_broker_for_small_packets_only_is_named_and_stops_nothing() {
    let plugs = plugs(&["HS110-G3"]).await;
    let broker = Mosquitto::start_with("allow_anonymous true\nmax_packet_size 1500\n").await;
    let (_folder, log) = log();
    let _program = Program::run_logged(&broker.address().to_string(), &[plugs[0].address()], &log);
    let options = watcher::options(broker.address());
    let watcher = Watcher::connect_with(options).await;
    watcher.subscribe("kasa/#").await;
    watcher.hear("kasa/plug-0/availability", |payload| payload == "online").await;
    logs(&log, "raise its limit, as max_packet_size").await;
    // Everything but discovery is served from now on.
    logs(&log, "and the session lasts").await;
    watcher.publish("kasa/plug-0/set", "ON", false).await;
    soon("the relay", plugs[0].relay().wait_for(|relay| *relay)).await.unwrap();
    watcher.hear("kasa/plug-0", |payload| payload.contains(r#""state":"ON""#)).await;
    let all = lines(&log, "");
    assert!(all < 20, "{all} lines");
}
