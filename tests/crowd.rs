//! More plugs than the limit of open files has room for: all are served, by turns.
#![cfg(feature = "embedded-broker")]

mod support;

use std::process::{Command, Stdio};

use support::bridge::Program;
use support::broker::AnyBroker;
use support::house::plugs;
use support::watcher::Watcher;

/// Room for 16 connections beside what the program needs for itself (`src/descriptors.rs`).
const LIMIT: u32 = 80;
const PLUGS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn all_are_served_and_it_says_why_some_connect_for_each_poll() {
    let plugs = plugs(&["HS110-G1"; PLUGS]).await;
    let broker = AnyBroker::embedded().await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;

    let listed: Vec<String> = plugs.iter().map(|plug| format!("{{host=\"{}\"}}", plug.address())).collect();
    let mut command = Command::new("sh");
    // The hard limit too, so that it cannot be raised.
    let line = format!("ulimit -n {LIMIT} && exec \"$0\" run 2>&1");
    command.args(["-c", &line, env!("CARGO_BIN_EXE_kasa2mqtt")]).stdin(Stdio::null()).stdout(Stdio::piped());
    command.env("KASA2MQTT_SCAN__ENABLED", "false").env("KASA2MQTT_POLL__INTERVAL", "1s");
    command.env("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address()));
    command.env("KASA2MQTT_PLUG", format!("[{}]", listed.join(",")));
    let mut program = Program::spawn(&mut command);
    let program = tokio::task::spawn_blocking(move || {
        program.read_until(|line| line.contains("the limit of open files is too low"));
        program.drain();
        program
    });
    let program = support::soon("a word about the limit", program).await.unwrap();

    for number in 0..PLUGS {
        watcher.hear(&format!("kasa/plug-{number}"), |state| state.contains(r#""state":"OFF""#)).await;
    }
    for number in 0..PLUGS {
        watcher.publish(&format!("kasa/plug-{number}/set"), "ON", false).await;
    }
    for number in 0..PLUGS {
        watcher.hear(&format!("kasa/plug-{number}"), |state| state.contains(r#""state":"ON""#)).await;
        assert_eq!(watcher.on(&format!("kasa/plug-{number}/availability")), ["online"]);
    }
    program.signal("TERM");
    assert!(program.ended().await.success());
}
