//! What users notice of a broker, against ours and against mosquitto alike, so that a new version of ours is gated.
#![cfg(feature = "embedded-broker")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kasa2mqtt::broker::settings::Settings;
use kasa2mqtt::broker::{Broker, Error};
use rumqttc::{QoS, v5};
use support::broker::AnyBroker;
use support::house::FREE;
use support::mosquitto::Mosquitto;
use support::soon;
use support::watcher::{Watcher, options, unique};

against_both_brokers! {
    retained_messages_are_kept_replaced_and_cleared
    five_hundred_retained_messages_reach_a_wildcard
    retained_messages_come_again_with_each_subscription
    two_thousand_messages_arrive_in_order_both_ways
    exactly_once_is_once
    a_will_is_spoken_for_the_dead_and_not_for_those_who_left
    a_client_that_falls_silent_is_dead
    one_id_is_one_client
    large_payloads_arrive
    two_hundred_clients_are_served
    a_wildcard_is_no_topic_to_publish_to
    messages_before_an_instant_goodbye_arrive
    both_versions_of_the_protocol_share_the_port
}

async fn retained(broker: &AnyBroker, filter: &str) -> BTreeMap<String, String> {
    Watcher::retained(broker.address(), filter).await
}

async fn retained_messages_are_kept_replaced_and_cleared(broker: AnyBroker) {
    let client = Watcher::connect(broker.address()).await;
    client.publish("a/1", "one", true).await;
    client.publish("a/2", "two", true).await;
    client.publish("a/3", "passing", false).await;
    client.publish("a/1", "eins", true).await;
    client.publish("b/1", "other", true).await;
    let expected = BTreeMap::from([("a/1".to_string(), "eins".to_string()), ("a/2".into(), "two".into())]);
    assert_eq!(retained(&broker, "a/+").await, expected);
    assert_eq!(retained(&broker, "a/#").await, expected);
    client.publish("a/2", "", true).await;
    assert_eq!(retained(&broker, "a/#").await.len(), 1);
    // A live message is not called retained.
    client.subscribe("c").await;
    client.publish("c", "live", true).await;
    assert!(!client.hear("c", |_| true).await.retain);
}

async fn five_hundred_retained_messages_reach_a_wildcard(broker: AnyBroker) {
    let client = Watcher::connect(broker.address()).await;
    for number in 0..500 {
        client.client.publish(format!("many/{number}"), QoS::AtLeastOnce, true, "x").await.unwrap();
    }
    client.wait("500 PUBACKs", |log| log.acknowledged >= 500).await;
    assert_eq!(retained(&broker, "many/+").await.len(), 500);
}

async fn retained_messages_come_again_with_each_subscription(broker: AnyBroker) {
    let client = Watcher::connect(broker.address()).await;
    client.publish("again", "x", true).await;
    for times in 1..=3 {
        client.subscribe("again").await;
        client.wait("it again", |log| log.heard.iter().filter(|heard| heard.retain).count() >= times).await;
    }
}

async fn two_thousand_messages_arrive_in_order_both_ways(broker: AnyBroker) {
    let client = Watcher::connect(broker.address()).await;
    client.subscribe("order").await;
    for number in 0..2000 {
        client.client.publish("order", QoS::AtLeastOnce, false, number.to_string()).await.unwrap();
    }
    client.wait("2000 messages", |log| log.heard.len() >= 2000 && log.acknowledged >= 2000).await;
    assert_eq!(client.on("order"), (0..2000).map(|number| number.to_string()).collect::<Vec<_>>());
}

async fn exactly_once_is_once(broker: AnyBroker) {
    let client = Watcher::connect(broker.address()).await;
    client.client.subscribe("once", QoS::ExactlyOnce).await.unwrap();
    client.wait("a SUBACK", |log| log.subscriptions >= 2).await;
    for number in 0..50 {
        // One after the other: mosquitto has room for twenty at a time, and forgets the others.
        client.client.publish("once", QoS::ExactlyOnce, false, number.to_string()).await.unwrap();
        client.wait("it", |log| log.heard.len() > number && log.acknowledged > number).await;
    }
    assert_eq!(client.on("once").len(), 50);
}

async fn a_will_is_spoken_for_the_dead_and_not_for_those_who_left(broker: AnyBroker) {
    let witness = Watcher::connect(broker.address()).await;
    witness.subscribe("will/+").await;
    drop(Watcher::with_will(broker.address(), "will/dead", 30).await);
    witness.hear("will/dead", |payload| payload == "gone").await;
    assert_eq!(retained(&broker, "will/+").await["will/dead"], "gone", "it is retained");

    let polite = Watcher::with_will(broker.address(), "will/polite", 30).await;
    polite.client.disconnect().await.unwrap();
    polite.wait("the end", |log| log.ended).await;
    witness.publish("will/end", "", false).await;
    witness.hear("will/end", |_| true).await;
    assert_eq!(witness.on("will/polite"), Vec::<String>::new());
}

async fn a_client_that_falls_silent_is_dead(broker: AnyBroker) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let witness = Watcher::connect(broker.address()).await;
    witness.subscribe("silent").await;
    // CONNECT, MQTT 3.1.1: clean session, will with QoS 0 on "silent", keep-alive of 1 s, id "mute".
    let connect = b"\x10\x1c\x00\x04MQTT\x04\x06\x00\x01\x00\x04mute\x00\x06silent\x00\x02no";
    let mut stream = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
    stream.write_all(connect).await.unwrap();
    let mut answer = [0; 4];
    soon("a CONNACK", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    witness.hear("silent", |payload| payload == "no").await;
}

async fn one_id_is_one_client(broker: AnyBroker) {
    let mut options = options(broker.address());
    options.set_client_id(unique("twin"));
    let first = Watcher::connect_with(options.clone()).await;
    let second = Watcher::connect_with(options).await;
    first.wait("to be thrown out", |log| log.ended).await;
    second.publish("twin", "x", false).await;
    assert!(!second.log.borrow().ended);
}

async fn large_payloads_arrive(broker: AnyBroker) {
    let client = Watcher::connect(broker.address()).await;
    client.subscribe("large").await;
    for size in [64 << 10, 1 << 20, 4 << 20] {
        client.publish("large", &"x".repeat(size), false).await;
        client.hear("large", |payload| payload.len() == size).await;
    }
}

async fn two_hundred_clients_are_served(broker: AnyBroker) {
    let mut clients = Vec::new();
    for _ in 0..200 {
        let client = Watcher::connect(broker.address()).await;
        client.subscribe("all").await;
        clients.push(client);
    }
    clients[0].publish("all", "hello", false).await;
    for client in &clients {
        client.hear("all", |payload| payload == "hello").await;
    }
}

async fn a_wildcard_is_no_topic_to_publish_to(broker: AnyBroker) {
    let witness = Watcher::connect(broker.address()).await;
    witness.subscribe("wild/#").await;
    let client = Watcher::connect(broker.address()).await;
    // The client crate refuses to send it, so the bytes are written by hand: QoS 0 to "wild/#".
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
    stream
        .write_all(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x1e\x00\x04wild\x30\x09\x00\x06wild/#x")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = soon("the broker to close", stream.read_to_end(&mut answer)).await;
    client.publish("wild/end", "", false).await;
    witness.hear("wild/end", |_| true).await;
    assert_eq!(witness.mark(), 1, "nothing else was delivered");
}

async fn messages_before_an_instant_goodbye_arrive(broker: AnyBroker) {
    let witness = Watcher::connect(broker.address()).await;
    witness.subscribe("bye").await;
    for number in 0..100 {
        let client = Watcher::connect(broker.address()).await;
        client.client.publish("bye", QoS::AtMostOnce, false, number.to_string()).await.unwrap();
        client.client.disconnect().await.unwrap();
        client.wait("the end", |log| log.ended).await;
    }
    witness.wait("100 messages", |log| log.heard.len() >= 100).await;
}

async fn both_versions_of_the_protocol_share_the_port(broker: AnyBroker) {
    let old = Watcher::connect(broker.address()).await;
    old.subscribe("versions/+").await;
    old.publish("versions/retained", "from 3.1.1", true).await;
    let address = broker.address();
    let options = v5::MqttOptions::new(unique("v5"), address.ip().to_string(), address.port());
    let (client, mut events) = v5::AsyncClient::new(options, 10);
    client.subscribe("versions/retained", v5::mqttbytes::QoS::AtLeastOnce).await.unwrap();
    let properties =
        v5::mqttbytes::v5::PublishProperties { message_expiry_interval: Some(60), ..Default::default() };
    let at_least_once = v5::mqttbytes::QoS::AtLeastOnce;
    client.publish_with_properties("versions/5", at_least_once, false, "from 5", properties).await.unwrap();
    soon("the retained message", async {
        loop {
            let event = events.poll().await.unwrap();
            if let v5::Event::Incoming(v5::mqttbytes::v5::Packet::Publish(publish)) = event {
                assert_eq!((&publish.payload[..], publish.retain), (&b"from 3.1.1"[..], true));
                return;
            }
        }
    })
    .await;
    old.hear("versions/5", |payload| payload == "from 5").await;
}

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
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let settings = Settings { state_dir: Some(file.join("below")), ..settings() };
    let broker = Broker::start(settings).await.unwrap();
    Watcher::connect(broker.address()).await.publish("x", "y", true).await;
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
    let began = Instant::now();
    broker.stop().await;
    let took = began.elapsed();
    println!("stopped with 20 clients in {took:?}");
    // Far from a measurement: it only tells a stop at once from one that waits for the clients.
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(std::net::TcpListener::bind(address).is_ok(), "the port is free");
    assert!(!std::path::Path::new("mqtt_storage").exists());
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn a_wrong_password_is_refused_by_mosquitto_as_by_ours() {
    let mosquitto = Mosquitto::start_with("allow_anonymous false\n").await;
    assert!(refusal(mosquitto.address(), Some(("a", "b"))).await.is_some());
}

#[tokio::test]
async fn ten_thousand_plugs_retained_messages_reach_every_subscriber() {
    let broker = Broker::start(settings()).await.unwrap();
    let client = Watcher::connect(broker.address()).await;
    let began = Instant::now();
    for number in 0..40_000 {
        client.client.publish(format!("fleet/{number}"), QoS::AtLeastOnce, true, "x".repeat(300)).await.unwrap();
    }
    client.wait("40000 PUBACKs", |log| log.acknowledged >= 40_000).await;
    println!("published in {:?}", began.elapsed());
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let began = Instant::now();
        let late = Watcher::connect(broker.address()).await;
        late.client.subscribe("fleet/#", qos).await.unwrap();
        let done = tokio::time::timeout(Duration::from_secs(20), late.wait("all", |log| log.heard.len() >= 40_000)).await;
        println!("{qos:?}: {} in {:?} {}", late.mark(), began.elapsed(), done.is_ok());
    }
    broker.stop().await;
}
