//! The status page's server: state, events, commands, metrics, and whom it turns away.
#![cfg(feature = "embedded-broker")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use kasa2mqtt::app::Ended;
use kasa2mqtt::config::Config;
use kasa2mqtt::sim::plug::{Answer, Way};
use kasa2mqtt::sim::server::{Behaviour, Simulator};
use serde_json::{Value, json};
use support::bridge::{Bridge, Program};
use support::broker::AnyBroker;
use support::house::{config, plug, plugs};
use support::memory::Memory;
use support::netns::Namespace;
use support::output::Talking;
use support::port;
use support::soon;
use support::watcher::Watcher;
use support::web::{Events, ask, get, set};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const TOKEN: &str = "correct horse battery";

fn id(plug: &Simulator) -> String {
    plug.mac().replace(':', "").to_lowercase()
}

fn turn(plug: &Simulator, outlet: u8, state: &str) -> Value {
    json!({"id": id(plug), "outlet": outlet, "state": state})
}

/// Health, once it has this status: 200 when the broker is connected.
async fn healthy(page: SocketAddr, status: u16) -> Value {
    soon("health", async {
        loop {
            let health = get(page, "/health").await;
            if health.status == status {
                return health.json();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// The state, once the broker is connected, all plugs answer and none of their meters is unknown.
async fn complete(page: SocketAddr) -> Value {
    healthy(page, 200).await;
    soon("every plug", async {
        loop {
            let state = get(page, "/api/state").await.json();
            let plugs = state["plugs"].as_array().unwrap();
            let is_known = |outlet: &Value| outlet["history"] == json!([]) || outlet["power"].is_number();
            let is_complete = |plug: &Value| {
                plug["availability"] == "online" && plug["outlets"].as_array().unwrap().iter().all(is_known)
            };
            if plugs.iter().all(is_complete) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn watch(broker: &AnyBroker) -> Watcher {
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher
}

#[tokio::test]
async fn the_state_is_what_the_plugs_are() {
    let plugs = plugs(&["HS110-G3", "HS300", "HS100-G2"]).await;
    plugs[0].press(true).await;
    plugs[1].press_outlet(2, true).await;
    let broker = AnyBroker::embedded().await;
    let (bridge, page) = Bridge::with_page(config(Some(broker.address()), &plugs)).await;
    let state = complete(page).await;
    let shown = state["plugs"].as_array().unwrap();
    assert_eq!(shown.len(), 3);
    for (number, (shown, plug)) in shown.iter().zip(&plugs).enumerate() {
        let seen = plug.look().await;
        assert_eq!(shown["id"], id(plug));
        assert_eq!(
            (&shown["alias"], &shown["name"]),
            (&json!(seen.alias()), &json!(format!("plug-{number}")))
        );
        assert_eq!(
            (&shown["address"], &shown["protocol"]),
            (&json!(plug.address().to_string()), &json!("xor"))
        );
        assert!(shown["rssi"].as_i64().is_some_and(|rssi| (-100..0).contains(&rssi)), "{shown}");
        assert_eq!((&shown["reason"], &shown["errors"]), (&Value::Null, &json!(0)));
        let outlets = shown["outlets"].as_array().unwrap();
        assert_eq!(outlets.len(), seen.outlets().len());
        for (at, (outlet, seen)) in outlets.iter().zip(seen.outlets()).enumerate() {
            assert_eq!(outlet["on"], seen.relay(), "{outlet}");
            assert_eq!(outlet["number"], if outlets.len() == 1 { 0 } else { at + 1 });
            let is_metered = number != 2;
            assert_eq!(outlet["power"].is_number(), is_metered, "{outlet}");
            assert_eq!(outlet["history"].as_array().unwrap().is_empty(), !is_metered, "{outlet}");
            assert!(!is_metered || (outlet["power"].as_f64() > Some(1.0)) == seen.relay(), "{outlet}");
        }
    }
    let watt = |plug: usize, outlet: usize| shown[plug]["outlets"][outlet]["power"].as_f64().unwrap();
    let sum: f64 = watt(0, 0) + (0..6).map(|outlet| watt(1, outlet)).sum::<f64>();
    let bridge_shown = &state["bridge"];
    assert!((bridge_shown["power"].as_f64().unwrap() - sum).abs() < 0.5, "{bridge_shown} {sum}");
    assert_eq!((&bridge_shown["online"], &bridge_shown["plugs"]), (&json!(3), &json!(3)));
    assert_eq!(bridge_shown["broker"], json!({"connected": true, "sessions": 1}));
    assert_eq!((&state["may_control"], &state["needs_token"]), (&json!(true), &json!(false)));
    assert_eq!(bridge.stop().await.unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn events_tell_what_changes() {
    let mut plugs = plugs(&["HS110-G3", "HS100-G2"]).await;
    let late = plugs.pop().unwrap();
    late.behave(Behaviour { refuse: true, ..Behaviour::default() }).await;
    let mut broker = AnyBroker::embedded().await;
    let mut config = config(Some(broker.address()), &plugs);
    config.poll.interval = Duration::from_secs(1);
    config.plug.push(plug(late.address()));
    let (bridge, page) = Bridge::with_page(config).await;
    healthy(page, 200).await;
    let mut events = Events::listen(page).await;
    let (first, state) = soon("the first", events.next()).await.unwrap();
    assert_eq!(first, "state");
    // Before a plug has said who it is, its address is all there is.
    let address = late.address().to_string();
    assert_eq!(state["plugs"][1]["id"], address);
    let is_off = |plug: &Value| plug["id"] == id(&plugs[0]) && plug["outlets"][0]["on"] == false;
    if !is_off(&state["plugs"][0]) {
        events.hear("plug", is_off).await;
    }

    plugs[0].press(true).await;
    let on = events.hear("plug", |plug| plug["outlets"][0]["power"].as_f64() > Some(1.0)).await;
    assert_eq!((&on["id"], &on["outlets"][0]["on"]), (&json!(id(&plugs[0])), &json!(true)));
    events.hear("plug", |plug| plug["id"] == address && plug["last_error"].is_string()).await;
    late.behave(Behaviour::default()).await;
    events.hear("gone", |gone| *gone == json!({"id": address})).await;
    events.hear("plug", |plug| plug["id"] == id(&late) && plug["availability"] == "online").await;

    broker.kill().await;
    events.hear("bridge", |bridge| bridge["broker"]["connected"] == false).await;
    broker.restart().await;
    let back = events.hear("bridge", |bridge| bridge["broker"]["connected"] == true).await;
    assert_eq!(back["broker"]["sessions"], 2);

    plugs[0].behave(Behaviour { refuse: true, ..Behaviour::default() }).await;
    let away = events.hear("plug", |plug| plug["availability"] == "offline").await;
    assert!(away["reason"].is_string() && away["errors"].as_u64() >= Some(1), "{away}");
    assert_eq!(away["outlets"][0]["power"], Value::Null);
    bridge.stop().await.unwrap();
    assert!(soon("the end", events.next()).await.is_none());
}

#[tokio::test]
async fn a_plug_that_is_removed_is_gone() {
    let plugs = plugs(&["HS110-G3", "HS100-G3"]).await;
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let mut config = config(Some(broker.address()), &[]);
    config.scan.enabled = true;
    config.scan.targets = plugs.iter().map(|plug| plug.address().to_string().parse().unwrap()).collect();
    let (_bridge, page) = Bridge::with_page(config).await;
    healthy(page, 200).await;
    let mut events = Events::listen(page).await;
    let is_ready = |plug: &Value| plug["name"] == "plug-1" && plug["availability"] == "online";
    let (_, state) = soon("the state", events.next()).await.unwrap();
    if !state["plugs"].as_array().unwrap().iter().any(is_ready) {
        events.hear("plug", is_ready).await;
    }
    watcher.publish("kasa/bridge/request/device/remove", &json!({"id": "plug-1"}).to_string(), false).await;
    events.hear("gone", |gone| *gone == json!({"id": id(&plugs[1])})).await;
    let state = get(page, "/api/state").await.json();
    let left = state["plugs"].as_array().unwrap();
    assert!(left.iter().all(|plug| plug["id"] == id(&plugs[0])), "{state}");
}

#[tokio::test]
async fn a_command_goes_the_way_of_all_commands() {
    let plugs = plugs(&["HS110-G3", "HS300", "HS100-G2"]).await;
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let (_bridge, page) = Bridge::with_page(config(Some(broker.address()), &plugs)).await;
    complete(page).await;
    let result = set(page, &[], &turn(&plugs[0], 0, "ON")).await;
    assert_eq!((result.status, &result.headers[CONTENT_TYPE]), (200, &"application/json".parse().unwrap()));
    assert!(plugs[0].look().await.relay(), "the result came before the plug had confirmed");
    watcher.hear("kasa/plug-0", |state| state.contains(r#""state":"ON""#)).await;
    // The same words as on MQTT, but for the time that it took.
    let without_time = |result: &str| {
        let mut result: Value = serde_json::from_str(result).unwrap();
        assert!(result["duration_ms"].take().as_u64().is_some_and(|took| took < 5000));
        result
    };
    watcher.publish("kasa/plug-0/set", "ON", false).await;
    let theirs = watcher.hear("kasa/plug-0/result", |_| true).await.payload;
    assert_eq!(without_time(&result.body), without_time(&theirs));
    assert_eq!(watcher.on("kasa/plug-0/result").len(), 1, "the page's result is the page's");

    assert_eq!(set(page, &[], &turn(&plugs[0], 0, "TOGGLE")).await.json()["ok"], true);
    assert!(!plugs[0].look().await.relay());
    // One outlet, all outlets; by name.
    assert_eq!(set(page, &[], &turn(&plugs[1], 3, "ON")).await.json()["ok"], true);
    let relays = |seen: &kasa2mqtt::sim::plug::SimPlug| {
        seen.outlets().iter().map(|one| one.relay()).collect::<Vec<_>>()
    };
    assert_eq!(relays(&plugs[1].look().await), [false, false, true, false, false, false]);
    watcher.hear("kasa/plug-1/3", |state| state.contains(r#""state":"ON""#)).await;
    let by_name = json!({"id": "plug-1", "outlet": 0, "state": "ON"});
    assert_eq!(set(page, &[], &by_name).await.json()["ok"], true);
    assert_eq!(relays(&plugs[1].look().await), [true; 6]);

    // What fails is answered as on MQTT, too.
    plugs[2].behave(Behaviour { refuse: true, ..Behaviour::default() }).await;
    let failed = set(page, &[], &turn(&plugs[2], 0, "ON")).await;
    assert_eq!(failed.status, 200);
    watcher.publish("kasa/plug-2/set", "ON", false).await;
    let theirs = watcher.hear("kasa/plug-2/result", |_| true).await.payload;
    let code = |result: &str| serde_json::from_str::<Value>(result).unwrap()["error"]["code"].clone();
    assert!(code(&theirs).is_string(), "{theirs}");
    assert_eq!((code(&failed.body), failed.json()["ok"].clone()), (code(&theirs), json!(false)));
}

#[tokio::test]
async fn what_is_malformed_unknown_or_foreign_is_refused() {
    let plugs = plugs(&["HS100-G2", "HS300"]).await;
    let broker = AnyBroker::embedded().await;
    let (_bridge, page) = Bridge::with_page(config(Some(broker.address()), &plugs)).await;
    complete(page).await;
    let good = turn(&plugs[0], 0, "ON");
    let post = async |headers: &[(&str, &str)], body: &str| {
        let answer = ask(page, Method::POST, "/api/set", headers, body).await;
        assert!(answer.headers.contains_key(CONTENT_SECURITY_POLICY), "{answer:?}");
        assert!(answer.status == 200 || answer.json()["error"].is_string(), "{answer:?}");
        answer.status
    };
    for (id, outlet, expected) in [
        (id(&plugs[0]), json!(1), 404),
        (id(&plugs[1]), json!(7), 404),
        ("000000000000".into(), json!(0), 404),
        ("".into(), json!(0), 404),
        ("kasa/../x".into(), json!(0), 404),
        (id(&plugs[1]), json!(-1), 400),
        (id(&plugs[1]), json!(256), 400),
        (id(&plugs[1]), json!("1"), 400),
        (id(&plugs[1]), json!(null), 400),
    ] {
        let command = json!({"id": id, "outlet": outlet, "state": "ON"}).to_string();
        assert_eq!(post(&[], &command).await, expected, "{command}");
    }
    let bodies = [
        "",
        "{}",
        "null",
        "[]",
        "ON",
        r#"{"id":"plug-0","outlet":0}"#,
        r#"{"id":"plug-0","outlet":0,"state":"on"}"#,
        r#"{"id":"plug-0","outlet":0,"state":"ON","brightness":3}"#,
        r#"{"id":"plug-0","outlet":0,"state":{"reset":1}}"#,
        r#"{"id":"plug-0","outlet":0,"state":"ON"} "#,
        "\u{0}",
    ];
    for body in bodies.iter().filter(|body| !body.ends_with("} ")) {
        assert_eq!(post(&[], body).await, 400, "{body}");
    }
    assert_eq!(post(&[], &format!("{good}{}", " ".repeat(5000))).await, 413);
    assert_eq!(post(&[], &"[".repeat(4000)).await, 400);
    // What forms can send is not taken.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        assert_eq!(post(&[("content-type", kind)], &good.to_string()).await, 400, "{kind}");
    }
    let host = page.to_string();
    let port = page.port();
    let evil = format!("evil.example:{port}");
    for (headers, expected) in [
        (vec![("origin", "http://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("host", evil.as_str())], 403),
        (vec![("host", "evil.example"), ("origin", "http://evil.example")], 403),
        (vec![("x-forwarded-for", "192.0.2.7")], 403),
        (vec![("host", "192.0.2.1")], 403),
    ] {
        assert_eq!(post(&headers, &good.to_string()).await, expected, "{headers:?}");
    }
    assert!(!plugs[0].look().await.relay(), "nothing of this was to switch anything");
    let own = format!("http://{host}");
    assert_eq!(post(&[("origin", &own)], &good.to_string()).await, 200);
    assert!(plugs[0].look().await.relay());
    // A foreign page learns nothing, either, but for health.
    for path in ["/", "/page.js", "/api/state", "/api/events", "/metrics"] {
        assert_eq!(ask(page, Method::GET, path, &[("host", &evil)], "").await.status, 403, "{path}");
    }
    assert_eq!(ask(page, Method::GET, "/health", &[("host", &evil)], "").await.status, 200);
    for (method, path, expected) in [
        (Method::GET, "/api/set", 405),
        (Method::POST, "/api/state", 405),
        (Method::DELETE, "/", 405),
        (Method::GET, "/nowhere", 404),
        (Method::GET, "/..%2f..%2fetc/passwd", 404),
        (Method::GET, "//", 404),
    ] {
        let answer = ask(page, method, path, &[], "").await;
        assert_eq!(answer.status, expected, "{path}");
        assert!(answer.headers.contains_key(CONTENT_SECURITY_POLICY), "{path}");
    }
}

#[tokio::test]
async fn a_token_opens_to_whoever_knows_it() {
    let plugs = plugs(&["HS100-G2"]).await;
    let broker = AnyBroker::embedded().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mut config = config(Some(broker.address()), &plugs);
    config.http.token_file = Some(file.path().into());
    let (_bridge, page) = Bridge::with_page(config).await;
    let state = complete(page).await;
    assert_eq!((&state["may_control"], &state["needs_token"]), (&json!(true), &json!(true)));
    let command = turn(&plugs[0], 0, "ON");
    let (right, wrong) = (format!("Bearer {TOKEN}"), format!("Bearer {TOKEN}x"));
    assert_eq!(set(page, &[], &command).await.status, 401);
    assert_eq!(set(page, &[("authorization", &wrong)], &command).await.status, 401);
    let foreign = [("authorization", right.as_str()), ("origin", "http://evil.example")];
    assert_eq!(set(page, &foreign, &command).await.status, 403);
    assert!(!plugs[0].look().await.relay());
    assert_eq!(set(page, &[("authorization", &right)], &command).await.json()["ok"], true);
    assert!(plugs[0].look().await.relay());
    // A proxy that says for whom it asks.
    let proxied =
        [("authorization", right.as_str()), ("x-forwarded-for", "192.0.2.7"), ("host", "plugs.lan")];
    assert_eq!(set(page, &proxied, &turn(&plugs[0], 0, "OFF")).await.json()["ok"], true);
}

#[tokio::test]
async fn behind_ingress_nobody_else_is_answered() {
    let plugs = plugs(&["HS100-G2"]).await;
    let broker = AnyBroker::embedded().await;
    let mut config = config(Some(broker.address()), &plugs);
    config.http.ingress = true;
    let (_bridge, page) = Bridge::with_page(config).await;
    for path in ["/", "/api/state", "/api/events", "/metrics"] {
        assert_eq!(get(page, path).await.status, 403, "{path}");
    }
    // Headers are no proof of anything.
    let claims = [("x-forwarded-for", "172.30.32.2"), ("x-ingress-path", "/api/hassio_ingress/x")];
    assert_eq!(set(page, &claims, &turn(&plugs[0], 0, "ON")).await.status, 403);
    assert_eq!(healthy(page, 200).await["healthy"], true);
    assert!(!plugs[0].look().await.relay());
}

#[tokio::test]
async fn the_page_is_served_as_it_is_under_a_strict_policy() {
    let broker = AnyBroker::embedded().await;
    let (_bridge, page) = Bridge::with_page(config(Some(broker.address()), &[])).await;
    for (path, file, kind) in [
        ("/", "index.html", "text/html; charset=utf-8"),
        ("/page.js", "page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "page.css", "text/css; charset=utf-8"),
    ] {
        let answer = get(page, path).await;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page").join(file);
        assert_eq!(answer.body, std::fs::read_to_string(file).unwrap());
        assert_eq!(answer.headers[CONTENT_TYPE], kind);
        assert_eq!(answer.headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(
            answer.headers[CONTENT_SECURITY_POLICY],
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        );
    }
}

/// A connection whose both ends hold little.
async fn narrow(page: SocketAddr, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(page).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_slow_reader_delays_nobody_and_is_left() {
    const PLUGS: usize = 40;
    // What the buffers of a connection hold, and 64 messages with all plugs in each.
    const MORE_THAN_WAITS: usize = 1000 + 64 * PLUGS;
    let plugs = plugs(&["HS110-G3"; PLUGS]).await;
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let (_bridge, page) = Bridge::with_page(config(Some(broker.address()), &plugs)).await;
    complete(page).await;
    let request = "GET /api/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut slow = narrow(page, request).await;
    slow.read_exact(&mut [0; 12]).await.unwrap();
    let mut quick = Events::listen(page).await;
    let (heard, mut events) = tokio::sync::watch::channel(0);
    let listener = tokio::spawn(async move {
        while let Some((name, _)) = quick.next().await {
            heard.send_modify(|heard| *heard += usize::from(name == "plug"));
        }
    });
    let (begin, mut turns, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    while *events.borrow_and_update() < MORE_THAN_WAITS {
        let (mark, asked) = (watcher.mark(), Instant::now());
        let state = if turns % 2 == 0 { "ON" } else { "OFF" };
        for number in 0..PLUGS {
            watcher.publish(&format!("kasa/plug-{number}/set"), state, false).await;
        }
        for number in 0..PLUGS {
            watcher.hear_after(mark, &format!("kasa/plug-{number}/result"), |_| true).await;
        }
        turns += 1;
        slowest = slowest.max(asked.elapsed());
        assert!(begin.elapsed() < support::DEADLINE && !listener.is_finished(), "the quick one was left");
    }
    // Only now it reads: what it missed is not kept for it, and its connection ends.
    let mut seen = String::new();
    soon("the slow one's end", slow.read_to_string(&mut seen)).await.unwrap();
    let told = seen.matches("event: plug").count();
    let (heard, took) = (*events.borrow(), begin.elapsed());
    println!(
        "{turns} turns of {PLUGS} commands in {took:.1?}, the slowest {slowest:.1?}; quick heard {heard}, slow {told} in {} KB",
        seen.len() >> 10
    );
    assert!(seen.contains("event: state\n"), "{}", &seen[..seen.len().min(300)]);
    assert!(told < heard, "{told}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // Whoever comes again is told everything that is so now.
    let (first, state) = soon("the state", Events::listen(page).await.next()).await.unwrap();
    assert_eq!((first.as_str(), state["plugs"].as_array().unwrap().len()), ("state", PLUGS));
    listener.abort();
}

#[tokio::test]
async fn connections_are_limited_and_places_are_given_back() {
    let broker = AnyBroker::embedded().await;
    let (_bridge, page) = Bridge::with_page(config(Some(broker.address()), &[])).await;
    let mut open = Vec::new();
    let closed = loop {
        assert!(open.len() < 200, "no limit");
        let mut stream = TcpStream::connect(page).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut first = [0; 8];
        match soon("an answer, or none", stream.read(&mut first)).await {
            Ok(count) if count > 0 => open.push(stream),
            _ => break open.len(),
        }
    };
    println!("{closed} connections were served at once");
    assert!(closed >= 64, "{closed}");
    drop(open);
    soon("a place", async {
        loop {
            let mut stream = TcpStream::connect(page).await.unwrap();
            let _ = stream.write_all(b"GET / HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
            let mut text = Vec::new();
            if stream.read_to_end(&mut text).await.is_ok_and(|count| count > 0) {
                return;
            }
        }
    })
    .await;
    // Browsers that listen are fewer, so that there is room for commands.
    let mut listeners = Vec::new();
    let refused = loop {
        let answer = async {
            let mut stream = TcpStream::connect(page).await.unwrap();
            stream.write_all(b"GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            (stream, String::from_utf8(head.to_vec()).unwrap())
        };
        let (stream, head) = soon("an answer", answer).await;
        match head.as_str() {
            "HTTP/1.1 200" => listeners.push(stream),
            other => break other.to_string(),
        }
    };
    assert_eq!((listeners.len(), refused.as_str()), (32, "HTTP/1.1 503"));
    assert_eq!(get(page, "/api/state").await.status, 200);
}

#[tokio::test]
async fn rubbish_is_answered_or_hung_up_on() {
    let broker = AnyBroker::embedded().await;
    let (_bridge, page) = Bridge::with_page(config(Some(broker.address()), &[])).await;
    let long = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(5000));
    let path = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(50_000));
    for rubbish in
        [long.as_str(), &many, &path, "\r\n\r\n\0\0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\u{16}\u{3}\u{1}"]
    {
        let mut stream = TcpStream::connect(page).await.unwrap();
        let _ = stream.write_all(rubbish.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = soon("an end", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(get(page, "/").await.status, 200);
}

fn sample(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {metrics}")).parse().unwrap()
}

/// What the plug's own meter says, without the bridge: power in W, energy in Wh.
async fn meter(plug: &Simulator) -> (f64, f64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let Answer { reply, .. } = plug.look().await.answer(br#"{"emeter":{"get_realtime":{}}}"#, Way::Tcp, now);
    let reply: Value = serde_json::from_str(&reply.unwrap()).unwrap();
    let realtime = &reply["emeter"]["get_realtime"];
    (realtime["power_mw"].as_f64().unwrap() / 1000.0, realtime["total_wh"].as_f64().unwrap())
}

#[tokio::test]
async fn metrics_are_what_the_plugs_meters_say() {
    let plugs = plugs(&["HS110-G3", "HS300", "HS110-G3"]).await;
    plugs[0].press(true).await;
    plugs[1].press_outlet(1, true).await;
    plugs[2].behave(Behaviour { refuse: true, ..Behaviour::default() }).await;
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let (_bridge, page) = Bridge::with_page(config(Some(broker.address()), &plugs)).await;
    let metrics = soon("all meters and an error", async {
        loop {
            let metrics = get(page, "/metrics").await.body;
            // The third one is known by its address alone.
            let of_third = format!("kasa_plug_errors_total{{plug=\"{}\"", plugs[2].address());
            let refused = metrics.lines().any(|line| line.starts_with(&of_third) && !line.ends_with(" 0"));
            if refused && metrics.contains(r#"kasa_outlet_power_watts{plug="plug-1",outlet="6"}"#) {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (power, energy) = meter(&plugs[0]).await;
    let shown = sample(&metrics, r#"kasa_outlet_power_watts{plug="plug-0",outlet="0"}"#);
    assert!((shown - power).abs() < power * 0.1 && shown > 1.0, "{shown} is not {power}");
    let shown = sample(&metrics, r#"kasa_outlet_energy_joules_total{plug="plug-0",outlet="0"}"#);
    assert!((shown / 3600.0 - energy).abs() <= 1.0, "{shown} is not {energy}");
    let state = watcher.hear("kasa/plug-0", |state| state.contains("voltage")).await.payload;
    let state: Value = serde_json::from_str(&state).unwrap();
    let volts = sample(&metrics, r#"kasa_outlet_voltage_volts{plug="plug-0",outlet="0"}"#);
    assert!((volts - state["voltage"].as_f64().unwrap()).abs() < 3.0, "{volts} {state}");
    assert_eq!(sample(&metrics, r#"kasa_plug_signal_dbm{plug="plug-0"}"#), state["rssi"].as_f64().unwrap());
    for (series, expected) in [
        (r#"kasa_outlet_on{plug="plug-0",outlet="0"}"#, 1.0),
        (r#"kasa_outlet_on{plug="plug-1",outlet="1"}"#, 0.0),
        (r#"kasa_outlet_on{plug="plug-1",outlet="2"}"#, 1.0),
        (r#"kasa_outlet_power_watts{plug="plug-1",outlet="1"}"#, 0.0),
        (r#"kasa_plug_up{plug="plug-0"}"#, 1.0),
        ("kasa_plugs", 3.0),
        ("kasa_plugs_online", 2.0),
        ("kasa_broker_connected", 1.0),
        ("kasa_broker_sessions_total", 1.0),
    ] {
        assert_eq!(sample(&metrics, series), expected, "{series}");
    }
    assert!(sample(&metrics, r#"kasa_poll_duration_seconds_count{plug="plug-0"}"#) >= 1.0);
    assert!(sample(&metrics, "kasa_broker_publishes_total") >= 3.0);
    // What the system says of the same process.
    let kib = Memory::of(std::process::id()).now as f64;
    let resident = sample(&metrics, "process_resident_memory_bytes") / 1024.0;
    assert!((resident - kib).abs() < kib * 0.5, "{resident} {kib}");
    assert!(sample(&metrics, "process_open_fds") > 5.0);
    assert!(sample(&metrics, "process_cpu_seconds_total") > 0.0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let age = since - sample(&metrics, "process_start_time_seconds");
    assert!((0.0..600.0).contains(&age), "{age}");
}

/// Prometheus' own opinion, aliases that were made to break it included.
#[tokio::test]
#[ignore = "needs promtool: tests/run"]
async fn promtool_likes_the_metrics() {
    let plugs = plugs(&["HS110-G3", "HS300", "HS100-G2"]).await;
    for (plug, alias) in
        plugs.iter().zip(["a\"} 1\nevil_total 7\n#", "back\\slash\\n", "Küche 🍳 {le=\"1\"}"])
    {
        let alias = json!({"system": {"set_dev_alias": {"alias": alias}}}).to_string();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        plug.change(move |plug| drop(plug.answer(alias.as_bytes(), Way::Tcp, now))).await;
    }
    let broker = AnyBroker::embedded().await;
    let (_bridge, page) = Bridge::with_page(config(Some(broker.address()), &plugs)).await;
    complete(page).await;
    let metrics = get(page, "/metrics").await;
    assert_eq!(metrics.headers[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    assert!(metrics.body.contains(r#"alias="a\"} 1evil_total 7#""#), "{}", metrics.body);
    let promtool = support::peers::cache("prometheus/usr/bin/promtool");
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(std::process::Stdio::piped());
    check.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = check.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), metrics.body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}{}", metrics.body);
}

#[tokio::test]
async fn health_is_the_cores_own_word() {
    let mut broker = AnyBroker::embedded().await;
    let (_bridge, page) = Bridge::with_page(config(Some(broker.address()), &[])).await;
    let health = healthy(page, 200).await;
    assert_eq!(health["broker"], json!({"connected": true, "sessions": 1}));
    broker.kill().await;
    let health = healthy(page, 503).await;
    assert_eq!((&health["healthy"], &health["core"]["running"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn a_restart_takes_the_same_port_again() {
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let mut config: Config = config(Some(broker.address()), &[]);
    for _ in 0..2 {
        let (mut bridge, page) = Bridge::with_page(config.clone()).await;
        config.http.listen = Some(page);
        let mut events = Events::listen(page).await;
        events.hear("bridge", |bridge| bridge["broker"]["connected"] == true).await;
        watcher.publish("kasa/bridge/request/restart", "", false).await;
        assert_eq!(bridge.ended().await.unwrap(), Ended::Restart);
    }
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(None, &[]);
    config.http.listen = taken.local_addr().ok();
    let error = Bridge::start(config).ended().await.unwrap_err().to_string();
    assert!(
        error.contains("http.listen") && error.contains(&taken.local_addr().unwrap().to_string()),
        "{error}"
    );
}

/// The names of the program's threads.
fn threads(program: &Program) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.id())).unwrap();
    let name =
        |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("comm"));
    tasks.filter_map(|task| Some(name(task).ok()?.trim().to_string())).collect()
}

#[tokio::test]
async fn the_program_ends_at_once_whoever_listens() {
    let plugs = plugs(&["HS110-G3"]).await;
    let broker = AnyBroker::embedded().await;
    let page = port::unused();
    let mut command = Program::command();
    command.arg("run").env("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address()));
    command.env("KASA2MQTT_PLUG", format!("[{{host=\"{}\"}}]", plugs[0].address()));
    command.env("KASA2MQTT_HTTP__LISTEN", page.to_string());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let program = Program::spawn(&mut command);
    soon("the page", async {
        while TcpStream::connect(page).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    complete(page).await;
    let mut events = Events::listen(page).await;
    let _idle = narrow(page, "").await;
    let _slow = narrow(page, "GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(threads(&program).iter().any(|name| name == "http"), "{:?}", threads(&program));
    let began = Instant::now();
    program.signal("TERM");
    assert!(program.ended().await.success());
    let took = began.elapsed();
    println!("ended in {took:?} with open events");
    assert!(took < Duration::from_secs(2), "{took:?}");
    soon("the end of events", async { while events.next().await.is_some() {} }).await;
}

/// Off unless it is told where to listen: no thread, no port.
#[tokio::test]
async fn without_an_address_there_is_nothing() {
    let plugs = plugs(&["HS110-G3"]).await;
    let broker = AnyBroker::embedded().await;
    let watcher = watch(&broker).await;
    let program = Program::run(broker.address(), &[plugs[0].address()]);
    watcher.hear("kasa/plug-0/availability", |payload| payload == "online").await;
    assert!(!threads(&program).iter().any(|name| name == "http"), "{:?}", threads(&program));
    let listening = Command::new("cat").arg(format!("/proc/{}/net/tcp", program.id())).output().unwrap();
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", program.id()))
        .unwrap()
        .filter_map(|file| std::fs::read_link(file.unwrap().path()).ok()?.to_str().map(str::to_string))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_string()))
        .collect();
    let listening = String::from_utf8(listening.stdout).unwrap();
    let ours = listening.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours: Vec<_> =
        ours.filter(|line| line[3] == "0A" && inodes.iter().any(|inode| inode == line[9])).collect();
    assert!(ours.is_empty(), "it listens: {ours:?}");
}

/// Asks from a certain address of a namespace: `METHOD PATH HOST BODY`, and what was answered.
const ASKER: &str = "
import http.client, sys
source, target, method, path, host, body = sys.argv[1:]
connection = http.client.HTTPConnection(target, 8099, timeout=30, source_address=(source, 0))
connection.request(method, path, body or None, {'Host': host, 'Content-Type': 'application/json'})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
";

/// Who is answered depends on where he is, and that takes machines.
#[test]
#[ignore = "needs network namespaces and Python: tests/run"]
fn what_is_answered_depends_on_the_address_that_asks() {
    for (ingress, from, path, host, expected) in [
        // As an app of Home Assistant: 172.30.32.1 is the machine, .2 the Supervisor, .3 another app.
        ("true", "172.30.32.2", "/api/state", "home.example", r#"200 {"bridge""#),
        ("true", "172.30.32.2", "/api/state", "home.example", r#""may_control":true,"needs_token":false"#),
        ("true", "172.30.32.2", "/api/set", "home.example", "404 "),
        ("true", "172.30.32.3", "/api/state", "172.30.32.2", "403 "),
        ("true", "172.30.32.3", "/metrics", "home.example", "403 "),
        ("true", "172.30.32.3", "/health", "home.example", "403 "),
        ("true", "172.30.32.1", "/health", "localhost", r#"200 {"broker""#),
        ("true", "172.30.32.1", "/api/state", "localhost", "403 "),
        // As a program of a network: everybody sees, nobody from elsewhere switches without a token.
        (
            "false",
            "172.30.32.3",
            "/api/state",
            "172.30.32.1:8099",
            r#""may_control":false,"needs_token":false"#,
        ),
        ("false", "172.30.32.3", "/api/set", "localhost", "403 "),
        ("false", "172.30.32.1", "/api/set", "localhost", "403 "),
        ("false", "172.30.32.3", "/health", "172.30.32.1:8099", "200 "),
    ] {
        let machine = Namespace::new();
        for address in 1..=3 {
            machine.ip(&format!("address add 172.30.32.{address}/32 dev lo"));
        }
        let mut bridge = machine.command("env");
        bridge.args(["KASA2MQTT_HTTP__LISTEN=172.30.32.1:8099", "KASA2MQTT_SCAN__ENABLED=false"]);
        bridge.args([&format!("KASA2MQTT_HTTP__INGRESS={ingress}"), env!("CARGO_BIN_EXE_kasa2mqtt"), "run"]);
        let mut bridge = Talking::start("the bridge", &mut bridge);
        bridge.says("its page's address", |line| line.contains("http://172.30.32.1:8099"));
        let (method, body) = match path {
            "/api/set" => ("POST", r#"{"id":"nobody","outlet":0,"state":"ON"}"#),
            _ => ("GET", ""),
        };
        let ask = || {
            let mut ask = machine.command("python3");
            let said =
                ask.args(["-c", ASKER, from, "172.30.32.1", method, path, host, body]).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            String::from_utf8(said.stdout).unwrap()
        };
        let mut said = ask();
        let began = Instant::now();
        // Right at its start it is not healthy yet.
        while said.starts_with("503") && began.elapsed() < support::DEADLINE {
            said = ask();
        }
        assert!(said.contains(expected), "{from} {path} {host}: {said}");
    }
}
