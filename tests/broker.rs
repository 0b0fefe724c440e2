//! What users notice of a broker, against ours and against mosquitto alike, so that a new version of ours is gated.
#![cfg(feature = "embedded-broker")]

mod support;

#[path = "broker/ours.rs"]
mod ours;
#[path = "broker/v5.rs"]
mod v5;

use std::collections::BTreeMap;

use rumqttc::QoS;
use support::broker::AnyBroker;
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
    for number in 0..1000 {
        let client = Watcher::connect(broker.address()).await;
        client.client.publish("bye", QoS::AtMostOnce, false, number.to_string()).await.unwrap();
        client.client.disconnect().await.unwrap();
        client.wait("the end", |log| log.ended).await;
    }
    witness.wait("1000 messages", |log| log.heard.len() >= 1000).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: tests/run"]
async fn mosquitto_remembers_what_it_was_told_to_keep() {
    let folder = tempfile::tempdir().unwrap();
    let options = format!(
        "allow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n",
        folder.path().display()
    );
    let mut mosquitto = Mosquitto::start_with(&options).await;
    Watcher::connect(mosquitto.address()).await.publish("kept", "x", true).await;
    mosquitto.terminate().await;
    mosquitto.restart().await;
    assert_eq!(Watcher::retained(mosquitto.address(), "kept").await.len(), 1);
    mosquitto.kill();
}
