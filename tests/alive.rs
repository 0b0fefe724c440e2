//! Who watches over the bridge: the service manager, and health checks. Against the real program.
#![cfg(feature = "embedded-broker")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kasa2mqtt::sim::server::Simulator;
use rumqttc::QoS;
use serde_json::{Value, json};
use support::bridge::Program;
use support::broker::AnyBroker;
use support::house::plugs;
use support::netns::Namespace;
use support::output::Talking;
use support::watcher::Watcher;
use support::web::get;
use support::{port, soon};
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

/// Stands in for systemd: a socket that it hears notifications on.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        Manager { socket: UnixDatagram::bind(&path).unwrap(), path, _folder: folder }
    }

    /// What the program is told of it.
    fn starts(&self, command: &mut Command, watchdog: Duration) {
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        command.env_remove("WATCHDOG_PID");
    }

    async fn next(&self) -> String {
        let mut news = [0; 4096];
        let length = self.socket.recv(&mut news).await.unwrap();
        String::from_utf8(news[..length].to_vec()).unwrap()
    }

    /// Everything that is said until some line fits, that included.
    async fn hear(&self, what: &str, fits: impl Fn(&str) -> bool) -> Vec<String> {
        let mut heard = Vec::new();
        let all = soon(what, async {
            loop {
                let news = self.next().await;
                heard.extend(news.lines().map(str::to_string));
                if news.lines().any(&fits) {
                    return heard;
                }
            }
        });
        all.await
    }
}

/// `run`, configured by these variables.
fn bridge(plugs: &[Simulator], variables: &[(&str, String)]) -> Command {
    let plugs: Vec<String> = plugs.iter().map(|plug| format!("{{host=\"{}\"}}", plug.address())).collect();
    let mut command = Program::command();
    command.arg("run").env("KASA2MQTT_PLUG", format!("[{}]", plugs.join(",")));
    command.env("KASA2MQTT_POLL__INTERVAL", "1s");
    command.envs(variables.iter().map(|(name, value)| (*name, value)));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// `healthcheck` with the same variables: its exit code, and all that it said.
async fn check(variables: &[(&str, String)], arguments: &[&str]) -> (i32, String) {
    let mut command = Program::command();
    command.arg("healthcheck").args(arguments);
    command.envs(variables.iter().map(|(name, value)| (*name, value)));
    let mut command = tokio::process::Command::from(command);
    let output = soon("the check's end", command.kill_on_drop(true).output()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

/// Checks until it ends like this and says these words.
async fn becomes(variables: &[(&str, String)], arguments: &[&str], code: i32, words: &str) {
    soon(&format!("exit code {code} of healthcheck {arguments:?}, and {words:?}"), async {
        loop {
            let (ended, text) = check(variables, arguments).await;
            if ended == code && text.contains(words) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn it_is_ready_without_a_broker_and_says_how_it_goes() {
    let plugs = plugs(&["HS110-G3", "HS100-G2"]).await;
    let mut broker = AnyBroker::embedded().await;
    let url = ("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address()));
    broker.kill().await;
    let manager = Manager::new();
    let mut command = bridge(&plugs, &[url]);
    manager.starts(&mut command, Duration::from_millis(400));
    let program = Program::spawn(&mut command);

    let first = soon("the first word", manager.next()).await;
    let lines: Vec<&str> = first.lines().collect();
    assert!(lines.contains(&"READY=1") && lines.contains(&"WATCHDOG=1"), "{first}");
    let status = "STATUS=0 of 2 plugs online, no connection to the broker";
    assert!(lines.contains(&status), "{first}");
    let mut heard =
        manager.hear("plugs", |line| line == "STATUS=2 of 2 plugs online, no connection to the broker").await;
    broker.restart().await;
    heard.extend(manager.hear("the broker", |line| line.ends_with("online, connected to the broker")).await);
    broker.kill().await;
    heard
        .extend(manager.hear("its loss", |line| line.ends_with("online, no connection to the broker")).await);
    program.signal("TERM");
    heard.extend(manager.hear("the farewell", |line| line == "STOPPING=1").await);
    assert!(program.ended().await.success());
    assert!(!heard.iter().any(|line| line == "READY=1"), "once is enough: {heard:?}");
    // What has not changed is not said again.
    let news: Vec<_> = heard.iter().filter(|line| line.starts_with("STATUS=")).collect();
    assert!(news.windows(2).all(|two| two[0] != two[1]), "{news:?}");
}

#[tokio::test]
async fn the_watchdog_is_fed_twice_as_often_as_it_is_hungry() {
    const HUNGRY: Duration = Duration::from_secs(1);
    let manager = Manager::new();
    let mut command = bridge(&[], &[("KASA2MQTT_MQTT__URL", "mqtt://127.0.0.1:1".into())]);
    manager.starts(&mut command, HUNGRY);
    let program = Program::spawn(&mut command);
    manager.hear("the first", |line| line == "WATCHDOG=1").await;
    let began = Instant::now();
    for _ in 0..6 {
        manager.hear("the next", |line| line == "WATCHDOG=1").await;
    }
    let took = began.elapsed();
    assert!(took > HUNGRY * 5 / 2, "more often than needed: six in {took:?}");
    program.signal("TERM");
    assert!(program.ended().await.success());

    // It listens no more, or never did: that is nobody's trouble.
    let broker = AnyBroker::embedded().await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    let mut command = bridge(&[], &[("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address()))]);
    command.env("NOTIFY_SOCKET", "/nowhere/notify").env("WATCHDOG_USEC", "0");
    let program = Program::spawn(&mut command);
    watcher.hear("kasa/bridge/state", |state| state == "online").await;
    program.signal("TERM");
    assert!(program.ended().await.success());
}

/// It hangs in the midst of a word: nobody reads its log, and the pipe is full. Its other threads go on.
#[tokio::test]
async fn a_core_that_hangs_is_silent_and_not_healthy() {
    let plugs = plugs(&["HS110-G3"]).await;
    let broker = AnyBroker::embedded().await;
    let page = port::unused();
    let variables = [
        ("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address())),
        ("KASA2MQTT_HTTP__LISTEN", page.to_string()),
    ];
    let manager = Manager::new();
    let mut command = bridge(&plugs, &variables);
    manager.starts(&mut command, Duration::from_millis(500));
    // The page's thread says nothing, so that it does not wait for the pipe, too.
    command.args(["--log", "warn,kasa2mqtt=debug,kasa2mqtt::http=off"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = child.stderr.take().unwrap();
    manager.hear("ready", |line| line == "READY=1").await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/plug-0/availability").await;
    watcher.hear("kasa/plug-0/availability", |availability| availability == "online").await;
    // Each is a line of the log, and twice as many as go into a pipe.
    for _ in 0..1000 {
        watcher.client.publish("kasa/plug-0/set", QoS::AtMostOnce, false, "rubbish").await.unwrap();
    }
    let hangs = async {
        loop {
            let health = get(page, "/health").await;
            if health.json()["core"]["running"] == false {
                return assert_eq!(health.status, 503, "{health:?}");
            }
        }
    };
    soon("the hang", hangs).await;
    // What it said before is read; then there is nothing for six times as long as it may be silent.
    while timeout(Duration::from_millis(100), manager.next()).await.is_ok() {}
    let silence = timeout(Duration::from_secs(3), manager.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert!(child.try_wait().unwrap().is_none(), "it runs");
    for arguments in [&[][..], &["--alive"]] {
        let (code, text) = check(&variables, arguments).await;
        assert!(code == 1 && text.contains("the bridge hangs"), "{code} {text}");
    }
    // Somebody reads again, and it goes on.
    let reading = thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    manager.hear("life", |line| line == "WATCHDOG=1").await;
    becomes(&variables, &[], 0, "healthy").await;
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap().unwrap();
}

#[tokio::test]
async fn with_a_page_the_bridge_is_asked_itself() {
    let plugs = plugs(&["HS110-G3"]).await;
    let mut broker = AnyBroker::embedded().await;
    let page = port::unused();
    let mut variables = vec![
        ("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address())),
        ("KASA2MQTT_HTTP__LISTEN", page.to_string()),
        ("KASA2MQTT_HTTP__HOSTS", r#"["plugs.example.org"]"#.into()),
        ("KASA2MQTT_HTTP__TOKEN", "correct horse battery".into()),
    ];
    let (code, text) = check(&variables, &[]).await;
    assert!(code == 1 && text.contains(&format!("http://{page}/health: ")), "{text}");
    let program = Program::spawn(&mut bridge(&plugs, &variables));
    becomes(&variables, &[], 0, &format!("healthy, says http://{page}/health\n")).await;
    assert_eq!(check(&variables, &["--alive"]).await.0, 0);
    let (_, text) = check(&variables, &["--json"]).await;
    let said: Value = serde_json::from_str(&text).unwrap();
    let asked = format!("http://{page}/health");
    assert_eq!(said, json!({"healthy": true, "asked": asked, "problem": null}));

    broker.kill().await;
    becomes(&variables, &[], 1, "no connection to its broker").await;
    assert_eq!(check(&variables, &["--alive"]).await.0, 0, "it lives, without its broker");
    let (code, text) = check(&variables, &["--json"]).await;
    let said: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((code, &said["healthy"]), (1, &json!(false)));
    assert!(said["problem"].as_str().is_some_and(|problem| problem.contains("broker")), "{text}");
    broker.restart().await;
    // Whoever listens everywhere is asked here.
    variables[1].1 = format!("0.0.0.0:{}", page.port());
    becomes(&variables, &[], 0, "healthy").await;
    program.signal("TERM");
    assert!(program.ended().await.success());
    assert_eq!(check(&variables, &["--alive"]).await.0, 1);
    variables[1].1 = "127.0.0.1:0".into();
    let (code, text) = check(&variables, &[]).await;
    assert!(code == 1 && text.contains("http.listen"), "{text}");
}

#[tokio::test]
async fn without_a_page_the_broker_is_asked() {
    let mut broker = AnyBroker::embedded().await;
    let variables = [
        ("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address())),
        // The check is another client than the bridge, and does not throw it out.
        ("KASA2MQTT_MQTT__CLIENT_ID", "the-bridge".into()),
    ];
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/bridge/state").await;
    let hasty = ["--timeout", "2s"];
    becomes(&variables, &hasty, 1, "no bridge has been there yet").await;
    let program = Program::spawn(&mut bridge(&[], &variables));
    let healthy = format!("healthy, says mqtt://{}", broker.address());
    becomes(&variables, &hasty, 0, &healthy).await;
    becomes(&variables, &hasty, 0, &healthy).await;
    let (code, text) = check(&variables, &["--alive"]).await;
    assert!(code == 1 && text.contains("http.listen"), "{text}");
    assert_eq!(watcher.on("kasa/bridge/state"), ["online"]);
    // Its will says so.
    program.kill();
    becomes(&variables, &hasty, 1, "the bridge is offline (kasa/bridge/state)").await;
    broker.kill().await;
    becomes(&variables, &hasty, 1, "no broker answers").await;
    broker.restart().await;

    // One of several is asked for itself.
    let shard = |shard: &str| [variables[0].clone(), ("KASA2MQTT_SHARD", shard.into())];
    let _first = Program::spawn(&mut bridge(&[], &shard("1/2")));
    becomes(&shard("1/2"), &hasty, 0, "healthy").await;
    becomes(&shard("2/2"), &hasty, 1, "nothing is retained on kasa/bridge/shard-2/state").await;
}

/// As the image's own health check finds it, where nothing is configured: by what the embedded broker holds.
#[tokio::test]
async fn the_embedded_broker_is_asked_by_its_own_user() {
    let mut variables = vec![
        ("KASA2MQTT_BROKER__LISTEN", port::unused().to_string()),
        ("KASA2MQTT_BROKER__USERNAME", "kasa".into()),
        ("KASA2MQTT_BROKER__PASSWORD", "secret of the broker".into()),
    ];
    let program = Program::spawn(&mut bridge(&[], &variables));
    becomes(&variables, &["--timeout", "2s"], 0, "healthy").await;
    variables[2].1 = "another".into();
    let (code, text) = check(&variables, &["--timeout", "2s"]).await;
    assert!(code == 1 && !text.contains("another"), "{text}");
    program.signal("TERM");
    assert!(program.ended().await.success());
}

/// Answers whoever calls in this way.
fn stranger(answer: impl Fn(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(&answer));
    address
}

#[tokio::test]
async fn strangers_are_not_taken_for_a_bridge() {
    let ask = async |stranger: SocketAddr, problem: &str| {
        let listen = [("KASA2MQTT_HTTP__LISTEN", stranger.to_string())];
        let began = Instant::now();
        let (code, text) = check(&listen, &["--timeout", "2s"]).await;
        assert!(code == 1 && text.contains(problem) && text.lines().count() == 1, "{problem}: {code} {text}");
        assert!(began.elapsed() < Duration::from_secs(20), "{text}");
    };
    let say = |answer: &'static [u8]| {
        stranger(move |mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer);
        })
    };
    ask(port::unused(), "refused").await;
    ask(say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), "something else than kasa2mqtt").await;
    ask(say(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"), "404").await;
    ask(say(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"), "").await;
    ask(say(b"\x00\x01 what"), "").await;
    ask(say(b""), "").await;
    let silent = stranger(std::mem::forget);
    ask(silent, "no answer").await;
    let endless = stranger(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = [b"400\r\n", &[b' '; 0x400][..], b"\r\n"].concat();
        while stream.write_all(&chunk).is_ok() {}
    });
    ask(endless, "length limit").await;
}

/// As an app of Home Assistant, whose page answers nobody but the Supervisor: the app's own check is answered.
#[test]
#[ignore = "needs network namespaces: tests/run"]
fn an_app_behind_ingress_is_asked_from_its_own_machine() {
    let machine = Namespace::new();
    machine.ip("address add 172.30.32.1/32 dev lo");
    let variables = [
        "KASA2MQTT_HTTP__LISTEN=172.30.32.1:8099",
        "KASA2MQTT_HTTP__INGRESS=true",
        "KASA2MQTT_SCAN__ENABLED=false",
    ];
    let run = |token: &str, command: &str| {
        let mut run = machine.command("env");
        run.args(variables)
            .arg(format!("SUPERVISOR_TOKEN={token}"))
            .args([env!("CARGO_BIN_EXE_kasa2mqtt"), command]);
        run
    };
    let mut bridge = Talking::start("the bridge", &mut run("", "run"));
    bridge.says("its connection", |line| line.contains("connected to the broker"));
    for arguments in [&[][..], &["--alive"]] {
        let checked = run("", "healthcheck").args(arguments).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    // The Supervisor, which is not there, is not asked: the environment says where the page is.
    let lonely = run("token", "healthcheck").output().unwrap();
    assert!(lonely.status.success(), "{}", String::from_utf8_lossy(&lonely.stderr));
}
