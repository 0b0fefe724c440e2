//! The program as a person meets it: what it prints, and its exit codes.

mod support;

use std::process::{Output, Stdio};
#[cfg(feature = "embedded-broker")]
use std::time::{Duration, Instant};

use kasa2mqtt::sim::server::{Behaviour, Reply};
use serde_json::Value;
use support::bridge::Program;
use support::house::plugs;
use support::soon;
#[cfg(feature = "embedded-broker")]
use support::watcher::Watcher;

async fn run(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kasa2mqtt"));
    soon("the program", command.args(arguments).stdin(Stdio::null()).output()).await.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap().trim().into()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

async fn ok(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

async fn fails(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    stderr(&output)
}

#[tokio::test]
async fn one_plug_is_driven_from_the_shell() {
    for model in ["HS100-G1", "HS110-G1", "HS110-G2", "HS110-G3"] {
        let plug = plugs(&[model]).await.remove(0);
        let host = plug.address().to_string();
        let plug_command = async |arguments: &[&str]| ok(&[&["plug", &host], arguments].concat()).await;
        assert_eq!(plug_command(&["state"]).await, "OFF");
        assert_eq!(plug_command(&["on"]).await, "ON");
        assert!(plug.look().await.relay());
        assert_eq!(plug_command(&["toggle"]).await, "OFF");
        assert_eq!(plug_command(&["state"]).await, "OFF");
        plug_command(&["led", "off"]).await;
        assert!(!plug.look().await.led());
        plug_command(&["alias", "Büro ☃"]).await;
        assert_eq!(plug.look().await.alias(), "Büro ☃");
        let info = plug_command(&["info"]).await;
        assert!(info.contains("Büro ☃") && info.contains(&plug.mac().to_lowercase()), "{info}");
        let info: Value = serde_json::from_str(&plug_command(&["info", "--json"]).await).unwrap();
        assert_eq!(info["alias"], "Büro ☃");
        let reply = plug_command(&["raw", r#"{"time":{"get_time":{}}}"#]).await;
        assert!(reply.contains(r#""err_code":0"#), "{reply}");
        match model.starts_with("HS110") {
            true => assert!(plug_command(&["energy"]).await.contains("voltage   23")),
            false => assert!(fails(1, &["plug", &host, "energy"]).await.contains("no energy meter")),
        }
        plug_command(&["reboot"]).await;
        soon("the restart", plug.counts().wait_for(|counts| counts.reboots == 1)).await.unwrap();
    }
}

#[tokio::test]
async fn a_plug_that_fails_is_explained() {
    let plug = plugs(&["HS100-G1"]).await.remove(0);
    let host = plug.address().to_string();
    plug.behave(Behaviour { reply: Reply::Silence, ..Behaviour::default() }).await;
    assert!(fails(1, &["plug", &host, "on", "--timeout", "200ms"]).await.contains("no answer within 200ms"));
    plug.behave(Behaviour { reply: Reply::Rubbish, ..Behaviour::default() }).await;
    assert!(fails(1, &["plug", &host, "on"]).await.contains("malformed reply"));
    drop(plug);
    assert!(fails(1, &["plug", "127.0.0.1:1", "on"]).await.contains("cannot connect"));
}

#[tokio::test]
async fn what_destroys_a_plug_is_not_sent() {
    let plug = plugs(&["HS100-G1"]).await.remove(0);
    let host = plug.address().to_string();
    let error = fails(1, &["plug", &host, "raw", r#"{"system":{"reset":{"delay":1}}}"#]).await;
    assert!(error.contains("reset"), "{error}");
    assert_eq!(plug.counts().borrow().requests, 0);
}

#[tokio::test]
async fn usage_is_exit_code_two() {
    for arguments in [&["fly"][..], &["plug"], &["plug", "x", "led", "up"], &["--log", "=,=", "check"]] {
        fails(2, arguments).await;
    }
    assert!(ok(&["--help"]).await.contains("demo"));
    assert!(ok(&["--version"]).await.contains(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn check_says_what_a_configuration_means() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kasa.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "[mqtt]\nurl = \"mqtt://broker.lan\"\nusername = \"me\"\npassword = \"hunter2\"\n[[plug]]\nhost = \"192.0.2.1\"\nname = \"lamp\"\n").unwrap();
    let told = ok(&["check", "-c", path]).await;
    for word in ["mqtt://broker.lan:1883", "user me", "192.0.2.1:9999 lamp, every 5s", "homeassistant/device"]
    {
        assert!(told.contains(word), "{told}");
    }
    assert!(!told.contains("hunter2"));
    std::fs::write(&file, "[mqtt]\nurll = \"x\"\n").unwrap();
    let error = fails(1, &["check", "-c", path]).await;
    assert!(error.contains("urll") && error.contains("kasa.toml"), "{error}");
    assert!(fails(1, &["run", "-c", "/nowhere.toml"]).await.contains("/nowhere.toml"));
}

#[tokio::test]
async fn simulate_serves_plugs_and_says_where() {
    let mut command = Program::command();
    command.args([
        "simulate", "--port", "0", "--model", "HS110-G1", "--model", "hs100-g3", "--alias", "Lamp one",
    ]);
    let mut program = Program::spawn(&mut command);
    let line = program.read_until(|_| true);
    let address = line.split(' ').next().unwrap().to_string();
    assert!(line.contains("HS110(EU) Lamp one"), "{line}");
    assert!(program.read_until(|_| true).contains("HS100(EU) Simulated plug 2"));
    assert_eq!(ok(&["plug", &address, "on"]).await, "ON");
    program.signal("TERM");
    assert!(program.ended().await.success());
}

#[cfg(feature = "embedded-broker")]
#[tokio::test]
async fn the_demo_shows_what_it_says_and_ends_at_once() {
    let mut command = Program::command();
    command.arg("demo").stderr(Stdio::null());
    let mut program = Program::spawn(&mut command);
    let subscribe = program.read_until(|line| line.contains("mosquitto_sub"));
    let port: u16 = subscribe.split_whitespace().nth(2).unwrap().parse().unwrap();
    let publish = program.read_until(|line| line.contains("mosquitto_pub"));
    assert_eq!(publish.trim(), format!("mosquitto_pub -p {port} -t kasa/desk-lamp/set -m ON"));
    program.read_until(|line| line.contains("Ctrl-C"));
    let watcher = Watcher::connect(([127, 0, 0, 1], port).into()).await;
    watcher.subscribe("kasa/#").await;
    watcher.hear("kasa/desk-lamp", |payload| payload.contains(r#""state":"OFF""#)).await;
    watcher.publish("kasa/desk-lamp/set", "ON", false).await;
    watcher.hear("kasa/desk-lamp", |payload| payload.contains(r#""state":"ON""#)).await;
    watcher.publish("kasa/radio/set", r#"{"state":"ON","transaction":1}"#, false).await;
    watcher.hear("kasa/radio/result", |payload| payload.contains(r#""transaction":1"#)).await;
    let began = Instant::now();
    program.signal("INT");
    assert!(program.ended().await.success());
    let took = began.elapsed();
    println!("the demo ended in {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[cfg(feature = "embedded-broker")]
#[tokio::test]
async fn a_taken_port_is_explained_by_the_program() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kasa2mqtt"));
    let output = soon("the program", command.arg("run").env("KASA2MQTT_BROKER__LISTEN", &address).output())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(error.contains(&address) && error.contains("broker.listen"), "{error}");
}

#[cfg(not(feature = "embedded-broker"))]
#[tokio::test]
async fn without_the_embedded_broker_a_url_is_asked_for() {
    assert!(fails(1, &["run"]).await.contains("mqtt.url"));
}

/// One line when something starts failing, one when it ends, and none in between; as JSON by option.
#[tokio::test]
async fn the_log_is_quiet() {
    let plug = plugs(&["HS100-G1"]).await.remove(0);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kasa2mqtt"));
    // Nobody listens at the broker's address, and nobody else can take it: it is bound.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind(support::house::FREE).unwrap();
    let free = bound.local_addr().unwrap();
    command.args(["run", "--log-format", "json"]);
    command.env("KASA2MQTT_MQTT__URL", format!("mqtt://{free}"));
    command.env("KASA2MQTT_PLUG", format!("[{{host=\"{}\"}}]", plug.address()));
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // Enough for several tries to connect and for polls to go on.
    let polls = |counts: &kasa2mqtt::sim::server::Counts| counts.requests >= 2;
    soon("polls without a broker", plug.counts().wait_for(polls)).await.unwrap();
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let output = soon("the end", child.wait_with_output()).await.unwrap();
    assert!(output.status.success());
    let lines: Vec<Value> = stderr(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let broker = lines.iter().filter(|line| line["fields"].get("broker").is_some()).count();
    assert_eq!(broker, 1, "{lines:?}");
    assert!(lines.len() <= 3, "{lines:?}");
}
