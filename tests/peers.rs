//! Against parts that nobody here wrote: python-kasa drives our simulated plugs, our program drives the npm package's
//! plugs, and paho-mqtt talks to our broker. `tests/run` installs them, pinned.

mod support;

use kasa2mqtt::sim::server::Simulator;
use serde_json::Value;
use support::house::plugs;
use support::peers::{NpmPlugs, kasa, kasa_as};
use support::soon;

const MODELS: &[&str] =
    &["HS100-G1", "HS100-G2", "HS100-G3", "HS110-G1", "HS110-G2", "HS110-G3", "EP10", "KP115"];

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into()
}

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

#[tokio::test]
#[ignore = "needs python-kasa: tests/run"]
async fn python_kasa_switches_our_plugs() {
    for plug in plugs(MODELS).await {
        let model = plug.look().await.model();
        let state = text(&kasa(plug.address(), &["state"]).await);
        assert!(state.contains("Plug "), "{model}: {state}");
        kasa(plug.address(), &["on"]).await;
        assert!(plug.look().await.relay(), "{model}");
        kasa(plug.address(), &["off"]).await;
        assert!(!plug.look().await.relay(), "{model}");
    }
}

#[tokio::test]
#[ignore = "needs python-kasa: tests/run"]
async fn python_kasa_reads_and_names_our_plugs() {
    for plug in plugs(&["HS110-G1", "HS110-G2", "HS110-G3", "KP115"]).await {
        let model = plug.look().await.model();
        plug.press(true).await;
        let load = watts(&plug).await;
        assert!(load > 1.0, "{model}: {load} W");
        kasa(plug.address(), &["alias", "Büro ☃"]).await;
        assert_eq!(plug.look().await.alias(), "Büro ☃", "{model}");
        kasa(plug.address(), &["led", "false"]).await;
        assert!(!plug.look().await.led(), "{model}");
    }
}

#[tokio::test]
#[ignore = "needs python-kasa: tests/run"]
async fn python_kasa_drives_each_outlet_of_our_strip() {
    let strip = plugs(&["HS300"]).await.remove(0);
    let relays =
        async || strip.look().await.outlets().iter().map(|outlet| outlet.relay()).collect::<Vec<_>>();
    for index in 0..6 {
        let number = index.to_string();
        kasa_as("strip", strip.address(), &["on", "--child-index", &number]).await;
        let expected: Vec<bool> = (0..6).map(|place| place == index).collect();
        assert_eq!(relays().await, expected);
        let energy = kasa_as("strip", strip.address(), &["--json", "energy", "--child-index", &number]).await;
        let energy = json(&energy);
        assert_eq!(energy["slot_id"], index, "{energy}");
        assert!(energy["power_mw"].as_i64() > Some(1000), "{energy}");
        kasa_as("strip", strip.address(), &["off", "--child-index", &number]).await;
        assert_eq!(relays().await, [false; 6]);
    }
    kasa_as("strip", strip.address(), &["on"]).await;
    assert!(relays().await.iter().any(|on| *on), "the whole strip, however it is told");
    let state = text(&kasa_as("strip", strip.address(), &["state"]).await);
    assert_eq!(state.matches("Socket for HS300(US)").count(), 6, "{state}");
}

#[tokio::test]
#[ignore = "needs python-kasa: tests/run"]
async fn python_kasa_drives_our_dimmer() {
    let dimmer = plugs(&["HS220"]).await.remove(0);
    for (arguments, relay, level) in [
        (&["on"][..], true, 100),
        (&["brightness", "40"], true, 40),
        (&["brightness", "70", "--transition", "500"], true, 70),
        (&["off", "--transition", "500"], false, 70),
    ] {
        kasa_as("dimmer", dimmer.address(), arguments).await;
        let now = dimmer.look().await;
        assert_eq!((now.relay(), now.brightness()), (relay, Some(level)), "{arguments:?}");
    }
}

async fn watts(plug: &Simulator) -> f64 {
    let energy = json(&kasa(plug.address(), &["--json", "energy"]).await);
    let key = |key: &str| energy[key].as_f64();
    key("power").or(key("power_mw").map(|milli| milli / 1000.0)).unwrap_or_else(|| panic!("{energy}"))
}

#[tokio::test]
#[ignore = "needs the npm simulator: tests/run"]
async fn our_plug_command_drives_npm_plugs() {
    let models = ["hs100", "hs105", "hs110", "hs110v2"];
    let npm = NpmPlugs::start(&models);
    for (model, address) in models.iter().zip(&npm.addresses) {
        let run = async |arguments: &[&str]| {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kasa2mqtt"));
            let command = command.arg("plug").arg(address.to_string()).args(arguments);
            let output = soon("the program", command.output()).await.unwrap();
            assert!(
                output.status.success(),
                "{model} {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            text(&output).trim().to_string()
        };
        assert_eq!(run(&["on"]).await, "ON", "{model}");
        assert_eq!(run(&["state"]).await, "ON", "{model}");
        assert_eq!(run(&["toggle"]).await, "OFF", "{model}");
        assert_eq!(run(&["state"]).await, "OFF", "{model}");
        run(&["led", "off"]).await;
        run(&["alias", "New name"]).await;
        let info = run(&["info"]).await;
        assert!(info.contains("New name") && info.contains("led       OFF"), "{model}: {info}");
        if model.starts_with("hs110") {
            let energy: Value = serde_json::from_str(&run(&["energy", "--json"]).await).unwrap();
            assert!(energy["voltage"].as_f64() > Some(100.0), "{model}: {energy}");
        }
    }
}

#[cfg(feature = "embedded-broker")]
mod with_our_broker {
    use super::*;
    use support::bridge::Bridge;
    use support::broker::AnyBroker;
    use support::house::{config, plug};
    use support::peers::python;
    use support::watcher::Watcher;

    #[tokio::test]
    #[ignore = "needs the npm simulator: tests/run"]
    async fn our_bridge_drives_npm_plugs() {
        let models = ["hs100", "hs105", "hs110", "hs110v2"];
        let npm = NpmPlugs::start(&models);
        let broker = AnyBroker::embedded().await;
        let watcher = Watcher::connect(broker.address()).await;
        watcher.subscribe("kasa/#").await;
        let mut config = config(Some(broker.address()), &[]);
        config.plug = npm.addresses.iter().map(|address| plug(*address)).collect();
        let _bridge = Bridge::start(config);
        for model in models {
            let topic = format!("kasa/npm-{model}");
            watcher.hear(&topic, |payload| payload.contains(r#""state":"#)).await;
            for state in ["OFF", "ON", "OFF"] {
                let from = watcher.mark();
                watcher.publish(&format!("{topic}/set"), state, false).await;
                watcher
                    .hear_after(from, &format!("{topic}/result"), |payload| payload.contains(r#""ok":true"#))
                    .await;
                watcher
                    .hear_after(from, &topic, |payload| payload.contains(&format!(r#""state":"{state}""#)))
                    .await;
            }
            let metered = watcher.on(&topic).iter().any(|payload| payload.contains(r#""voltage":"#));
            assert_eq!(metered, model.starts_with("hs110"), "{model}");
        }
    }

    #[tokio::test]
    #[ignore = "needs the npm simulator: tests/run"]
    async fn our_bridge_drives_an_npm_dimmer_and_an_npm_strip() {
        let npm = NpmPlugs::start(&["hs220", "hs300"]);
        let broker = AnyBroker::embedded().await;
        let watcher = Watcher::connect(broker.address()).await;
        for filter in ["kasa/#", "homeassistant/#"] {
            watcher.subscribe(filter).await;
        }
        let mut config = config(Some(broker.address()), &[]);
        config.plug = npm.addresses.iter().map(|address| plug(*address)).collect();
        let _bridge = Bridge::start(config);
        watcher.hear("homeassistant/device/kasa_50c7bfaa0001_6/config", |_| true).await;
        let done = async |topic: &str, attribute: &str, payload: &str, state: &str| {
            let from = watcher.mark();
            watcher.publish(&format!("{topic}/{attribute}"), payload, false).await;
            watcher
                .hear_after(from, &format!("{topic}/result"), |payload| payload.contains(r#""ok":true"#))
                .await;
            watcher.hear_after(from, topic, |payload| payload.contains(state)).await;
        };
        let dimmer = "kasa/npm-hs220";
        done(dimmer, "set", r#"{"state":"ON","brightness":40}"#, r#"{"state":"ON","brightness":40,"#).await;
        done(dimmer, "set", "OFF", r#"{"state":"OFF","brightness":40,"#).await;
        done(dimmer, "set", "ON", r#"{"state":"ON","brightness":40,"#).await;
        let strip = "kasa/npm-hs300";
        done(strip, "set", "OFF", r#"{"state":"OFF""#).await;
        done("kasa/npm-hs300/2", "set", "ON", r#"{"state":"ON""#).await;
        watcher.hear(strip, |payload| payload.contains(r#"{"state":"ON""#)).await;
        for outlet in [1, 3, 4, 5, 6] {
            let topic = format!("{strip}/{outlet}");
            assert!(watcher.on(&topic).last().unwrap().contains(r#""state":"OFF""#), "outlet {outlet}");
        }
        done("kasa/npm-hs300/2", "set/alias", "Screen", r#""state":"ON""#).await;
        let config = "homeassistant/device/kasa_50c7bfaa0001_2/config";
        watcher.hear(config, |payload| payload.contains("Npm hs300 Screen")).await;
        watcher.hear("kasa/npm-hs300/2", |payload| !payload.contains(r#""voltage":null"#)).await;
        done(strip, "set", "ON", r#"{"state":"ON""#).await;
        watcher.hear("kasa/npm-hs300/6", |payload| payload.contains(r#""state":"ON""#)).await;
    }

    #[tokio::test]
    #[ignore = "needs paho-mqtt: tests/run"]
    async fn paho_talks_to_our_broker() {
        let broker = AnyBroker::embedded().await;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/paho_client.py");
        let output = soon("paho", python().arg(script).arg(broker.address().port().to_string()).output())
            .await
            .unwrap();
        assert!(output.status.success(), "{}{}", text(&output), String::from_utf8_lossy(&output.stderr));
        assert_eq!(text(&output).trim(), "all of it");
    }
}
