//! As an app of Home Assistant: options from its file, the broker from a Supervisor on loopback.

mod support;

use std::fs;
use std::path::Path;

use kasa2mqtt::config::supervisor::Supervisor;
use kasa2mqtt::config::{self, Config};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use support::bridge::Bridge;
use support::house::plugs;
use support::mosquitto::Mosquitto;
use support::soon;
use support::watcher::Watcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const TOKEN: &str = "0123456789abcdef-token";

/// Answers one request as the Supervisor does, and tells what was asked.
async fn supervisor(status: &'static str, body: String) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // Who has enough of it hangs up.
        let _ = stream.write_all((head + &body).as_bytes()).await;
        String::from_utf8(request).unwrap().to_lowercase()
    });
    (address, asked)
}

fn service(host: &str, port: u16) -> String {
    json!({"result": "ok", "data": {"addon": "core_mosquitto", "host": host, "port": port, "ssl": false,
        "protocol": "3.1.1", "username": "addons", "password": "hunter2"}})
    .to_string()
}

struct Options(tempfile::TempDir);

impl Options {
    fn new(options: &Value) -> Options {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("options.json"), options.to_string()).unwrap();
        Options(folder)
    }

    async fn load(&self, address: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let options = self.0.path().join("options.json");
        let supervisor = Supervisor::new(options, address.into(), TOKEN.into());
        let learnt = soon("the Supervisor", supervisor.ask()).await?;
        let variables = variables.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        config::load_from(None, Some(learnt), variables).map_err(|error| error.to_string())
    }
}

/// What the form of `deploy/homeassistant` gives when nothing, and when everything is filled in.
#[tokio::test]
async fn options_and_the_supervisors_broker_are_the_configuration() {
    let empty = json!({"kasa": {"username": "", "password": null}, "scan": {"enabled": true, "targets": []}, "plug": [],
        "mqtt": {}});
    let (address, asked) = supervisor("200 OK", service("core-mosquitto", 1883)).await;
    let config = Options::new(&empty).load(&address, &[]).await.unwrap();
    assert_eq!(config.mqtt.url.unwrap().to_string(), "mqtt://core-mosquitto:1883");
    assert_eq!(config.mqtt.username.as_deref(), Some("addons"));
    assert_eq!(config.mqtt.password.unwrap().expose_secret(), "hunter2");
    assert!(config.kasa.username.is_none() && config.scan.enabled);
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("get /services/mqtt http/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("authorization: bearer {TOKEN}\r\n")), "{asked}");

    let full = json!({"kasa": {"username": "me@example.org", "password": "0123"},
        "scan": {"enabled": true, "adopt": "listed", "targets": ["192.168.20.0/24"]},
        "plug": [{"mac": "50:C7:BF:01:02:03", "name": "freezer", "host": "", "interval": "2s"}],
        "poll": {"interval": "3s"}, "mqtt": {"url": "", "base_topic": "plugs"}});
    let (address, _asked) = supervisor("200 OK", service("core-mosquitto", 1884)).await;
    let config = Options::new(&full).load(&address, &[("KASA2MQTT_POLL__INTERVAL", "4s")]).await.unwrap();
    assert_eq!(config.mqtt.url.unwrap().port, 1884);
    assert_eq!(config.mqtt.base_topic, "plugs");
    assert_eq!(config.plug[0].name.as_deref(), Some("freezer"));
    assert!(config.plug[0].host.is_none());
    assert_eq!(config.kasa.password.unwrap().expose_secret(), "0123");
    assert_eq!(config.poll.interval.as_secs(), 4, "the environment wins");
}

#[tokio::test]
async fn a_broker_of_ones_own_is_used_without_asking() {
    let options = json!({"mqtt": {"url": "mqtts://broker.lan", "username": "me", "password": "secret"}});
    // Nobody listens there.
    let config = Options::new(&options).load("127.0.0.1:1", &[]).await.unwrap();
    assert_eq!(config.mqtt.url.unwrap().to_string(), "mqtts://broker.lan:8883");
    assert_eq!(config.mqtt.username.as_deref(), Some("me"));
}

#[tokio::test]
async fn what_is_wrong_is_said_without_secrets() {
    let none = json!({});
    for (status, body, word) in [
        ("400 Bad Request", r#"{"result":"error","message":"Service not enabled"}"#.to_string(), "400"),
        ("200 OK", r#"{"result":"ok","data":null}"#.into(), "knows none"),
        ("200 OK", "<html>".into(), "expected value"),
        ("200 OK", format!(r#"{{"data":"{}"}}"#, "x".repeat(200_000)), "length limit"),
    ] {
        let (address, _asked) = supervisor(status, body).await;
        let error = Options::new(&none).load(&address, &[]).await.unwrap_err();
        assert!(error.contains(word) && error.contains("Mosquitto broker app"), "{error}");
        assert!(!error.contains(TOKEN), "{error}");
    }
    let error = Options::new(&none).load("127.0.0.1:1", &[]).await.unwrap_err();
    assert!(error.contains("Mosquitto broker app"), "{error}");
    for (options, word) in [
        (json!([1]), "options.json"),
        (json!({"mqtt": {"url": "mqtt://b"}, "nonsense": 1}), "unknown key nonsense"),
        (json!({"mqtt": {"url": "mqtt://b"}, "poll": {"interval": "0s"}}), "poll.interval"),
        (json!({"mqtt": {"url": "mqtt://b"}, "plug": [{"host": "a b"}]}), "plug[0].host"),
    ] {
        let error = Options::new(&options).load("127.0.0.1:1", &[]).await.unwrap_err();
        assert!(error.contains(word), "{word}: {error}");
    }
    let supervisor =
        Supervisor::new(Path::new("/nowhere/options.json").into(), "127.0.0.1:1".into(), TOKEN.into());
    assert!(supervisor.ask().await.unwrap_err().contains("/nowhere/options.json"));
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn a_bridge_runs_on_what_was_learnt() {
    let mosquitto = Mosquitto::start().await;
    let devices = plugs(&["HS110-G1"]).await;
    let options = json!({"scan": {"enabled": false},
        "plug": [{"host": devices[0].address().to_string(), "name": "freezer"}]});
    let broker = mosquitto.address();
    let (address, _asked) = supervisor("200 OK", service(&broker.ip().to_string(), broker.port())).await;
    let bridge = Bridge::start(Options::new(&options).load(&address, &[]).await.unwrap());
    let watcher = Watcher::connect(broker).await;
    watcher.subscribe("kasa/#").await;
    watcher.hear("kasa/freezer", |payload| payload.contains(r#""state":"OFF""#)).await;
    bridge.stop().await.unwrap();
}
