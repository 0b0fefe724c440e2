//! Lines that are cut, names that are gone, disks that take nothing: the real program in network and mount namespaces.
//! Needs root and iproute2, which `tests/run` sees to.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::netns::{Host, Namespace, Net, Subnet};
use support::output::Talking;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kasa2mqtt");
const BROKER: &str = "/usr/sbin/mosquitto";

/// A simulated plug at this machine's own loopback; it tells every request.
fn plug(namespace: &Namespace) -> Talking {
    let mut plug = namespace.command(PROGRAM);
    plug.args(["simulate", "--port", "9999", "--model", "HS110-G3", "--alias", "Lamp"]);
    let mut plug = Talking::start("the plug", plug.arg("--requests"));
    plug.says("its address", |line| line.contains(":9999"));
    plug
}

/// The bridge, for that plug alone.
fn bridge(namespace: &Namespace, broker: &str, more: &[&str]) -> Talking {
    let mut bridge = namespace.command("env");
    bridge.args([
        &format!("KASA2MQTT_MQTT__URL=mqtt://{broker}"),
        "KASA2MQTT_MQTT__KEEP_ALIVE=5s",
        "KASA2MQTT_POLL__INTERVAL=1s",
        "KASA2MQTT_SCAN__ENABLED=false",
        "KASA2MQTT_PLUG=[{host=\"127.0.0.1\", name=\"lamp\"}]",
    ]);
    Talking::start("the bridge", bridge.args(more).args([PROGRAM, "run"]))
}

fn mosquitto(namespace: &Namespace, folder: &Path) -> Talking {
    let config = folder.join("mosquitto.conf");
    fs::write(&config, "listener 1883 0.0.0.0\nallow_anonymous true\n").unwrap();
    let mut broker = Talking::start("mosquitto", namespace.command(BROKER).arg("-c").arg(config));
    broker.says("that it runs", |line| line.contains("running"));
    broker
}

fn listener(namespace: &Namespace) -> Talking {
    Talking::start("mosquitto_sub", namespace.command("mosquitto_sub").args(["-v", "-t", "kasa/#"]))
}

fn requests(plug: &mut Talking, part: &str) -> usize {
    plug.said().iter().filter(|line| line.contains(part)).count()
}

/// The broker's machine vanishes and comes back; neither end was told.
#[test]
#[ignore = "needs network namespaces and mosquitto: tests/run"]
fn a_connection_that_is_dead_without_a_word_is_left_and_made_again() {
    let net = Net::new();
    let home: Host = net.host(Subnet::Near, 10);
    let server: Host = net.host(Subnet::Far, 20);
    let folder = tempfile::tempdir().unwrap();
    let _broker = mosquitto(&server.namespace, folder.path());
    let mut heard = listener(&server.namespace);
    let mut plug = plug(&home.namespace);
    let mut bridge = bridge(&home.namespace, &server.address.to_string(), &[]);
    heard.says("the lamp", |line| line.starts_with("kasa/lamp/availability online"));

    net.cut(&home);
    net.cut(&server);
    let cut = Instant::now();
    // Somebody who is not cut off switches; nobody will ever tell the plug.
    for _ in 0..5 {
        server.namespace.run("mosquitto_pub", &["-q", "1", "-t", "kasa/lamp/set", "-m", "ON"]);
    }
    bridge.says("that the broker is gone", |line| line.contains("no connection to the broker"));
    let noticed = cut.elapsed();
    let before = requests(&mut plug, "get_sysinfo");
    heard.says("the will", |line| line == "kasa/bridge/state offline");
    plug.says("a poll", |line| line.contains("get_sysinfo"));
    assert!(requests(&mut plug, "get_sysinfo") > before, "polling goes on");

    net.mend(&home);
    net.mend(&server);
    let mended = Instant::now();
    heard.says("that it is back", |line| line == "kasa/bridge/state online");
    heard.says("the lamp", |line| line.starts_with("kasa/lamp "));
    let back = mended.elapsed();
    println!("noticed after {noticed:?}, back {back:?} after the line was");
    // A try that was under way then goes on when its SYN has its next turn.
    assert!(back < Duration::from_secs(5), "{back:?}");
    server.namespace.run("mosquitto_pub", &["-t", "kasa/lamp/set/led", "-m", "OFF"]);
    plug.says("a command", |line| line.contains("set_led_off"));
    assert_eq!(requests(&mut plug, "set_relay_state"), 0, "a command of before ran late");
}

/// The broker's name is unknown, then known; then it is gone and so is the broker, and both come back.
#[test]
#[ignore = "needs network namespaces and mosquitto: tests/run"]
fn a_name_that_is_gone_is_asked_for_until_it_is_back() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let broker = mosquitto(&namespace, folder.path());
    let mut heard = listener(&namespace);
    let mut plug = plug(&namespace);
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let mount = format!("mount --bind {} /etc/hosts && exec \"$0\" \"$@\"", hosts.display());
    let mut bridge = bridge(&namespace, "broker.test", &["unshare", "-m", "sh", "-c", &mount]);
    bridge.says("what is wrong", |line| line.contains("broker.test") && line.contains("no connection"));
    for _ in 0..5 {
        plug.says("a poll", |line| line.contains("get_sysinfo"));
    }
    fs::write(&hosts, "127.0.0.1 localhost broker.test\n").unwrap();
    heard.says("the lamp", |line| line.starts_with("kasa/lamp "));
    let complaints =
        |bridge: &mut Talking| bridge.said().iter().filter(|line| line.contains("cannot resolve")).count();
    assert_eq!(complaints(&mut bridge), 1, "{:#?}", bridge.said());
    // Once connected nobody asks for it; when the broker goes, it is asked for.
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    drop(broker);
    bridge.says("that the broker is gone", |line| line.contains("no connection"));
    let _broker = mosquitto(&namespace, folder.path());
    for _ in 0..5 {
        plug.says("a poll", |line| line.contains("get_sysinfo"));
    }
    let mut heard = listener(&namespace);
    fs::write(&hosts, "127.0.0.1 localhost broker.test\n").unwrap();
    heard.says("the lamp", |line| line.starts_with("kasa/lamp "));
    assert_eq!(complaints(&mut bridge), 2, "{:#?}", bridge.said());
}

/// The embedded broker's memory is on a disk that is full, and on one that is read-only.
#[cfg(feature = "embedded-broker")]
#[test]
#[ignore = "needs network namespaces: tests/run"]
fn a_disk_that_takes_nothing_costs_the_memory_and_nothing_else() {
    for (options, fill) in [("size=16k", "cat /dev/zero >F/zero 2>/dev/null;"), ("size=1m,ro", "")] {
        let namespace = Namespace::new();
        let mut plug = plug(&namespace);
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display().to_string();
        let script = format!(
            "mount -t tmpfs -o {options} none {place}; {} exec \"$0\" \"$@\"",
            fill.replace('F', &place)
        );
        let state = format!("KASA2MQTT_BROKER__STATE_DIR={place}");
        let mut bridge = namespace.command("env");
        bridge.args([
            &state,
            "KASA2MQTT_SCAN__ENABLED=false",
            "KASA2MQTT_PLUG=[{host=\"127.0.0.1\", name=\"lamp\"}]",
            "unshare",
            "-m",
            "sh",
            "-c",
            &script,
            PROGRAM,
            "run",
        ]);
        let mut bridge = Talking::start("the bridge", &mut bridge);
        plug.says("a poll", |line| line.contains("get_sysinfo"));
        bridge.says("that it listens", |line| line.contains("connected to the broker"));
        namespace.run("mosquitto_pub", &["-t", "kasa/lamp/set", "-m", "ON"]);
        plug.says("the command", |line| line.contains("set_relay_state"));
        // Before or after it.
        let is_wrong = |line: &String| line.contains("state_dir") || line.contains(&place);
        if !bridge.said().iter().any(is_wrong) {
            bridge.says("what is wrong", |line| is_wrong(&line.to_string()));
        }
        bridge.signal("TERM");
    }
}
