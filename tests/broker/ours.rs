//! What only our broker promises: one user or none, a memory that survives, an end at once.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use kasa2mqtt::broker::settings::Settings;
use kasa2mqtt::broker::{Broker, Error};
use rumqttc::QoS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::house::FREE;
use crate::support::soon;
use crate::support::watcher::{Watcher, options};

fn settings() -> Settings {
    Settings { listen: FREE, ..Settings::default() }
}

/// The error that a client is given, if it is refused.
async fn refusal(address: SocketAddr, credentials: Option<(&str, &str)>) -> Option<String> {
    let mut options = options(address);
    if let Some((user, password)) = credentials {
        options.set_credentials(user, password);
    }
    let client = Watcher::connect_with(options).await;
    let log = client.log.borrow();
    log.refused.clone()
}

#[tokio::test]
async fn only_the_one_user_gets_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "hunter2\n").unwrap();
    let settings = Settings { username: Some("kasa".into()), password_file: Some(file), ..settings() };
    let broker = Broker::start(settings).await.unwrap();
    for _ in 0..10 {
        for wrong in [None, Some(("kasa", "hunter")), Some(("kasa", "")), Some(("me", "hunter2"))] {
            let refused = refusal(broker.address(), wrong).await;
            assert!(
                refused.as_ref().is_some_and(|error| error.contains("refused")),
                "{wrong:?}: {refused:?}"
            );
        }
        // And nobody is locked out by others' attempts.
        assert_eq!(refusal(broker.address(), Some(("kasa", "hunter2"))).await, None);
    }
    broker.stop().await;
}

#[tokio::test]
async fn retained_messages_survive_a_restart_where_a_folder_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { state_dir: Some(folder.path().join("state")), ..settings() };
    for round in 0..5 {
        let broker = Broker::start(settings.clone()).await.unwrap();
        let held = Watcher::retained(broker.address(), "kept/+").await;
        assert_eq!(held.len(), round, "{held:?}");
        let client = Watcher::connect(broker.address()).await;
        client.publish(&format!("kept/{round}"), "x", true).await;
        // Right after the acknowledgement.
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("below the folder")).unwrap();
        fs::write(path, content).unwrap();
    };
    make("file", "");
    make("not-a-folder/retained", "");
    make("from-the-future/.storage_version", "999");
    let in_use = Settings { state_dir: Some(folder.path().join("in-use")), ..settings() };
    let other = Broker::start(in_use).await.unwrap();
    for unusable in ["file", "file/below", "not-a-folder", "from-the-future", "in-use"] {
        let settings = Settings { state_dir: Some(folder.path().join(unusable)), ..settings() };
        let broker = Broker::start(settings).await.unwrap_or_else(|error| panic!("{unusable}: {error}"));
        Watcher::connect(broker.address()).await.publish("x", "y", true).await;
        assert_eq!(Watcher::retained(broker.address(), "#").await.len(), 1, "{unusable}");
        broker.stop().await;
    }
    other.stop().await;
}

#[tokio::test]
async fn a_spoilt_message_in_the_folder_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { state_dir: Some(folder.path().into()), ..settings() };
    let broker = Broker::start(settings.clone()).await.unwrap();
    let client = Watcher::connect(broker.address()).await;
    for topic in ["kept/1", "kept/2", "kept/3"] {
        client.publish(topic, "x", true).await;
    }
    broker.stop().await;
    let files: Vec<_> =
        fs::read_dir(folder.path().join("retained")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 3);
    // As a full disk or a power cut leaves it.
    fs::write(&files[0], "{").unwrap();
    let broker = Broker::start(settings).await.unwrap();
    assert_eq!(Watcher::retained(broker.address(), "kept/+").await.len(), 2);
    broker.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_explained() {
    let broker = Broker::start(settings()).await.unwrap();
    let error = Broker::start(Settings { listen: broker.address(), ..settings() }).await.unwrap_err();
    assert!(matches!(error, Error::PortTaken(_)), "{error}");
    for word in [&broker.address().to_string(), "broker.listen", "KASA2MQTT_BROKER__LISTEN", "mqtt.url"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn nobody_is_let_in_without_a_password_beyond_loopback() {
    let settings = Settings { listen: ([0, 0, 0, 0], 0).into(), ..Settings::default() };
    let error = Broker::start(settings).await.unwrap_err();
    assert!(
        matches!(error, Error::Anonymous(_)) && error.to_string().contains("broker.password_file"),
        "{error}"
    );
}

#[tokio::test]
async fn it_stops_at_once_with_clients_connected_and_leaves_nothing_behind() {
    let broker = Broker::start(settings()).await.unwrap();
    let address = broker.address();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Watcher::connect(address).await);
    }
    // And one that has stopped reading while the broker has something for it.
    let mut deaf = tokio::net::TcpStream::connect(address).await.unwrap();
    deaf.write_all(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x1e\x00\x04deaf\x82\x08\x00\x01\x00\x03big\x00")
        .await
        .unwrap();
    let mut answer = [0; 9];
    soon("CONNACK and SUBACK", deaf.read_exact(&mut answer)).await.unwrap();
    for _ in 0..4 {
        clients[0].publish("big", &"x".repeat(4 << 20), false).await;
    }
    let began = Instant::now();
    broker.stop().await;
    let took = began.elapsed();
    println!("stopped with 21 clients in {took:?}");
    // Far from a measurement: it only tells a stop at once from one that waits for the clients.
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(std::net::TcpListener::bind(address).is_ok(), "the port is free");
    assert!(!Path::new("mqtt_storage").exists());
}

#[tokio::test]
async fn the_retained_messages_of_ten_thousand_plugs_reach_every_subscriber() {
    const MESSAGES: usize = 40_000;
    let broker = Broker::start(settings()).await.unwrap();
    let client = Watcher::connect(broker.address()).await;
    for number in 0..MESSAGES {
        let topic = format!("fleet/{number}");
        client.client.publish(topic, QoS::AtLeastOnce, true, "x".repeat(300)).await.unwrap();
    }
    client.wait("the PUBACKs", |log| log.acknowledged >= MESSAGES).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let late = Watcher::connect(broker.address()).await;
        late.client.subscribe("fleet/#", qos).await.unwrap();
        late.wait("all of them", |log| log.heard.len() >= MESSAGES).await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn half_a_user_is_not_everybody() {
    let word = |word: &str| Some(word.to_string());
    let everywhere: SocketAddr = ([0, 0, 0, 0], 0).into();
    for (username, password) in
        [(word("kasa"), None), (None, word("x")), (word(""), word("x")), (word("kasa"), word(""))]
    {
        for listen in [FREE, everywhere] {
            let password = password.clone().map(Into::into);
            let settings = Settings { listen, username: username.clone(), password, ..settings() };
            let error = Broker::start(settings).await.unwrap_err();
            assert!(matches!(error, Error::HalfUser), "{username:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_dropped_broker_leaves_the_port() {
    let broker = Broker::start(settings()).await.unwrap();
    let address = broker.address();
    let client = Watcher::connect(address).await;
    drop(broker);
    client.wait("the end of the connection", |log| log.ended).await;
    soon("the port", async {
        while std::net::TcpListener::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn it_does_not_end_unasked() {
    let mut broker = Broker::start(settings()).await.unwrap();
    let client = Watcher::connect(broker.address()).await;
    tokio::select! {
        () = broker.ended() => panic!("it ended"),
        () = client.publish("x", "y", true) => {}
    }
    broker.stop().await;
}
