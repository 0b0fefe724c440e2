//! MQTT 5, which Home Assistant speaks, beside 3.1.1, which the bridge speaks.

use std::net::SocketAddr;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, PublishProperties, RetainForwardRule};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::mpsc;

use crate::against_both_brokers;
use crate::support::broker::AnyBroker;
use crate::support::soon;
use crate::support::watcher::{Watcher, unique};

against_both_brokers! {
    both_versions_of_the_protocol_share_the_port
    a_subscriber_need_not_be_sent_what_is_retained
    a_retained_message_expires
    a_client_need_not_hear_itself
}

/// A client with everything it hears, in order.
struct Client {
    client: AsyncClient,
    heard: mpsc::UnboundedReceiver<Publish>,
}

impl Client {
    fn new(address: SocketAddr) -> Client {
        let mut options = MqttOptions::new(unique("v5"), address.ip().to_string(), address.port());
        // The default reserves 14 MB.
        options.set_outgoing_inflight_upper_limit(20);
        let (client, mut events) = AsyncClient::new(options, 10);
        let (sender, heard) = mpsc::unbounded_channel();
        // Polls until the test is over; a poll that is cancelled loses messages.
        tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let _ = sender.send(publish);
                }
            }
        });
        Client { client, heard }
    }

    async fn subscribe(&self, topic: &str, change: impl FnOnce(&mut Filter)) {
        let mut filter = Filter::new(topic, QoS::AtLeastOnce);
        change(&mut filter);
        self.client.subscribe_many([filter]).await.unwrap();
    }

    async fn publish(&self, topic: &str, retain: bool, payload: &str, properties: PublishProperties) {
        let payload = payload.to_string();
        let sent = self.client.publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties);
        sent.await.unwrap();
    }

    async fn next(&mut self) -> Publish {
        soon("a message", self.heard.recv()).await.expect("the connection holds")
    }
}

fn expiry(seconds: u32) -> PublishProperties {
    PublishProperties { message_expiry_interval: Some(seconds), ..PublishProperties::default() }
}

async fn both_versions_of_the_protocol_share_the_port(broker: AnyBroker) {
    let old = Watcher::connect(broker.address()).await;
    old.subscribe("versions/+").await;
    old.publish("versions/3", "from 3.1.1", true).await;
    let mut new = Client::new(broker.address());
    new.subscribe("versions/3", |_| ()).await;
    let publish = new.next().await;
    assert_eq!((&publish.payload[..], publish.retain), (&b"from 3.1.1"[..], true));
    new.publish("versions/5", false, "from 5", expiry(60)).await;
    old.hear("versions/5", |payload| payload == "from 5").await;
}

async fn a_subscriber_need_not_be_sent_what_is_retained(broker: AnyBroker) {
    let old = Watcher::connect(broker.address()).await;
    old.publish("held", "earlier", true).await;
    let mut new = Client::new(broker.address());
    new.subscribe("held", |filter| filter.retain_forward_rule = RetainForwardRule::Never).await;
    // From the subscriber itself, so that it is sent after the subscription.
    new.publish("held", true, "now", PublishProperties::default()).await;
    assert_eq!(&new.next().await.payload[..], b"now");
}

async fn a_retained_message_expires(broker: AnyBroker) {
    let mut new = Client::new(broker.address());
    new.subscribe("fresh", |_| ()).await;
    new.publish("fresh", true, "x", expiry(3600)).await;
    let publish = new.next().await;
    let left = publish.properties.and_then(|properties| properties.message_expiry_interval);
    assert!(left.is_some_and(|seconds| (3500..=3600).contains(&seconds)), "{left:?}");

    new.publish("fresh", true, "x", expiry(1)).await;
    new.next().await;
    soon("its end", async { while !Watcher::retained(broker.address(), "fresh").await.is_empty() {} }).await;
}

async fn a_client_need_not_hear_itself(broker: AnyBroker) {
    let mut new = Client::new(broker.address());
    new.subscribe("echo", |filter| filter.nolocal = true).await;
    new.publish("echo", false, "mine", PublishProperties::default()).await;
    // The broker answers this one after it has dealt with the other.
    new.subscribe("end", |_| ()).await;
    new.publish("end", false, "end", PublishProperties::default()).await;
    assert_eq!(&new.next().await.payload[..], b"end");
}
