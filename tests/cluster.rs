//! Three shards and three hundred plugs on a cluster of three brokers: a broker dies, then another, then a shard, and
//! commands flow all the while.
#![cfg(feature = "embedded-broker")]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use kasa2mqtt::bridge::shard::Shard;
use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::plug::mac::Mac;
use kasa2mqtt::sim::server::Simulator;
use rumqttc::QoS;
use serde_json::{Value, json};
use support::bridge::Program;
use support::house::plugs;
use support::nats::{NODES, Nats};
use support::watcher::{Heard, Watcher};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

const PLUGS: usize = 300;
const SHARDS: u32 = 3;

/// One command in this time.
const PACE: Duration = Duration::from_millis(20);

/// What `commands.ttl` is by default.
const TTL: Duration = Duration::from_secs(10);

/// A broker that acknowledges nothing for so long is left, where there is another.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// A node learns some time after the fact of whom another node has lost, and whom it serves now.
const SLACK: Duration = Duration::from_secs(1);

fn owner(number: usize) -> u32 {
    let id: String = mac(u16::try_from(number).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    let mac: Mac = id.parse().unwrap();
    (1..=SHARDS).find(|number| Shard { number: *number, count: SHARDS }.owns(mac)).unwrap()
}

/// The real program, whose log is appended to a file; each shard begins at another node.
fn shard(nats: &Nats, plugs: &[Simulator], number: usize) -> Program {
    let nodes = (0..NODES).map(|node| (node + number - 1) % NODES);
    let urls: Vec<String> = nodes.map(|node| format!("\"mqtt://{}\"", nats.address(node))).collect();
    let listed = plugs.iter().enumerate();
    let listed: Vec<String> = listed
        .map(|(number, plug)| format!("{{host=\"{}\",name=\"plug-{number}\"}}", plug.address()))
        .collect();
    let mut command = Program::command();
    command.arg("run").env("KASA2MQTT_SHARD", format!("{number}/{SHARDS}"));
    command.env("KASA2MQTT_MQTT__URLS", format!("[{}]", urls.join(",")));
    command.env("KASA2MQTT_PLUG", format!("[{}]", listed.join(",")));
    // Each subscription of quality 1 is a consumer of its own on each of the nodes: seconds.
    command.env("KASA2MQTT_MQTT__SUBSCRIBE_QOS", "0").env("KASA2MQTT_POLL__INTERVAL", "2s");
    let log = std::fs::File::options().append(true).create(true).open(log(nats, number)).unwrap();
    command.env("RUST_LOG", "info,rumqttc=debug").stdout(std::process::Stdio::null()).stderr(log);
    Program::spawn(&mut command)
}

fn log(nats: &Nats, shard: usize) -> PathBuf {
    nats.folder().join(format!("shard-{shard}.log"))
}

async fn watch(nats: &Nats, node: usize) -> Watcher {
    let watcher = Watcher::connect(nats.address(node)).await;
    for filter in ["kasa/+/result", "kasa/+/availability", "kasa/bridge/+/state", "kasa/bridge/+/event"] {
        let before = watcher.log.borrow().subscriptions;
        watcher.client.subscribe(filter, QoS::AtMostOnce).await.unwrap();
        watcher.wait("a SUBACK", |log| log.subscriptions > before).await;
    }
    watcher
}

/// Commands one after the other, whatever happens, until told to stop; when each was sent. Without acknowledgements, which
/// wait for the nodes to agree: a node that cannot have one in time closes the connection.
struct Flow {
    stop: oneshot::Sender<()>,
    /// How many there were so far.
    count: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<HashMap<usize, SystemTime>>,
}

impl Flow {
    fn begin(client: rumqttc::AsyncClient) -> Flow {
        let (stop, mut stopped) = oneshot::channel();
        let (counter, count) = watch::channel(0);
        let task = tokio::spawn(async move {
            let (mut sent, mut pace) = (HashMap::new(), tokio::time::interval(PACE));
            for number in 0.. {
                tokio::select! {
                    _ = pace.tick() => {}
                    _ = &mut stopped => break,
                }
                let payload = json!({"state": "TOGGLE", "transaction": number}).to_string();
                let topic = format!("kasa/plug-{}/set", number % PLUGS);
                client.publish(topic, QoS::AtMostOnce, false, payload).await.unwrap();
                sent.insert(number, SystemTime::now());
                let _ = counter.send(number + 1);
            }
            sent
        });
        Flow { stop, count, task }
    }

    /// Until every shard obeys what is sent from now on.
    async fn is_felt(&self, watcher: &Watcher) {
        let from = *self.count.borrow();
        for shard in 1..=SHARDS {
            let is_its = |heard: &&Heard| {
                transaction(heard).is_some_and(|number| number >= from && owner(number % PLUGS) == shard)
            };
            watcher
                .wait("results of a shard", |log| log.heard.iter().rev().filter(is_its).nth(20).is_some())
                .await;
        }
    }

    async fn end(self) -> HashMap<usize, SystemTime> {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

/// Which command a result answers.
fn transaction(heard: &Heard) -> Option<usize> {
    let plug = heard.topic.strip_prefix("kasa/plug-")?.strip_suffix("/result")?;
    let result: Value = serde_json::from_str(&heard.payload).unwrap();
    let number = usize::try_from(result["transaction"].as_u64().unwrap()).unwrap();
    assert_eq!(plug, (number % PLUGS).to_string());
    Some(number)
}

/// From when until when.
type Absence = (SystemTime, SystemTime);

/// When a shard was away: as its will says, or as it said itself when it was back.
fn absences(heard: &[Heard], shard: u32) -> Vec<Absence> {
    let wall = |at: Instant| SystemTime::now() - at.elapsed();
    let time = |text: &Value| humantime::parse_rfc3339(text.as_str().unwrap()).unwrap();
    let mut absences = Vec::new();
    let mut gone = None;
    for message in heard {
        let state = format!("kasa/bridge/shard-{shard}/state");
        if message.topic == state && message.payload == "offline" {
            gone.get_or_insert(wall(message.at));
        } else if message.topic == state
            && let Some(from) = gone.take()
        {
            absences.push((from, wall(message.at)));
        } else if message.topic == format!("kasa/bridge/shard-{shard}/event") {
            let event: Value = serde_json::from_str(&message.payload).unwrap();
            if event["type"] == "away" {
                absences.push((time(&event["from"]), time(&event["to"])));
            }
        }
    }
    absences.extend(gone.map(|from| (from, SystemTime::now())));
    absences
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: tests/run"]
async fn a_broker_dies_and_another_and_a_shard_and_every_command_is_accounted_for() {
    let began = Instant::now();
    let mut nats = Nats::start().await;
    println!("{NODES} nodes after {:?}", began.elapsed());
    let plugs = plugs(&["HS100-G3"; PLUGS]).await;
    // The first node lives on: who looks on sees everything.
    let watcher = watch(&nats, 0).await;
    let mut shards: Vec<Option<Program>> =
        (1..=SHARDS).map(|number| Some(shard(&nats, &plugs, number as usize))).collect();
    for number in 0..PLUGS {
        watcher.hear(&format!("kasa/plug-{number}/availability"), |payload| payload == "online").await;
    }
    println!("{PLUGS} plugs online after {:?}", began.elapsed());
    let ran = runs(&plugs);
    let flow = Flow::begin(watcher.client.clone());
    flow.is_felt(&watcher).await;
    let settled = Duration::from_secs(3);
    for node in [1, 2] {
        let killed = Instant::now();
        nats.kill(node);
        // Its shard goes elsewhere, and so does any whose node lost its leader with it.
        flow.is_felt(&watcher).await;
        println!("node {node} killed: every shard obeys after {:?}", killed.elapsed());
        nats.restart(node).await;
        assert_eq!(watcher.log.borrow().refused, None);
        println!("node {node} is back after {:?}", killed.elapsed());
        tokio::time::sleep(settled).await;
        flow.is_felt(&watcher).await;
    }
    // A shard is killed, and started anew.
    let (killed, from) = (Instant::now(), watcher.mark());
    shards[2].take().unwrap().kill();
    let died = SystemTime::now();
    watcher.hear_after(from, "kasa/bridge/shard-3/state", |payload| payload == "offline").await;
    println!("shard 3 killed: told after {:?}", killed.elapsed());
    shards[2] = Some(shard(&nats, &plugs, 3));
    watcher.hear_after(from, "kasa/bridge/shard-3/state", |payload| payload == "online").await;
    println!("shard 3 is back after {:?}", killed.elapsed());
    flow.is_felt(&watcher).await;
    let sent = flow.end().await;
    // What was sent last has its answer, or its time is over.
    tokio::time::sleep(Duration::from_secs(12)).await;

    let heard = watcher.log.borrow().heard.clone();
    assert!(!watcher.log.borrow().ended, "the witness was thrown out");
    let mut results: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for result in &heard {
        if let Some(number) = transaction(result) {
            results.entry(number).or_default().push(result.payload.clone());
        }
    }
    // The retained set is complete, whichever node is asked.
    let mut relays = Vec::new();
    for plug in &plugs {
        relays.push(plug.look().await.relay());
    }
    for node in 0..NODES {
        complete(&nats, node, &relays).await;
    }
    drop(plugs);
    let ran: BTreeMap<usize, Vec<SystemTime>> = ran.join_all().await.into_iter().collect();
    let mut absences: Vec<Vec<Absence>> = (1..=SHARDS).map(|shard| absences(&heard, shard)).collect();
    // Answers that the broker had not acknowledged died with the shard, and its will tells of its death.
    absences[2].push((died - UNACKNOWLEDGED, died));
    let (mut refused, mut repeated, mut failed) = (0, 0, 0);
    let mut done = vec![0; PLUGS];
    let mut lost = Vec::new();
    for (number, at) in &sent {
        let (plug, shard) = (number % PLUGS, owner(number % PLUGS));
        let Some(results) = results.get(number) else {
            let is_told = |(from, to): &Absence| *at + SLACK >= *from && *at <= *to + SLACK;
            match absences[shard as usize - 1].iter().any(is_told) {
                true => refused += 1,
                false => lost.push((
                    *at,
                    format!("{number} to plug {plug} of shard {shard}; it ran {:?}", ran[&plug]),
                )),
            }
            continue;
        };
        // A result that a broker took, and whose acknowledgement died with it, is said again, word for word.
        repeated += results.len() - 1;
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
        match results[0].contains(r#""ok":true"#) {
            true => done[plug] += 1,
            false => failed += 1,
        }
    }
    println!(
        "{} commands: {} answered ({repeated} of them twice, {failed} with an error), {refused} sent to a shard that was away",
        sent.len(),
        results.len()
    );
    if !lost.is_empty() {
        lost.sort();
        let logs = (1..=SHARDS as usize).map(|shard| std::fs::read_to_string(log(&nats, shard)).unwrap());
        let logs: Vec<String> = logs.collect();
        panic!("not accounted for: {lost:#?}; absences {absences:#?}; logs:\n{}", logs.join("\n\n"));
    }
    for (plug, ran) in &ran {
        let sent = sent.iter().filter(|(number, _)| *number % PLUGS == *plug);
        let mut sent: Vec<(usize, SystemTime)> = sent.map(|(number, at)| (*number, *at)).collect();
        sent.sort();
        each_ran_once_and_in_time(*plug, ran, &sent);
        assert!(ran.len() >= done[*plug], "plug {plug}: {} done, and {} ran", done[*plug], ran.len());
    }
}

/// When each plug's relay was commanded, until the simulators end.
fn runs(plugs: &[Simulator]) -> JoinSet<(usize, Vec<SystemTime>)> {
    let mut runs = JoinSet::new();
    for (number, plug) in plugs.iter().enumerate() {
        let mut counts = plug.counts();
        runs.spawn(async move {
            let mut ran = Vec::new();
            while counts.changed().await.is_ok() {
                let commands = usize::try_from(counts.borrow_and_update().relay_commands).unwrap();
                ran.resize(commands, SystemTime::now());
            }
            (number, ran)
        });
    }
    runs
}

/// Each time that a relay was commanded is the work of one command, sent before it and not longer ago than a command
/// lives; and no command is taken twice.
fn each_ran_once_and_in_time(plug: usize, ran: &[SystemTime], sent: &[(usize, SystemTime)]) {
    let mut sent = sent.iter().peekable();
    for at in ran {
        let is_over = |(_, sent): &&(usize, SystemTime)| *sent + TTL + SLACK < *at;
        while sent.next_if(is_over).is_some() {}
        let command = sent.next_if(|(_, sent)| *sent <= *at);
        assert!(
            command.is_some(),
            "plug {plug} was commanded at {at:?}, late or twice; all: {ran:?}, sent: {sent:?}"
        );
    }
}

/// Every plug's state, which is how its relay is, its availability and discovery, and every shard's own; and every plug is in
/// the list of one shard.
async fn complete(nats: &Nats, node: usize, relays: &[bool]) {
    let mut expected: BTreeSet<String> = BTreeSet::new();
    for number in 0..PLUGS {
        let id: String =
            mac(u16::try_from(number).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
        expected.extend([format!("kasa/plug-{number}"), format!("kasa/plug-{number}/availability")]);
        expected.insert(format!("homeassistant/device/kasa_{id}/config"));
    }
    for shard in 1..=SHARDS {
        expected.extend(
            ["state", "info", "devices", "health"].map(|what| format!("kasa/bridge/shard-{shard}/{what}")),
        );
        expected.insert(format!("homeassistant/device/kasa_bridge_{shard}/config"));
    }
    let watcher = Watcher::connect(nats.address(node)).await;
    for filter in ["kasa/#", "homeassistant/#"] {
        watcher.client.subscribe(filter, QoS::AtMostOnce).await.unwrap();
    }
    let has_all = |log: &support::watcher::Log| {
        let topics: BTreeSet<&String> = log
            .heard
            .iter()
            .filter(|heard| heard.retain && !heard.payload.is_empty())
            .map(|heard| &heard.topic)
            .collect();
        expected.iter().all(|topic| topics.contains(topic))
    };
    watcher.wait("the retained set", has_all).await;
    let log = watcher.log.borrow().clone();
    for heard in log.heard.iter().filter(|heard| heard.retain) {
        let is_right = match heard.topic.as_str() {
            topic if topic.ends_with("/availability") || topic.ends_with("/state") => {
                heard.payload == "online"
            }
            topic if topic.starts_with("homeassistant/device/kasa_5") => {
                heard.payload.contains("/bridge/shard-")
            }
            topic if topic.starts_with("kasa/plug-") => {
                let plug: usize = topic["kasa/plug-".len()..].parse().unwrap();
                let state = if relays[plug] { "ON" } else { "OFF" };
                heard.payload.starts_with(&format!(r#"{{"state":"{state}""#))
            }
            topic => expected.contains(topic),
        };
        assert!(is_right, "node {node}: {heard:?}");
    }
    let lists = log.heard.iter().filter(|heard| heard.retain && heard.topic.ends_with("/devices"));
    let listed: Vec<Value> =
        lists.flat_map(|heard| serde_json::from_str::<Vec<Value>>(&heard.payload).unwrap()).collect();
    let ids: BTreeSet<&str> = listed.iter().map(|device| device["id"].as_str().unwrap()).collect();
    assert_eq!((listed.len(), ids.len()), (PLUGS, PLUGS), "node {node}: in the list of one shard each");
    println!("node {node} retains all {} topics", expected.len());
}
