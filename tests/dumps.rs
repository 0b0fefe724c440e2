//! Every device of the plug family that somebody dumped for python-kasa, and every bulb in the same folder: each is
//! served by our simulator and driven through a bridge of its own. `tests/run` fetches the dumps, by their hash.
#![cfg(feature = "embedded-broker")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;
use serde_json::Value;
use support::bridge::Bridge;
use support::broker::AnyBroker;
use support::house::{FREE, config};
use support::log::Logged;
use support::peers::cache;
use support::watcher::Watcher;
use tokio::task::JoinSet;

/// In python-kasa 0.12.0.
const PLUGS: usize = 57;
const BULBS: usize = 28;

/// One dump, as text and as JSON.
struct Dump {
    name: String,
    text: Vec<u8>,
    said: Value,
}

impl Dump {
    fn all() -> Vec<Dump> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(cache("dumps")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let files = files.into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "json"));
        let dump = |file: PathBuf| {
            let text = fs::read(&file).unwrap();
            let said = serde_json::from_slice(&text).unwrap();
            Dump { name: file.file_stem().unwrap().to_str().unwrap().into(), text, said }
        };
        files.map(dump).collect()
    }

    fn sysinfo(&self) -> &Value {
        &self.said["system"]["get_sysinfo"]
    }

    fn is_bulb(&self) -> bool {
        self.sysinfo()["mic_type"] == "IOT.SMARTBULB"
    }

    fn children(&self) -> &[Value] {
        self.sysinfo()["children"].as_array().map_or(&[], Vec::as_slice)
    }

    /// One of the quantities of its meter in W, V, A or kWh.
    fn meter(&self, whole: &str, milli: &str) -> Option<f64> {
        let realtime = &self.said["emeter"]["get_realtime"];
        realtime[whole].as_f64().or_else(|| realtime[milli].as_f64().map(|milli| milli / 1000.0))
    }
}

/// A simulated device, and its own bridge with topics of its own.
struct House {
    watcher: Watcher,
    simulator: Simulator,
    base: String,
    _bridge: Bridge,
}

impl House {
    async fn of(dump: &Dump, number: usize, broker: &AnyBroker) -> House {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let plug =
            SimPlug::from_dump(&dump.text, now).unwrap_or_else(|error| panic!("{}: {error}", dump.name));
        let simulator = Simulator::start(plug, FREE).await.unwrap();
        let mut config = config(Some(broker.address()), std::slice::from_ref(&simulator));
        let base = format!("kasa{number}");
        config.mqtt.base_topic.clone_from(&base);
        config.homeassistant.prefix = format!("ha{number}");
        config.poll.interval = Duration::from_secs(1);
        config.plug[0].name = Some("it".into());
        let watcher = Watcher::connect(broker.address()).await;
        watcher.subscribe(&format!("{base}/#")).await;
        watcher.subscribe(&format!("ha{number}/#")).await;
        House { watcher, simulator, base, _bridge: Bridge::start(config) }
    }

    async fn state(&self, outlet: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let json = |payload: &str| serde_json::from_str::<Value>(payload).unwrap();
        let topic = format!("{}/it{outlet}", self.base);
        json(&self.watcher.hear(&topic, |payload| fits(&json(payload))).await.payload)
    }
}

fn on_off(on: &Value) -> &'static str {
    if *on == 1 { "ON" } else { "OFF" }
}

/// The meter of `state` shows `times` what the dump says, to the last digit that is published.
fn shows(dump: &Dump, state: &Value, times: f64) -> bool {
    let quantities = [
        ("power", dump.meter("power", "power_mw").map(|power| power * times), 0.05),
        ("voltage", dump.meter("voltage", "voltage_mv"), 0.05),
        ("current", dump.meter("current", "current_ma").map(|current| current * times), 0.0005),
        ("energy_total", dump.meter("total", "total_wh").map(|total| total * times), 0.0005),
    ];
    quantities.iter().all(|(key, expected, tolerance)| {
        let shown = state[key].as_f64();
        // A sum of rounded milli-units is off by half of one for each part.
        let tolerance = tolerance + 0.0005 * times + 1e-9;
        shown.zip(*expected).is_some_and(|(shown, expected)| (shown - expected).abs() <= tolerance)
    })
}

/// What the bridge makes of a device of the plug family.
async fn check_plug(dump: Dump, number: usize, broker: Arc<AnyBroker>) {
    let house = House::of(&dump, number, &broker).await;
    let sysinfo = dump.sysinfo();
    let metered = sysinfo["feature"].as_str().unwrap().contains("ENE");
    let children = dump.children();
    let whole = children.len().max(1) as f64;
    let state = house.state("", |state| !metered || shows(&dump, state, whole)).await;
    let is_on = match children.is_empty() {
        true => on_off(&sysinfo["relay_state"]) == "ON",
        false => children.iter().any(|child| child["state"] == 1),
    };
    assert_eq!(state["state"], if is_on { "ON" } else { "OFF" }, "{}", dump.name);
    assert_eq!(state["led"], if sysinfo["led_off"] == 0 { "ON" } else { "OFF" }, "{}", dump.name);
    assert_eq!(state["rssi"], sysinfo["rssi"], "{}", dump.name);
    assert_eq!(state.get("power").is_some(), metered, "{}", dump.name);
    assert_eq!(state.get("brightness"), sysinfo.get("brightness"), "{}", dump.name);
    if let Some(enabled) = dump.said["smartlife.iot.PIR"]["get_config"].get("enable") {
        house.state("", |state| state["pir"] == on_off(enabled)).await;
    }
    if let Some(connected) = dump.said["cnCloud"]["get_info"].get("cld_connection") {
        house.state("", |state| state["cloud"] == on_off(connected)).await;
    }
    for (place, child) in children.iter().enumerate() {
        let outlet = format!("/{}", place + 1);
        let state = house.state(&outlet, |state| !metered || shows(&dump, state, 1.0)).await;
        assert_eq!(state["state"], on_off(&child["state"]), "{} {outlet}", dump.name);
        // One of them says -32407 seconds.
        let since = child["state"] == 1 && child["on_time"].as_i64() >= Some(0);
        assert_eq!(state["on_since"].is_string(), since, "{} {outlet}: {state}", dump.name);
    }
    let devices = format!("{}/bridge/devices", house.base);
    let listed = house.watcher.hear(&devices, |payload| payload.contains(r#""model":"#)).await;
    let listed: Value = serde_json::from_str(&listed.payload).unwrap();
    assert_eq!(listed[0]["model"], sysinfo["model"], "{}", dump.name);
    assert_eq!(listed[0]["children"].as_array().map_or(0, Vec::len), children.len(), "{}", dump.name);
    // The watcher checks each of them by Home Assistant's rules; here they are counted.
    let prefix = format!("ha{number}");
    let id = sysinfo["mac"].as_str().unwrap().replace(':', "").to_lowercase();
    for outlet in (1..=children.len()).map(|number| format!("_{number}")).chain([String::new()]) {
        house.watcher.hear(&format!("{prefix}/device/kasa_{id}{outlet}/config"), |_| true).await;
    }
    // Every outlet obeys, alone.
    let outlets: Vec<String> = match children.len() {
        0 => vec![String::new()],
        count => (1..=count).map(|number| format!("/{number}")).collect(),
    };
    for (place, outlet) in outlets.iter().enumerate() {
        let before: Vec<bool> =
            house.simulator.look().await.outlets().iter().map(|one| one.relay()).collect();
        let from = house.watcher.mark();
        house.watcher.publish(&format!("{}/it{outlet}/set", house.base), "TOGGLE", false).await;
        let result = format!("{}/it{outlet}/result", house.base);
        let result = house.watcher.hear_after(from, &result, |_| true).await;
        assert!(result.payload.contains(r#""ok":true"#), "{} {outlet}: {result:?}", dump.name);
        let after = house.simulator.look().await;
        for (other, before) in before.iter().enumerate() {
            assert_eq!(after.outlets()[other].relay() != *before, other == place, "{} {outlet}", dump.name);
        }
    }
}

/// A bulb is listed as what we do not serve, and asked nothing but who it is.
async fn check_bulb(dump: Dump, number: usize, broker: Arc<AnyBroker>) {
    let house = House::of(&dump, number, &broker).await;
    let devices = format!("{}/bridge/devices", house.base);
    let is_listed = |payload: &str| payload.contains(r#""supported":false"#);
    let listed = house.watcher.hear(&devices, is_listed).await;
    let listed: Value = serde_json::from_str(&listed.payload).unwrap();
    assert!(listed[0]["trouble"].as_str().unwrap().contains("SMARTBULB"), "{}: {listed}", dump.name);
    let log = house.simulator.log().await;
    assert_eq!(log, [r#"{"system":{"get_sysinfo":{}}}"#], "{}", dump.name);
    assert!(house.watcher.on(&format!("{}/it", house.base)).is_empty(), "{}", dump.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the dumps: tests/run"]
async fn every_dumped_device_is_served_or_left_alone() {
    let logged = Logged::start(tracing::Level::INFO);
    let broker = Arc::new(AnyBroker::embedded().await);
    let (bulbs, plugs): (Vec<Dump>, Vec<Dump>) = Dump::all().into_iter().partition(Dump::is_bulb);
    assert_eq!((plugs.len(), bulbs.len()), (PLUGS, BULBS));
    let mut checks = JoinSet::new();
    for (number, dump) in plugs.into_iter().enumerate() {
        checks.spawn(check_plug(dump, number, Arc::clone(&broker)));
    }
    while let Some(checked) = checks.join_next().await {
        checked.unwrap();
    }
    // The broker warns of watchers that leave while they are told something.
    let is_ours = |line: &str| !line.contains("mqtt5::broker");
    let warnings =
        logged.lines(|line| is_ours(line) && (line.contains(" WARN ") || line.contains(" ERROR ")));
    assert!(warnings.is_empty(), "{warnings:#?}");
    for (number, dump) in bulbs.into_iter().enumerate() {
        checks.spawn(check_bulb(dump, PLUGS + number, Arc::clone(&broker)));
    }
    while let Some(checked) = checks.join_next().await {
        checked.unwrap();
    }
    let named = logged.lines(|line| line.contains("SMARTBULB"));
    assert_eq!(named.len(), BULBS, "each once: {named:#?}");
}
