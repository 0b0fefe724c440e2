//! A running bridge moves to another place: stopped here and started there, or frozen, written to disk and thawed by CRIU.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::bridge::Program;
use support::house::plugs;
use support::mosquitto::Mosquitto;
use support::netns::as_root;
use support::watcher::Watcher;
use tempfile::TempDir;

/// What is retained, but for what changes with each run.
async fn retained(broker: &Mosquitto) -> BTreeMap<String, String> {
    let mut retained = Watcher::retained(broker.address(), "kasa/#").await;
    retained.extend(Watcher::retained(broker.address(), "homeassistant/#").await);
    retained.retain(|topic, _| !topic.starts_with("kasa/bridge/"));
    retained
}

/// `docs/moving.md`: stop it here, start it there, with nothing but the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: tests/run"]
async fn stopped_here_and_started_there_it_is_the_same_bridge() {
    let plugs = plugs(&["HS100-G3", "HS300"]).await;
    let broker = Mosquitto::start().await;
    let addresses: Vec<_> = plugs.iter().map(|plug| plug.address()).collect();
    let folder = TempDir::new().unwrap();
    let run = |place: &str| {
        let mut command =
            Program::logged(&broker.address().to_string(), &addresses, &folder.path().join(place));
        // The same id in both places.
        Program::spawn(command.env("KASA2MQTT_MQTT__CLIENT_ID", "kasa"))
    };
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.subscribe("homeassistant/#").await;
    let here = run("here");
    watcher.hear("kasa/plug-1/availability", |payload| payload == "online").await;
    watcher.hear("kasa/plug-0/availability", |payload| payload == "online").await;
    // A name that is in no configuration.
    let rename = json!({"from": "plug-0", "to": "kettle"}).to_string();
    watcher.publish("kasa/bridge/request/device/rename", &rename, false).await;
    let mac = plugs[0].mac().replace(':', "").to_lowercase();
    let config = format!("homeassistant/device/kasa_{mac}/config");
    watcher.hear(&config, |config| config.contains("kasa/kettle")).await;
    watcher.publish("kasa/kettle/set", "ON", false).await;
    watcher.hear("kasa/kettle", |state| state.contains(r#""state":"ON""#)).await;
    let before = retained(&broker).await;

    let from = watcher.mark();
    let begin = Instant::now();
    here.signal("TERM");
    assert!(here.ended().await.success());
    // Nobody listens now, so that nothing is done late.
    watcher.publish("kasa/kettle/set", "OFF", false).await;
    let there = run("there");
    for topic in ["kasa/bridge/state", "kasa/kettle/availability", "kasa/plug-1/availability"] {
        watcher.hear_after(from, topic, |payload| payload == "online").await;
    }
    let took = begin.elapsed();
    println!("moved in {took:?}");
    assert!(took < Duration::from_secs(2), "moved in {took:?}");
    watcher.publish("kasa/kettle/set", r#"{"state":"TOGGLE","transaction":"there"}"#, false).await;
    watcher.hear_after(from, "kasa/kettle/result", |result| result.contains("there")).await;
    watcher.hear_after(from, "kasa/kettle", |state| state.contains(r#""state":"OFF""#)).await;
    assert_eq!(plugs[0].counts().borrow().relay_commands, 2);
    let after = retained(&broker).await;
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (topic, payload) in before.iter().filter(|(topic, _)| topic.ends_with("/config")) {
        assert_eq!(after[topic], *payload, "{topic} is announced as before");
    }
    there.signal("TERM");
    assert!(there.ended().await.success());
}

/// Namespaces around a root of its own (`$1`), with the folder `$2` as `/stage`. CRIU wants a mount at `/`.
const ROOM: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mkdir -p old stage
mount --bind "$2" stage
pivot_root . old
mount -t proc proc /proc
mount -t tmpfs run /run
mount -t tmpfs dev /dev
for device in 'null 1 3' 'zero 1 5' 'urandom 1 9'; do
  read -r name major minor <<<"$device"
  mknod -m 666 "/dev/$name" c "$major" "$minor"
done
umount -l /old
cd /stage
ip link set lo up
exec bash /stage/script
"#;

/// For each way: dump, twelve seconds of commands to a bridge that is not there, restore; then how many of them ran, and
/// after which time everything was current.
const SCRIPT: &str = r#"
exec </dev/null
printf 'listener 1883 127.0.0.1\nallow_anonymous true\n' >mosquitto.conf
mosquitto -c mosquitto.conf >mosquitto.log 2>&1 &
./kasa2mqtt simulate --port 10001 --model HS110-G3 --model HS110-G3 --requests >plugs.log 2>&1 &
# The root may know no names, not even that of this machine.
sub() { mosquitto_sub -h 127.0.0.1 "$@"; }
pub() { mosquitto_pub -h 127.0.0.1 "$@"; }
for _ in $(seq 100); do sub -t x -E && break; sleep 0.1; done
sub -F '%U %t %p' -t 'kasa/#' >heard &
export KASA2MQTT_MQTT__URL=mqtt://127.0.0.1 KASA2MQTT_SCAN__ENABLED=false KASA2MQTT_POLL__INTERVAL=1s
export KASA2MQTT_PLUG='[{host="127.0.0.1:10001",name="lamp-1"},{host="127.0.0.1:10002",name="lamp-2"}]'
# CRIU takes no files of another mount namespace, as the shell's own may be.
(
  for open in /proc/self/fd/*; do [ "${open##*/}" -le 2 ] || eval "exec ${open##*/}<&-"; done
  exec setsid ./kasa2mqtt run --log info </dev/null >bridge.log 2>&1
) &
bridge=$!
heard() { # from, what: waits for it, and says when it came
  for _ in $(seq 300); do
    awk -v from="$1" -v what="$2" '$1 > from && index($0, what) { print $1; exit }' heard | grep . && return
    sleep 0.1
  done
  echo "nothing of $2"; tail -n 50 bridge.log heard; exit 1
}
common="--network-lock nftables --manage-cgroups=ignore -v2"
heard 0 'lamp-1/availability online' >/dev/null
heard 0 'lamp-2/availability online' >/dev/null
criu --version | head -1
number=0
for way in --tcp-established --tcp-close '--tcp-established --lazy-pages'; do
  number=$((number + 1)) images=images-$number
  mkdir "$images"
  criu dump -t "$bridge" -D "$images" $common ${way%% *} -o dump.log ||
    { echo "dump failed"; grep Error "$images/dump.log"; exit 1; }
  begin=$(date +%s.%N) before=$(grep -c set_relay_state plugs.log)
  for _ in $(seq 12); do
    for lamp in 1 2; do pub -q 1 -t "kasa/lamp-$lamp/set" -m TOGGLE; done
    sleep 1
  done
  thaw=$(date +%s.%N)
  case $way in *lazy*) criu lazy-pages -D "$images" -v2 -o lazy.log & sleep 1; thaw=$(date +%s.%N) ;; esac
  criu restore -D "$images" $common $way -d -o restore.log ||
    { echo "restore failed"; grep Error "$images/restore.log"; exit 1; }
  online=$(heard "$thaw" 'bridge/state online') || { echo "$online"; exit 1; }
  state=$(heard "$online" 'lamp-2 {') || { echo "$state"; exit 1; }
  sleep 2
  old=$(($(grep -c set_relay_state plugs.log) - before))
  pub -q 1 -t kasa/lamp-1/set -m "{\"state\":\"TOGGLE\",\"transaction\":\"after-$number\"}"
  heard "$thaw" "after-$number" >/dev/null || exit 1
  echo "way '$way': old commands that ran: $old; current after $(echo "$thaw $state" | awk '{ print $2 - $1 }') s"
done
mkdir pre
criu pre-dump -t "$bridge" -D pre $common -o pre.log >/dev/null 2>&1 && echo 'pre-dump: done' || echo "pre-dump: $(grep -m1 -E 'BUG|racking' pre/pre.log)"
kill -TERM "$bridge"
grep 'stood still' bridge.log
"#;

/// `docs/moving.md`. `KASA2MQTT_TEST_CRIU` is the root, a Debian with criu, mosquitto and its clients.
#[test]
#[ignore = "needs CRIU 4 in a root of its own, and a kernel that allows it: tests/run"]
fn frozen_written_to_disk_and_thawed_it_runs_nothing_old() {
    let root = std::env::var("KASA2MQTT_TEST_CRIU").expect("KASA2MQTT_TEST_CRIU: tests/run makes it");
    let folder = TempDir::new().unwrap();
    fs::copy(env!("CARGO_BIN_EXE_kasa2mqtt"), folder.path().join("kasa2mqtt")).unwrap();
    fs::write(folder.path().join("script"), SCRIPT).unwrap();
    let mut room: Command = as_root("unshare");
    room.args(["--mount", "--pid", "--net", "--fork", "bash", "-c", ROOM, "room", &root]);
    let output = room.arg(folder.path()).stdin(Stdio::null()).output().expect("unshare");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("{said}");
    let ways: Vec<&str> = said.lines().filter(|line| line.starts_with("way ")).collect();
    assert_eq!(ways.len(), 3, "{said}");
    for way in ways {
        assert!(way.contains("that ran: 0;"), "{way}");
        let current: f64 = way.rsplit(' ').nth(1).unwrap().parse().unwrap();
        assert!(current < 5.0, "{way}");
    }
    assert_eq!(said.matches("stood still").count(), 3, "{said}");
}
