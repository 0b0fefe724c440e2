//! One session, from the connection to its end: subscriptions, the window, the farewell.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rumqttc::{ClientError, Event as Rumqttc, Outgoing, Packet, QoS, SubscribeFilter, SubscribeReasonCode};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::bridge::message::{Message, Publish};
use crate::mqtt::backoff::SHORT_SESSION;
use crate::mqtt::connection::{Connection, End};
use crate::mqtt::event::Event;
use crate::mqtt::failure::Failure;
use crate::mqtt::settings::{BrokerUrl, Settings};
use crate::mqtt::window::{Sent, Window, is_answer, size};

/// Time for the last messages of a clean end.
const FAREWELL: Duration = Duration::from_millis(600);

/// Why there is no session any more.
pub(super) enum Ended {
    /// The outbox closed, and everything in it was said.
    Closed,
    Failed(Failure),
}

/// How a session opens: it listens to what was left, until all of it has come, and then to what is asked.
///
/// A broker sends what it has retained before it confirms that we no longer listen. One that does not gives us some of
/// it late, or never: then some stale topic stays until the next start.
pub(super) struct Opening<'a> {
    pub filters: &'a [String],
    pub memory_filters: &'a [String],
    /// When the broker accepted us.
    pub accepted_at: Option<Instant>,
    /// How many of `memory_filters` we have stopped to listen to.
    pub unsubscribed: usize,
}

impl Opening<'_> {
    /// Whether we listen to what was left.
    pub fn remembers(&self) -> bool {
        self.accepted_at.is_some() && self.unsubscribed < self.memory_filters.len()
    }
}

/// A session, and what is on its way in it.
pub(super) struct Session<'a> {
    pub connection: Connection,
    pub opening: Opening<'a>,
    pub window: Window,
    pub unanswered: VecDeque<Publish>,
    /// The client takes nothing any more; its last words are still to come.
    pub ending: bool,
    /// Of our subscriptions.
    pub qos: QoS,
    /// The sessions before ended as soon as they began: not a word of this one before it has lasted.
    pub is_quiet: bool,
    /// The broker ends sessions in which a message of this size or larger is sent.
    pub limit: Option<usize>,
    pub events: &'a mpsc::Sender<Event>,
    pub url: &'a BrokerUrl,
}

impl Session<'_> {
    pub async fn live(
        &mut self,
        settings: &Settings,
        outbox: &mut mpsc::Receiver<Publish>,
        opened_at: &mut Option<Instant>,
    ) -> Ended {
        // The client pings at every keep-alive, so silence for longer means that it hangs; and so does a window that
        // the broker does not empty while it answers pings. Either way a new connection is the cure.
        let patience = settings.patience().mul_f32(2.5);
        loop {
            let open = opened_at.is_some();
            tokio::select! {
                event = timeout(patience, self.connection.events.recv()) => {
                    let Ok(Some((received, polled))) = event else {
                        return Ended::Failed(Failure::passing("the client hangs"));
                    };
                    match polled {
                        Err(end) => {
                            if let End::StoodStill(_) = end {
                                let _ = self.events.send(Event::StoodStill).await;
                            }
                            return Ended::Failed(end.into());
                        }
                        Ok(event) => match self.take(event, received).await {
                            Ok(true) => *opened_at = Some(Instant::now()),
                            Ok(false) => {}
                            Err(ended) => return ended,
                        },
                    }
                    self.lasts(*opened_at);
                    if self.window.is_stuck(patience) {
                        return Ended::Failed(Failure::passing("the broker does not acknowledge"));
                    }
                }
                publish = outbox.recv(), if !open || self.has_room() => match publish {
                    Some(publish) if open => self.say(publish).await,
                    // Meant for the session before.
                    Some(publish) => self.unanswered.extend(Some(publish).filter(is_answer)),
                    None if open => return self.close().await,
                    None => return Ended::Closed,
                },
            }
            while opened_at.is_some()
                && self.has_room()
                && let Some(publish) = self.unanswered.pop_front()
            {
                self.say(publish).await;
            }
        }
    }

    /// Follows one event of the client. True when it opened the session.
    async fn take(&mut self, event: Rumqttc, received: Instant) -> Result<bool, Ended> {
        if let Rumqttc::Incoming(Packet::ConnAck(_)) = event {
            self.opening.accepted_at = Some(Instant::now());
        }
        let remembers = self.opening.remembers();
        let Opening { filters, memory_filters, .. } = self.opening;
        let listened = if remembers { memory_filters } else { filters };
        let news = match event {
            Rumqttc::Incoming(Packet::ConnAck(_)) => return self.subscribe(listened),
            Rumqttc::Incoming(Packet::SubAck(answer)) => {
                for (filter, code) in listened.iter().zip(&answer.return_codes) {
                    if *code == SubscribeReasonCode::Failure {
                        warn!(filter, "the broker refuses our subscription: check its access list");
                    }
                }
                if remembers {
                    return self.unsubscribe(memory_filters);
                }
                if !self.is_quiet {
                    info!(broker = %self.url, "connected to the broker");
                }
                Event::Opened
            }
            Rumqttc::Incoming(Packet::UnsubAck(_)) => {
                self.opening.unsubscribed += 1;
                return match self.opening.unsubscribed == memory_filters.len() {
                    true => self.subscribe(filters),
                    false => Ok(false),
                };
            }
            Rumqttc::Outgoing(Outgoing::Publish(id)) => {
                self.window.on_the_wire(id);
                return Ok(false);
            }
            Rumqttc::Incoming(Packet::PubAck(answer)) => {
                match self.window.acknowledged(answer.pkid, received) {
                    Some(ticket) => Event::Acknowledged(ticket),
                    None => return Ok(false),
                }
            }
            Rumqttc::Incoming(Packet::Publish(publish)) => Event::Message(Message {
                topic: publish.topic,
                payload: publish.payload.into(),
                retain: publish.retain,
                received,
            }),
            _ => return Ok(false),
        };
        let opened = news == Event::Opened;
        // The core waits for nobody, so waiting for it is safe.
        self.events.send(news).await.map_err(|_| Ended::Closed)?;
        Ok(opened)
    }

    fn subscribe(&self, filters: &[String]) -> Result<bool, Ended> {
        let filters = filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), self.qos));
        let asked = self.connection.client.try_subscribe_many(filters);
        asked.map(|()| false).map_err(|error| Ended::Failed(Failure::passing(error.to_string())))
    }

    fn unsubscribe(&self, filters: &[String]) -> Result<bool, Ended> {
        let asked = filters.iter().try_for_each(|filter| self.connection.client.try_unsubscribe(filter));
        asked.map(|()| false).map_err(|error| Ended::Failed(Failure::passing(error.to_string())))
    }

    fn has_room(&self) -> bool {
        !self.ending && self.window.has_room()
    }

    /// A session of which nothing was said since others like it had ended soon.
    fn lasts(&mut self, opened_at: Option<Instant>) {
        if self.is_quiet && opened_at.is_some_and(|opened_at| opened_at.elapsed() >= SHORT_SESSION) {
            self.is_quiet = false;
            info!(broker = %self.url, "connected to the broker, and the session lasts");
        }
    }

    async fn say(&mut self, publish: Publish) {
        let bytes = size(&publish);
        if self.limit.is_some_and(|limit| bytes >= limit) {
            debug!(topic = publish.topic, bytes, "not sent: too large for this broker");
            // As good as said: to wait for it would be to wait for ever.
            let _ = self.events.send(Event::Acknowledged(publish.ticket)).await;
            return;
        }
        let sent = Sent::of(&publish);
        let Publish { topic, payload, retain, .. } = publish;
        match self.connection.client.try_publish(topic, QoS::AtLeastOnce, retain, payload) {
            Ok(()) => self.window.requested(sent, Instant::now()),
            // The event loop has ended, and a new session says everything again.
            Err(ClientError::TryRequest(_) | ClientError::Request(_)) => {
                self.ending = true;
                self.unanswered.extend(sent.answer);
            }
        }
    }

    /// Waits for the broker to take everything, then disconnects, so that the will stays unspoken.
    async fn close(&mut self) -> Ended {
        let farewell = async {
            while !self.window.is_empty() && !self.ending {
                match self.connection.events.recv().await {
                    Some((received, Ok(event))) => {
                        let _ = self.take(event, received).await;
                    }
                    _ => return,
                }
            }
            if self.connection.client.try_disconnect().is_ok() {
                while self.connection.events.recv().await.is_some() {}
            }
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            warn!(broker = %self.url, "the broker did not take our last messages in time");
        }
        Ended::Closed
    }
}
