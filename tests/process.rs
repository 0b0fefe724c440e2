//! What happens to a process: it is killed, frozen, its disk is full, its clock jumps. Against the real program.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rumqttc::QoS;
use serde_json::{Value, json};
use support::bridge::Program;
use support::house::plugs;
use support::mosquitto::Mosquitto;
use support::soon;
use support::watcher::Watcher;
use tempfile::TempDir;

/// A variable of the environment, in seconds.
fn seconds(name: &str, otherwise: u64) -> Duration {
    let value = std::env::var(name).ok();
    Duration::from_secs(
        value.map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name}: seconds"))),
    )
}

async fn watch(broker: &Mosquitto) -> Watcher {
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.subscribe("homeassistant/#").await;
    watcher
}

/// `KASA2MQTT_TEST_KILL_SECONDS` kills for longer than the usual few seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: tests/run"]
async fn killed_at_any_moment_it_leaves_and_finds_everything_in_order() {
    const PLUGS: usize = 10;
    let plugs = plugs(&["HS110-G3"; PLUGS]).await;
    let broker = Mosquitto::start().await;
    let addresses: Vec<_> = plugs.iter().map(|plug| plug.address()).collect();
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let run = || Program::run_logged(&broker.address().to_string(), &addresses, &log);
    let mut program = run();
    let watcher = watch(&broker).await;
    for number in 0..PLUGS {
        watcher.hear(&format!("kasa/plug-{number}"), |_| true).await;
    }
    watcher.hear("kasa/bridge/devices", |devices| devices.matches("online").count() == PLUGS).await;
    let topics = |retained: &BTreeMap<String, String>| {
        let topics = retained.keys().filter(|topic| !topic.ends_with("/info") && !topic.ends_with("/health"));
        topics.cloned().collect::<Vec<_>>()
    };
    let complete = topics(&retained(&broker).await);
    assert!(complete.len() > 3 * PLUGS, "{complete:?}");
    let (begin, mut kills, mut sent) = (Instant::now(), 0, 0);
    while begin.elapsed() < seconds("KASA2MQTT_TEST_KILL_SECONDS", 15) {
        let until = Instant::now() + Duration::from_millis(fastrand::u64(0..1500));
        while Instant::now() < until {
            let topic = format!("kasa/plug-{}/set", fastrand::usize(..PLUGS));
            let payload = json!({"state": "TOGGLE", "transaction": sent}).to_string();
            watcher.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
            sent += 1;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..20))).await;
        }
        program.kill();
        kills += 1;
        program = run();
    }
    // At rest again, what is retained is what is so, and as many topics as ever.
    let from = watcher.mark();
    watcher.hear_after(from, "kasa/bridge/state", |payload| payload == "online").await;
    for number in 0..PLUGS {
        let on = format!(r#"{{"state":"ON","transaction":"end-{number}"}}"#);
        watcher.publish(&format!("kasa/plug-{number}/set"), &on, false).await;
        let is_it = |result: &str| result.contains(&format!("end-{number}"));
        let result = watcher.hear_after(from, &format!("kasa/plug-{number}/result"), is_it).await;
        assert!(result.payload.contains(r#""ok":true"#), "{result:?}");
    }
    let mut now = retained(&broker).await;
    let settled = soon("the last states", async {
        let is_on = |now: &BTreeMap<String, String>| {
            (0..PLUGS).all(|number| {
                now.get(&format!("kasa/plug-{number}")).is_some_and(|state| state.contains(r#""state":"ON""#))
                    && now.get(&format!("kasa/plug-{number}/availability")).is_some_and(|is| is == "online")
            })
        };
        while !is_on(&now) || topics(&now) != complete {
            tokio::time::sleep(Duration::from_millis(100)).await;
            now = retained(&broker).await;
        }
    });
    settled.await;
    let mut results: BTreeMap<u64, u32> = BTreeMap::new();
    for heard in watcher.log.borrow().heard.iter().filter(|heard| heard.topic.ends_with("/result")) {
        let result: Value = serde_json::from_str(&heard.payload).unwrap();
        if let Some(transaction) = result["transaction"].as_u64() {
            *results.entry(transaction).or_default() += 1;
        }
    }
    assert!(results.values().all(|count| *count == 1), "a command was answered twice");
    let ran: u64 = plugs.iter().map(|plug| plug.counts().borrow().relay_commands).sum();
    assert!(ran <= (sent + PLUGS) as u64, "{ran} of {sent} ran");
    println!(
        "{kills} kills in {:?}; {sent} commands, {ran} ran, {} answered",
        begin.elapsed(),
        results.len()
    );
}

async fn retained(broker: &Mosquitto) -> BTreeMap<String, String> {
    let mut retained = Watcher::retained(broker.address(), "kasa/#").await;
    retained.extend(Watcher::retained(broker.address(), "homeassistant/#").await);
    retained
}

/// As by a suspended host. `KASA2MQTT_TEST_STOP_SECONDS` is how long; longer than `command_ttl` in any case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: tests/run"]
async fn frozen_and_thawed_it_runs_nothing_old_and_is_current_at_once() {
    let plugs = plugs(&["HS110-G3"; 5]).await;
    let broker = Mosquitto::start().await;
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let addresses: Vec<_> = plugs.iter().map(|plug| plug.address()).collect();
    let program = Program::run_logged(&broker.address().to_string(), &addresses, &log);
    let watcher = watch(&broker).await;
    for number in 0..plugs.len() {
        watcher.hear(&format!("kasa/plug-{number}/availability"), |payload| payload == "online").await;
    }
    program.signal("STOP");
    let stopped = Instant::now();
    let time = seconds("KASA2MQTT_TEST_STOP_SECONDS", 12);
    // At its beginning, at once, and all the while.
    while stopped.elapsed() < time {
        for number in 0..plugs.len() {
            watcher.publish(&format!("kasa/plug-{number}/set"), "ON", false).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Meanwhile somebody presses a button: twice, so that the lamp is off as before, and once at another.
    plugs[1].press(true).await;
    let from = watcher.mark();
    let thawed = Instant::now();
    program.signal("CONT");
    // The state of the one that was switched; a command to it would have switched it as well, so the count tells.
    watcher.hear_after(from, "kasa/plug-1", |state| state.contains(r#""state":"ON""#)).await;
    let current = thawed.elapsed();
    watcher.hear_after(from, "kasa/bridge/state", |payload| payload == "online").await;
    let payload = r#"{"state":"ON","transaction":"after"}"#;
    watcher.publish("kasa/plug-2/set", payload, false).await;
    watcher.hear_after(from, "kasa/plug-2/result", |result| result.contains("after")).await;
    let ran: Vec<u64> = plugs.iter().map(|plug| plug.counts().borrow().relay_commands).collect();
    assert_eq!(ran, [0, 0, 1, 0, 0], "commands of before the thaw ran");
    println!("frozen for {time:?}, current after {current:?}");
    assert!(current < Duration::from_secs(5), "current after {current:?}");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("stood still for"), "{text}");
}

/// Wherever it is: searching for its broker, hanging on a plug, in the midst of commands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: tests/run"]
async fn told_to_end_it_ends() {
    let plugs = plugs(&["HS110-G3"; 10]).await;
    let broker = Mosquitto::start().await;
    let mut addresses: Vec<_> = plugs.iter().map(|plug| plug.address()).collect();
    // One that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    addresses.push(silent.local_addr().unwrap());
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let nowhere = support::port::unused().to_string();
    let watcher = watch(&broker).await;
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        let url = if round % 4 == 3 { nowhere.clone() } else { broker.address().to_string() };
        let program = Program::run_logged(&url, &addresses, &log);
        // It takes signals from here on.
        soon("its first words", async {
            while !fs::read_to_string(&log).unwrap().contains("is running") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        for number in 0..fastrand::usize(0..200) {
            let topic = format!("kasa/plug-{}/set", number % plugs.len());
            watcher.client.publish(topic, QoS::AtLeastOnce, false, "TOGGLE").await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..300))).await;
        let begin = Instant::now();
        program.signal("TERM");
        assert!(program.ended().await.success());
        longest = longest.max(begin.elapsed());
    }
    println!("20 ends, the slowest took {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

/// A disk that is full under its log is no reason to stop.
#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn it_goes_on_when_its_log_cannot_be_written() {
    let plugs = plugs(&["HS110-G3"]).await;
    let broker = Mosquitto::start().await;
    let folder = TempDir::new().unwrap();
    let mut command =
        Program::logged(&broker.address().to_string(), &[plugs[0].address()], &folder.path().join("log"));
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    command.stdout(full()).stderr(full());
    let program = Program::spawn(&mut command);
    let watcher = watch(&broker).await;
    watcher.hear("kasa/plug-0/availability", |payload| payload == "online").await;
    watcher.publish("kasa/plug-0/set", "ON", false).await;
    watcher.hear("kasa/plug-0", |state| state.contains(r#""state":"ON""#)).await;
    program.signal("TERM");
    assert!(program.ended().await.success());
}

/// Where Debian puts the library that fakes the time of day.
fn libfaketime() -> String {
    let listed = std::process::Command::new("dpkg").args(["-L", "libfaketime"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let library = listed.lines().find(|path| path.ends_with("/libfaketime.so.1"));
    library.expect("libfaketime: tests/run installs it").into()
}

/// Somebody sets the clock, far and both ways: nothing is late, early, lost or begun anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and libfaketime: tests/run"]
async fn it_does_not_care_what_time_it_is() {
    let plugs = plugs(&["HS110-G3"; 3]).await;
    let broker = Mosquitto::start().await;
    let folder = TempDir::new().unwrap();
    let (log, time) = (folder.path().join("log"), folder.path().join("time"));
    let addresses: Vec<_> = plugs.iter().map(|plug| plug.address()).collect();
    fs::write(&time, "+0").unwrap();
    let mut command = Program::logged(&broker.address().to_string(), &addresses, &log);
    command.env("LD_PRELOAD", libfaketime()).env("FAKETIME_TIMESTAMP_FILE", &time);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let _program = Program::spawn(&mut command);
    let watcher = watch(&broker).await;
    for number in 0..plugs.len() {
        watcher.hear(&format!("kasa/plug-{number}/availability"), |payload| payload == "online").await;
    }
    for (round, jump) in ["+400d", "-400d", "+1h", "-1h", "+0"].into_iter().enumerate() {
        fs::write(&time, jump).unwrap();
        // Polls come as ever, once a second, beside a few questions: not a heap of them, and none left out.
        let (polls, begin) = (plugs[0].counts().borrow().requests, Instant::now());
        soon("polls", plugs[0].counts().wait_for(|counts| counts.requests >= polls + 8)).await.unwrap();
        assert!(begin.elapsed() > Duration::from_millis(1500), "{jump}: polls in a heap");
        let payload = json!({"state": "TOGGLE", "transaction": round}).to_string();
        for number in 0..plugs.len() {
            watcher.publish(&format!("kasa/plug-{number}/set"), &payload, false).await;
            let is_it = |result: &str| result.contains(&format!(r#""transaction":{round}"#));
            let result = watcher.hear(&format!("kasa/plug-{number}/result"), is_it).await;
            assert!(result.payload.contains(r#""ok":true"#), "{jump}: {result:?}");
        }
    }
    // The jumps reached it: "on since" is by the clock.
    let on_since =
        |state: &String| serde_json::from_str::<Value>(state).unwrap()["on_since"].as_str().map(String::from);
    let years: BTreeSet<String> =
        watcher.on("kasa/plug-0").iter().filter_map(on_since).map(|time| time[..4].into()).collect();
    assert!(years.len() > 1, "{years:?}");
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains("no connection") && !text.contains("offline"), "{text}");
    for plug in &plugs {
        assert_eq!(plug.counts().borrow().relay_commands, 5);
    }
    assert_eq!(watcher.on("kasa/bridge/state"), ["online"]);
}
