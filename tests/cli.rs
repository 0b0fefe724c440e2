//! The program as a person meets it: what it prints, and its exit codes.

mod support;

use std::process::{Output, Stdio};
#[cfg(feature = "embedded-broker")]
use std::time::{Duration, Instant};

use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::{Behaviour, Reply, Simulator};
use serde_json::{Value, json};
use support::bridge::Program;
use support::house::{FREE, plugs};
use support::soon;
#[cfg(feature = "embedded-broker")]
use support::watcher::Watcher;
#[cfg(feature = "embedded-broker")]
use support::web;

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

/// Every method of protocol.md 2.1, as it would be typed: harmless ones go through, the others only by their name.
#[tokio::test]
async fn every_system_method_can_be_sent_as_it_is() {
    let plug = plugs(&["HS110-G3"]).await.remove(0);
    let host = plug.address().to_string();
    for (method, arguments, destroys, answer) in [
        ("get_sysinfo", "null", false, 0),
        ("set_relay_state", r#"{"state":1}"#, false, 0),
        ("set_dev_alias", r#"{"alias":"text"}"#, false, 0),
        ("set_led_off", r#"{"off":1}"#, false, 0),
        ("set_dev_location", r#"{"latitude_i":347399,"longitude_i":-866823}"#, false, 0),
        ("check_new_config", "null", false, 0),
        ("get_download_state", "{}", false, -7),
        ("get_dev_icon", "null", false, 0),
        ("set_dev_icon", r#"{"icon":"xxxx","hash":"ABCD"}"#, false, 0),
        ("test_check_uboot", "null", false, 0),
        ("set_mac_addr", r#"{"mac":"50-C7-BF-01-02-03"}"#, true, 0),
        ("set_device_id", r#"{"deviceId":"8006"}"#, true, 0),
        ("set_hw_id", r#"{"hwId":"60FF"}"#, true, 0),
        ("set_test_mode", r#"{"enable":1}"#, true, 0),
        ("download_firmware", r#"{"url":"http://192.0.2.1/x"}"#, true, 0),
        ("flash_firmware", "{}", true, -5),
        ("reboot", r#"{"delay":60}"#, false, 0),
        ("reset", r#"{"delay":60}"#, true, 0),
    ] {
        let request = format!(r#"{{"system":{{"{method}":{arguments}}}}}"#);
        if destroys {
            let error = fails(1, &["plug", &host, "raw", &request]).await;
            assert!(error.contains(method), "{method}: {error}");
            // Leave for one is not leave for all.
            fails(1, &["plug", &host, "raw", &request, "--yes-destroy", "start_calibration"]).await;
        }
        let leave = if destroys { &["--yes-destroy", method][..] } else { &[] };
        let reply = ok(&[&["plug", &host, "raw", &request], leave].concat()).await;
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(reply["system"][method]["err_code"], answer, "{method}: {reply}");
        let sent = plug.log().await.iter().filter(|sent| sent.contains(method)).count();
        assert_eq!(sent, if method == "get_sysinfo" { sent } else { 1 }, "{method} reached the plug once");
    }
}

#[tokio::test]
async fn what_is_private_is_masked_unless_asked_for() {
    let plug = SimPlug::new(Model::named("KP115").unwrap(), "Lamp", mac(0)).bound_to("somebody@example.org");
    let plug = Simulator::start(plug, FREE).await.unwrap();
    let host = plug.address().to_string();
    let request = r#"{"system":{"get_sysinfo":{}},"cnCloud":{"get_info":{}}}"#;
    let masked = ok(&["plug", &host, "raw", request]).await;
    assert!(
        !masked.contains("example.org") && !masked.contains("8006") && masked.contains("Lamp"),
        "{masked}"
    );
    let whole = ok(&["plug", &host, "raw", request, "--unmasked"]).await;
    assert!(whole.contains("somebody@example.org") && whole.contains(r#""deviceId":"8006"#), "{whole}");
}

#[tokio::test]
async fn the_cloud_is_shown_and_left_with_a_warning() {
    let plug = SimPlug::new(Model::named("KP115").unwrap(), "Lamp", mac(0)).bound_to("somebody@example.org");
    let plug = Simulator::start(plug, FREE).await.unwrap();
    let host = plug.address().to_string();
    let info = ok(&["plug", &host, "cloud", "info"]).await;
    assert!(info.contains("bound      ON") && !info.contains("somebody"), "{info}");
    let unbound = run(&["plug", &host, "cloud", "unbind"]).await;
    assert_eq!((unbound.status.code(), stdout(&unbound).as_str()), (Some(0), "ok"));
    assert!(
        stderr(&unbound).contains("warning: the plug leaves its owner's account"),
        "{}",
        stderr(&unbound)
    );
    assert!(!plug.look().await.is_bound());
    assert!(ok(&["plug", &host, "cloud", "info"]).await.contains("bound      OFF"));
    assert!(fails(1, &["plug", &host, "cloud", "unbind"]).await.contains("not bind yet"));
}

#[tokio::test]
async fn the_rest_of_the_family_is_driven_from_the_shell() {
    let devices = plugs(&["HS300", "HS220", "KS200M", "KL110", "HS103"]).await;
    let hosts: Vec<String> = devices.iter().map(|device| device.address().to_string()).collect();
    let [strip, dimmer, sensor, bulb, plug] = &hosts[..] else { panic!("five") };
    assert_eq!(ok(&["plug", strip, "on", "--outlet", "3"]).await, "ON");
    let state = ok(&["plug", strip, "state"]).await;
    assert_eq!(state.lines().filter(|line| line.contains(" ON ")).count(), 1, "{state}");
    assert!(state.lines().nth(2).unwrap().starts_with("3 ON "), "{state}");
    ok(&["plug", strip, "alias", "Fan", "--outlet", "3"]).await;
    assert_eq!(devices[0].look().await.outlets()[2].alias(), "Fan");
    let energy: Value =
        serde_json::from_str(&ok(&["plug", strip, "energy", "--outlet", "3", "--json"]).await).unwrap();
    assert!(energy["power"].as_f64() > Some(1.0), "{energy}");
    ok(&["plug", strip, "on"]).await;
    assert!(devices[0].look().await.outlets().iter().all(|outlet| outlet.relay()));
    assert!(fails(1, &["plug", strip, "on", "--outlet", "9"]).await.contains("outlet"));

    ok(&["plug", dimmer, "brightness", "40", "--over", "500ms"]).await;
    assert_eq!((devices[1].look().await.relay(), devices[1].look().await.brightness()), (true, Some(40)));
    ok(&["plug", dimmer, "brightness", "0"]).await;
    assert!(!devices[1].look().await.relay());

    ok(&["plug", sensor, "pir", "off"]).await;
    assert_eq!(devices[2].look().await.motion(), Some(false));
    assert!(fails(1, &["plug", bulb, "on"]).await.contains("unsupported"));

    ok(&["plug", plug, "on", "--for", "10min"]).await;
    let info = ok(&["plug", plug, "info"]).await;
    assert!(info.contains("timer     OFF in 9m") || info.contains("timer     OFF in 10m"), "{info}");
    ok(&["plug", plug, "identify"]).await;
    assert!(devices[4].look().await.led());
    let led = devices[4].log().await.iter().filter(|request| request.contains("set_led_off")).count();
    assert_eq!(led, 10, "it blinked until the command ended");
}

#[tokio::test]
async fn simulate_serves_dumps() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.json");
    let sysinfo = json!({"alias": "Dumped", "deviceId": "8006A1", "err_code": 0, "feature": "TIM", "hw_ver": "1.0",
        "led_off": 0, "mac": "50:C7:BF:00:00:07", "mic_type": "IOT.SMARTPLUGSWITCH", "model": "KP401(US)",
        "on_time": 5, "relay_state": 1, "rssi": -44, "sw_ver": "1.0.0"});
    std::fs::write(&dump, json!({"system": {"get_sysinfo": sysinfo}}).to_string()).unwrap();
    let path = dump.to_str().unwrap();
    let mut command = Program::command();
    command.args(["simulate", "--port", "0", "--dump", path, path, "--model", "EP10", "--close"]);
    let mut program = Program::spawn(&mut command);
    assert!(program.read_until(|_| true).contains("EP10(US) Simulated plug 1"));
    for _ in 0..2 {
        let line = program.read_until(|_| true);
        assert!(line.contains("50:C7:BF:00:00:07 KP401(US) Dumped"), "{line}");
        let address = line.split(' ').next().unwrap();
        assert_eq!(ok(&["plug", address, "toggle"]).await, "OFF");
    }
    program.kill();
    std::fs::write(&dump, "{}").unwrap();
    let error = fails(1, &["simulate", "--port", "0", "--dump", path]).await;
    assert!(error.contains("dump.json") && error.contains("sysinfo"), "{error}");
}

#[tokio::test]
async fn usage_is_exit_code_two() {
    for arguments in
        [&["fly"][..], &["plug"], &["plug", "x", "led", "up"], &["--log", "kasa2mqtt=loudly", "check"]]
    {
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
    let page = program.read_until(|line| line.contains("http://"));
    let page = page.trim().strip_prefix("http://").unwrap().parse().unwrap();
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
    assert!(web::get(page, "/").await.body.contains("kasa2mqtt"));
    let state = web::get(page, "/api/state").await.json();
    assert_eq!((state["plugs"].as_array().unwrap().len(), &state["may_control"]), (3, &json!(true)));
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

#[tokio::test]
async fn who_reads_no_further_has_what_they_wanted_and_a_full_disk_is_an_error() {
    for arguments in [&["check"][..], &["completions", "bash"]] {
        let into = |stdout: Stdio| async {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kasa2mqtt"));
            let program = command.args(arguments).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
            soon("the program", program.wait_with_output()).await.unwrap()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = into(writer.into()).await;
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{arguments:?}");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = into(full.into()).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains("No space left"), "{}", stderr(&output));
    }
}
