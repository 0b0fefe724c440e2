//! `deploy/mosquitto/acl`: with it the bridge can do all its work and nothing else, and others only what they are for.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use kasa2mqtt::bridge::topics::Topics;
use kasa2mqtt::config::Config;
use rumqttc::MqttOptions;
use support::bridge::{Bridge, Program};
use support::house::{config, plugs};
use support::mosquitto::Mosquitto;
use support::soon;
use support::watcher::Watcher;

const ACL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/mosquitto/acl");
const USERS: [&str; 4] = ["kasa2mqtt", "homeassistant", "viewer", "stranger"];

/// What the bridge's paragraph lets it read.
fn readable() -> Vec<String> {
    let acl = fs::read_to_string(ACL).unwrap();
    let lines = acl.lines().skip_while(|line| *line != "user kasa2mqtt").skip(1);
    let topics = lines.take_while(|line| !line.starts_with("user ")).filter_map(|line| {
        line.strip_prefix("topic read ").or(line.strip_prefix("topic readwrite ")).map(String::from)
    });
    topics.collect()
}

/// A topic that the bridge listens to and may not read would be silent for ever: mosquitto refuses no subscription.
#[test]
fn the_bridge_may_read_what_it_listens_to_and_nothing_else() {
    let topics = Topics::new("kasa", "homeassistant");
    let wanted = [topics.filters(), topics.memory_filters()].concat();
    let readable = readable();
    for filter in &wanted {
        assert!(readable.contains(filter), "{filter} is missing");
    }
    // Its own state it may hear as well.
    let own = topics.bridge_state();
    for topic in readable.iter().filter(|topic| **topic != own) {
        assert!(wanted.contains(topic), "nobody reads {topic}");
    }
}

struct House {
    mosquitto: Mosquitto,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new() -> House {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("users");
        for (number, user) in USERS.iter().enumerate() {
            let mut run = Command::new("mosquitto_passwd");
            run.arg("-b").args((number == 0).then_some("-c")).arg(&users).args([user, "secret"]);
            assert!(run.status().expect("mosquitto_passwd: tests/run installs it").success());
        }
        let acl = folder.path().join("acl");
        fs::copy(ACL, &acl).unwrap();
        // mosquitto gives up its rights before it reads the files.
        for (path, mode) in [(folder.path(), 0o755), (&users, 0o644), (&acl, 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let options = format!(
            "allow_anonymous false\nlog_type all\npassword_file {}\nacl_file {}\n",
            users.display(),
            acl.display()
        );
        House { mosquitto: Mosquitto::start_with(&options).await, _folder: folder }
    }

    fn address(&self) -> SocketAddr {
        self.mosquitto.address()
    }

    fn options(&self, user: &str, password: &str) -> MqttOptions {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("{user}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(id, self.address().ip().to_string(), self.address().port());
        options.set_credentials(user, password);
        options
    }

    async fn watch(&self, user: &str, filters: &[&str]) -> Watcher {
        let watcher = Watcher::connect_with(self.options(user, "secret")).await;
        for filter in filters {
            watcher.subscribe(filter).await;
        }
        watcher
    }

    fn with_account(&self, mut config: Config) -> Config {
        config.mqtt.username = Some("kasa2mqtt".into());
        config.mqtt.password = Some("secret".into());
        config
    }

    fn denied(&self) -> Vec<String> {
        self.mosquitto
            .log()
            .lines()
            .filter(|line| line.contains("Denied PUBLISH"))
            .map(String::from)
            .collect()
    }
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn the_bridge_does_all_its_work_under_it() {
    let house = House::new().await;
    let devices = plugs(&["HS110-G1", "HS300", "HS220"]).await;
    let bridge = Bridge::start(house.with_account(config(Some(house.address()), &devices)));
    let home = house.watch("homeassistant", &["kasa/#", "homeassistant/#"]).await;
    // Discovery, states, availability.
    let config_of = |number: usize| {
        let mac = devices[number].mac().replace(':', "").to_lowercase();
        format!("homeassistant/device/kasa_{mac}/config")
    };
    for number in 0..devices.len() {
        home.hear(&format!("kasa/plug-{number}/availability"), |payload| payload == "online").await;
        home.hear(&format!("kasa/plug-{number}"), |payload| payload.starts_with('{')).await;
        home.hear(&config_of(number), |payload| payload.len() > 100).await;
    }
    home.hear("kasa/bridge/state", |payload| payload == "online").await;
    // A health check looks with the bridge's own account, and writes nothing.
    let mut check = tokio::process::Command::from(Program::command());
    check.arg("healthcheck").env("KASA2MQTT_MQTT__URL", format!("mqtt://{}", house.address()));
    check.env("KASA2MQTT_MQTT__USERNAME", "kasa2mqtt").env("KASA2MQTT_MQTT__PASSWORD", "secret");
    let checked = soon("the check", check.output()).await.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    home.hear("kasa/bridge/health", |payload| payload.starts_with('{')).await;
    home.hear("kasa/plug-1/3", |payload| payload.contains(r#""state":"OFF""#)).await;
    // Commands and their results, of a plug, of an attribute, of an outlet.
    home.publish("kasa/plug-0/set", "ON", false).await;
    home.hear("kasa/plug-0/result", |payload| payload.contains(r#""ok":true"#)).await;
    home.hear("kasa/plug-0", |payload| payload.contains(r#""state":"ON""#)).await;
    home.publish("kasa/plug-2/set/brightness", "40", false).await;
    home.hear("kasa/plug-2/result", |payload| payload.contains(r#""ok":true"#)).await;
    home.publish("kasa/plug-1/3/set", "ON", false).await;
    home.hear("kasa/plug-1/3/result", |payload| payload.contains(r#""ok":true"#)).await;
    assert!(devices[1].look().await.outlets()[2].relay());
    // Requests; and Home Assistant's birth, after which everything is said again.
    home.publish("kasa/bridge/request/health_check", "", false).await;
    home.hear("kasa/bridge/response/health_check", |payload| payload.contains("ok")).await;
    let mark = home.mark();
    home.publish("homeassistant/status", "online", false).await;
    home.hear_after(mark, "kasa/plug-0", |_| true).await;
    // A name that only the broker remembers, through the next bridge; and what that bridge no longer wants, cleared.
    home.publish("kasa/bridge/request/device/rename", r#"{"from":"plug-0","to":"kettle"}"#, false).await;
    home.hear("kasa/kettle", |payload| payload.starts_with('{')).await;
    // Announced anew, two seconds after the first time: that is what the next bridge reads.
    home.hear(&config_of(0), |payload| payload.contains("kasa/kettle")).await;
    bridge.stop().await.unwrap();
    home.hear("kasa/bridge/state", |payload| payload == "offline").await;
    let mark = home.mark();
    let bridge = Bridge::start(house.with_account(config(Some(house.address()), &devices[..2])));
    home.hear_after(mark, "kasa/kettle", |payload| payload.starts_with('{')).await;
    home.hear_after(mark, "kasa/plug-2", str::is_empty).await;
    home.hear_after(mark, &config_of(2), str::is_empty).await;
    bridge.stop().await.unwrap();
    assert_eq!(house.denied(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn others_can_do_nothing_or_only_look() {
    let house = House::new().await;
    let devices = plugs(&["HS110-G1"]).await;
    let bridge = Bridge::start(house.with_account(config(Some(house.address()), &devices)));
    let home = house.watch("homeassistant", &["kasa/#", "homeassistant/#"]).await;
    home.hear("kasa/plug-0", |payload| payload.contains(r#""state":"OFF""#)).await;
    let stranger = house.watch("stranger", &["#", "kasa/#", "homeassistant/#"]).await;
    let viewer = house.watch("viewer", &["#", "kasa/+/set"]).await;
    // Somebody who has the bridge's password, but is not it.
    let thief = house.watch("kasa2mqtt", &["#"]).await;
    viewer.hear("kasa/plug-0", |payload| payload.contains(r#""state":"OFF""#)).await;
    for (culprit, topic, payload) in [
        (&stranger, "kasa/plug-0/set", "ON"),
        (&viewer, "kasa/plug-0/set", "ON"),
        (&thief, "kasa/plug-0/set", "ON"),
        (&stranger, "kasa/bridge/request/restart", ""),
        (&stranger, "homeassistant/device/kasa_50c7bf000000/config", ""),
        (&stranger, "kasa/bridge/state", "offline"),
        (&thief, "homeassistant/switch/lamp/config", "{}"),
        (&thief, "homeassistant/status", "online"),
        (&thief, "other/topic", "x"),
    ] {
        let before = house.denied().len();
        culprit.publish(topic, payload, false).await;
        assert_eq!(house.denied().len(), before + 1, "{topic}");
    }
    // One that is let through comes after all of them.
    let mark = home.mark();
    home.publish("kasa/plug-0/set/led", "OFF", false).await;
    home.hear_after(mark, "kasa/plug-0/result", |_| true).await;
    assert!(!devices[0].look().await.relay(), "somebody switched it");
    assert_eq!(home.on("kasa/plug-0/result").len(), 1);
    assert_eq!(stranger.mark(), 0, "{:?}", stranger.log.borrow().heard);
    // Wrong passwords, and none.
    for options in [
        house.options("kasa2mqtt", "wrong"),
        house.options("nobody", "secret"),
        MqttOptions::new("anonymous", house.address().ip().to_string(), house.address().port()),
    ] {
        let refused = Watcher::connect_with(options).await;
        refused.wait("a refusal", |log| log.refused.is_some()).await;
    }
    bridge.stop().await.unwrap();
}
