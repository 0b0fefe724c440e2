//! A client of the broker that remembers everything it hears.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, NetworkOptions, Packet, QoS};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::rules::Rules;
use super::soon;

/// A message as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub topic: String,
    pub payload: String,
    pub retain: bool,
    pub at: std::time::Instant,
}

/// Everything heard so far, and how far the connection is.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub heard: Vec<Heard>,
    /// What Home Assistant would not have liked of it.
    pub violations: Vec<String>,
    pub subscriptions: usize,
    pub acknowledged: usize,
    pub refused: Option<String>,
    pub ended: bool,
}

/// The client. Dropping it closes the connection without a word.
pub struct Watcher {
    pub client: AsyncClient,
    pub log: watch::Receiver<Log>,
    poller: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.poller.abort();
        let violations = &self.log.borrow().violations;
        assert!(
            violations.is_empty() || std::thread::panicking(),
            "Home Assistant would not have liked: {violations:#?}"
        );
    }
}

/// An id that no other client of this test has.
pub fn unique(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub fn options(broker: SocketAddr) -> MqttOptions {
    let mut options = MqttOptions::new(unique("watcher"), broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(30)).set_inflight(100).set_max_packet_size(16 << 20, 16 << 20);
    options
}

impl Watcher {
    pub async fn connect(broker: SocketAddr) -> Watcher {
        Watcher::connect_with(options(broker)).await
    }

    pub async fn connect_with(options: MqttOptions) -> Watcher {
        let watcher = Watcher::begin(options);
        watcher.wait("a connection", |log| log.subscriptions >= 1 || log.ended).await;
        watcher
    }

    /// A client that leaves a will.
    pub async fn with_will(broker: SocketAddr, topic: &str, keep_alive: u64) -> Watcher {
        let mut options = options(broker);
        options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, true));
        options.set_keep_alive(Duration::from_secs(keep_alive));
        Watcher::connect_with(options).await
    }

    fn begin(options: MqttOptions) -> Watcher {
        let (client, mut event_loop) = AsyncClient::new(options, 200);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        event_loop.set_network_options(network);
        let (sender, log) = watch::channel(Log::default());
        let mut rules = Rules::default();
        // Polls and does nothing else: the event loop must never be cancelled while it is needed.
        let poller = tokio::spawn(async move {
            loop {
                let event = event_loop.poll().await;
                let failed = event.is_err();
                sender.send_modify(|log| match event {
                    // The connection counts as the first subscription.
                    Ok(Event::Incoming(Packet::ConnAck(_) | Packet::SubAck(_))) => log.subscriptions += 1,
                    Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => log.acknowledged += 1,
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let payload: String = String::from_utf8_lossy(&publish.payload).into();
                        if let Err(problem) = rules.hear(&publish.topic, &payload) {
                            log.violations.push(format!("{}: {problem}", publish.topic));
                        }
                        let at = std::time::Instant::now();
                        log.heard.push(Heard { topic: publish.topic, payload, retain: publish.retain, at });
                    }
                    Ok(_) => {}
                    Err(error) => {
                        log.refused = Some(error.to_string());
                        log.ended = true;
                    }
                });
                if failed {
                    return;
                }
            }
        });
        Watcher { client, log, poller }
    }

    pub async fn subscribe(&self, filter: &str) {
        let before = self.log.borrow().subscriptions;
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        self.wait("a SUBACK", |log| log.subscriptions > before || log.ended).await;
    }

    /// Publishes with QoS 1 and waits for the acknowledgement.
    pub async fn publish(&self, topic: &str, payload: &str, retain: bool) {
        let before = self.log.borrow().acknowledged;
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).await.unwrap();
        self.wait("a PUBACK", |log| log.acknowledged > before || log.ended).await;
    }

    /// Waits until the log is as it should be.
    pub async fn wait(&self, what: &str, mut is_so: impl FnMut(&Log) -> bool) {
        let mut log = self.log.clone();
        soon(what, log.wait_for(|log| is_so(log))).await.expect("the watcher polls");
    }

    /// Waits for a message that fits, whether it came before or comes now.
    pub async fn hear(&self, topic: &str, mut fits: impl FnMut(&str) -> bool) -> Heard {
        self.hear_after(0, topic, &mut fits).await
    }

    /// The same among what is heard after the first `from` messages.
    pub async fn hear_after(&self, from: usize, topic: &str, mut fits: impl FnMut(&str) -> bool) -> Heard {
        let mut log = self.log.clone();
        let mut found = None;
        let search = log.wait_for(|log| {
            found =
                log.heard[from..].iter().find(|heard| heard.topic == topic && fits(&heard.payload)).cloned();
            found.is_some()
        });
        if tokio::time::timeout(super::DEADLINE, search).await.is_err() {
            let heard = self.on(topic);
            panic!(
                "waited in vain on {topic}; heard there, at last: {:?}",
                &heard[heard.len().saturating_sub(3)..]
            );
        }
        found.expect("it was found")
    }

    /// How many messages were heard.
    pub fn mark(&self) -> usize {
        self.log.borrow().heard.len()
    }

    /// Payloads heard on one topic.
    pub fn on(&self, topic: &str) -> Vec<String> {
        let log = self.log.borrow();
        log.heard.iter().filter(|heard| heard.topic == topic).map(|heard| heard.payload.clone()).collect()
    }

    /// What is retained under `filter` now: everything that the broker sends before a sentinel.
    pub async fn retained(broker: SocketAddr, filter: &str) -> BTreeMap<String, String> {
        let watcher = Watcher::connect(broker).await;
        watcher.subscribe(filter).await;
        let sentinel = unique("sentinel");
        watcher.subscribe(&sentinel).await;
        watcher.publish(&sentinel, "end", false).await;
        watcher.hear(&sentinel, |_| true).await;
        let log = watcher.log.borrow();
        let retained = log.heard.iter().filter(|heard| heard.retain);
        retained.map(|heard| (heard.topic.clone(), heard.payload.clone())).collect()
    }
}
