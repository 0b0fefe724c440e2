//! `deploy/node-red/flows.json` in the real Node-RED: it switches a plug, reacts to its power, and reads results.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;
use serde_json::Value;
use support::bridge::Bridge;
use support::house::{FREE, config};
use support::mosquitto::Mosquitto;
use support::watcher::Watcher;
use support::{peers, port, soon};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

/// The example with nothing but the broker's port changed.
fn flows(broker: SocketAddr) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/node-red/flows.json");
    let mut flows: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let config = flows.iter_mut().find(|node| node["type"] == "mqtt-broker").unwrap();
    config["port"] = broker.port().to_string().into();
    serde_json::to_string(&flows).unwrap()
}

struct NodeRed {
    address: SocketAddr,
    lines: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
    _child: Child,
}

impl NodeRed {
    async fn start(broker: SocketAddr) -> NodeRed {
        let folder = tempfile::tempdir().unwrap();
        let settings = "module.exports = { uiHost: '127.0.0.1', flowFile: 'flows.json', credentialSecret: false, \
            telemetry: { enabled: false, updateNotification: false }, externalModules: { palette: { allowInstall: \
            false } }, logging: { console: { level: 'info' } } }";
        std::fs::write(folder.path().join("settings.js"), settings).unwrap();
        std::fs::write(folder.path().join("flows.json"), flows(broker)).unwrap();
        let address = port::unused();
        let mut child = Command::new("node")
            .arg(peers::cache("node-red/node_modules/node-red/red.js"))
            .arg("--userDir")
            .arg(folder.path())
            .args(["--port", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node: tests/run installs it");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut red = NodeRed { address, lines, _folder: folder, _child: child };
        red.says("Connected to broker").await;
        red
    }

    /// Waits for a line of its log.
    async fn says(&mut self, words: &str) -> String {
        soon(words, async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("Node-RED runs");
                if line.contains(words) {
                    return line;
                }
            }
        })
        .await
    }

    /// Presses the button of an inject node, as the editor does.
    async fn press(&self, node: &str) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("POST /inject/{node} HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("Node-RED's answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
    }
}

async fn plug(model: &str, alias: &str, number: u32) -> Simulator {
    let plug = SimPlug::new(Model::named(model).unwrap(), alias, mac(number as _));
    Simulator::start(plug, FREE).await.unwrap()
}

#[tokio::test]
#[ignore = "needs Node-RED and mosquitto: tests/run"]
async fn the_example_flow_switches_measures_and_is_answered() {
    let mosquitto = Mosquitto::start().await;
    let devices = [plug("HS110-G1", "TV", 0).await, plug("HS100-G1", "TV light", 1).await];
    let mut config = config(Some(mosquitto.address()), &devices);
    config.poll.interval = Duration::from_secs(1);
    let bridge = Bridge::start(config);
    let watcher = Watcher::connect(mosquitto.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.hear("kasa/tv-light", |payload| payload.contains(r#""state":"OFF""#)).await;
    watcher.hear("kasa/tv", |payload| payload.contains(r#""state":"OFF""#)).await;

    let mut red = NodeRed::start(mosquitto.address()).await;
    red.press("kasa.on").await;
    watcher
        .hear("kasa/tv/result", |payload| payload.contains(r#""ok":true"#) && payload.contains("node-red-"))
        .await;
    assert!(devices[0].look().await.relay());
    // Nobody else asks for the light: what the TV draws does.
    watcher.hear("kasa/tv-light/set", |payload| payload == "ON").await;
    watcher.hear("kasa/tv-light", |payload| payload.contains(r#""state":"ON""#)).await;
    // Switched off by its own button, which the bridge's next poll sees.
    let mark = watcher.mark();
    devices[0].press(false).await;
    watcher.hear_after(mark, "kasa/tv-light/set", |payload| payload == "OFF").await;
    watcher.hear_after(mark, "kasa/tv-light", |payload| payload.contains(r#""state":"OFF""#)).await;
    assert!(!devices[1].look().await.relay());
    // Only changes were sent; the first state may have been one.
    let sent = watcher.on("kasa/tv-light/set");
    assert!(sent.ends_with(&["ON".into(), "OFF".into()]) && sent.len() <= 3, "{sent:?}");

    watcher.publish("kasa/tv/set/brightness", "40", false).await;
    let failed = red.says("tv: unsupported: ").await;
    println!("Node-RED told of the failure: {failed}");
    bridge.stop().await.unwrap();
}
