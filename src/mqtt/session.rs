//! Sessions with the broker, one after the other for ever.
//!
//! ```text
//!            CONNACK            SUBACK
//! connecting ───────► subscribing ────► open ──outbox closed──► closing ──► end
//!     ▲                   │              │
//!     └──── backoff ◄─────┴── failure ◄──┘
//! ```
//!
//! Several brokers are tried in turn: whatever ends a session or a try, the next one is of the next broker.
//!
//! Nothing is relied upon across connections: a new session is reported to the core, which says everything again.
//! Only answers to commands, which the core does not keep, are carried over until the broker has acknowledged them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rumqttc::{ClientError, Event as Rumqttc, Outgoing, Packet, QoS, SubscribeFilter, SubscribeReasonCode};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::bridge::message::{Message, Publish};
use crate::bridge::retained::Ticket;

use super::backoff::Backoff;
use super::connection::{Connection, Will};
use super::failure::Failure;
use super::settings::{BrokerUrl, Settings};
use super::window::{Sent, Window, is_answer};

/// Time for the last messages of a clean end.
const FAREWELL: Duration = Duration::from_millis(600);

/// So many sessions may end while we listen to what was left; then it is done without.
const REMEMBERED_IN_VAIN: u32 = 2;

/// What happens on the connection, for the core.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The broker accepted a new session and our subscriptions.
    Opened,
    /// The session is gone.
    Lost,
    /// A message arrived.
    Message(Message),
    /// The broker has taken a message.
    Acknowledged(Ticket),
}

/// Who we are to the broker.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Unique among all clients of the broker.
    pub client_id: String,
    /// What it says when we vanish.
    pub will: Option<Will>,
    /// What we listen to.
    pub filters: Vec<String>,
    /// What we listen to for a moment, before the first session is open: what an earlier bridge has left.
    pub memory_filters: Vec<String>,
}

/// Keeps a session with one of `brokers` open until `outbox` closes; then says what is left in it and disconnects. Returns early only when
/// nobody listens to `events` any more.
pub async fn run(
    settings: Settings,
    brokers: Vec<BrokerUrl>,
    identity: Identity,
    mut outbox: mpsc::Receiver<Publish>,
    events: mpsc::Sender<Event>,
) {
    let mut backoff = Backoff::new(settings.client_id.is_some(), brokers.len());
    let mut unanswered = VecDeque::new();
    let mut said = vec![None; brokers.len()];
    let mut memory_filters = identity.memory_filters.as_slice();
    let mut in_vain = 0;
    for attempt in 0.. {
        let number = attempt % brokers.len().max(1);
        let Some(url) = brokers.get(number) else { return };
        let began = Instant::now();
        let connection = Connection::begin(
            &settings,
            url,
            &identity.client_id,
            identity.will.as_ref(),
            attempt / brokers.len(),
        )
        .await;
        let mut opened_at = None;
        let failure = match connection {
            Err(error) => Failure::from(error),
            Ok(connection) => {
                let window = Window::default();
                let opening =
                    Opening { filters: &identity.filters, memory_filters, accepted: false, unsubscribed: 0 };
                let mut session = Session {
                    connection,
                    window,
                    unanswered,
                    opening,
                    ending: false,
                    qos: if settings.subscribe_qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
                    events: &events,
                    url,
                };
                let ended = session.live(&settings, &mut outbox, &mut opened_at).await;
                if opened_at.is_some() {
                    said[number] = None;
                    memory_filters = &[];
                } else if session.opening.remembers() {
                    // Something that was left may be more than can be read. Better to serve plugs without a memory.
                    in_vain += 1;
                    if in_vain == REMEMBERED_IN_VAIN {
                        warn!(broker = %url, "what an earlier bridge left cannot be read; stale topics may stay");
                        memory_filters = &[];
                    }
                }
                unanswered = session.window.into_answers().chain(session.unanswered).collect();
                match ended {
                    Ended::Closed => return,
                    Ended::Failed(failure) => failure,
                }
            }
        };
        if opened_at.is_some() && events.send(Event::Lost).await.is_err() {
            return;
        }
        let lasted = opened_at.map(|opened_at: Instant| opened_at.elapsed());
        if said[number].as_ref() != Some(&failure) {
            failure.complain(url);
        }
        let pause = backoff.after(&failure, lasted, began.elapsed());
        if backoff.is_fighting() {
            warn!(
                client_id = identity.client_id,
                "sessions end as soon as they begin: does another client use this id?"
            );
        }
        said[number] = Some(failure);
        if closes_within(pause, &mut outbox, &mut unanswered).await {
            return;
        }
    }
}

/// Waits; true when the outbox closed meanwhile. Of what the core had put into it for the lost session only answers are
/// kept.
async fn closes_within(
    pause: Duration,
    outbox: &mut mpsc::Receiver<Publish>,
    unanswered: &mut VecDeque<Publish>,
) -> bool {
    let closed = async {
        while let Some(publish) = outbox.recv().await {
            unanswered.extend(Some(publish).filter(is_answer));
        }
    };
    timeout(pause, closed).await.is_ok()
}

enum Ended {
    /// The outbox closed, and everything in it was said.
    Closed,
    Failed(Failure),
}

/// How a session opens: it listens to what was left, until all of it has come, and then to what is asked.
///
/// A broker sends what it has retained before it confirms that we no longer listen. One that does not gives us some of
/// it late, or never: then some stale topic stays until the next start.
struct Opening<'a> {
    filters: &'a [String],
    memory_filters: &'a [String],
    /// The broker has accepted us.
    accepted: bool,
    /// How many of `memory_filters` we have stopped to listen to.
    unsubscribed: usize,
}

impl Opening<'_> {
    /// Whether we listen to what was left.
    fn remembers(&self) -> bool {
        self.accepted && self.unsubscribed < self.memory_filters.len()
    }
}

struct Session<'a> {
    connection: Connection,
    opening: Opening<'a>,
    window: Window,
    unanswered: VecDeque<Publish>,
    /// The client takes nothing any more; its last words are still to come.
    ending: bool,
    /// Of our subscriptions.
    qos: QoS,
    events: &'a mpsc::Sender<Event>,
    url: &'a BrokerUrl,
}

impl Session<'_> {
    async fn live(
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
                        Err(error) => return Ended::Failed(error.into()),
                        Ok(event) => match self.take(event, received).await {
                            Ok(true) => *opened_at = Some(Instant::now()),
                            Ok(false) => {}
                            Err(ended) => return ended,
                        },
                    }
                    if self.window.is_stuck(patience) {
                        return Ended::Failed(Failure::passing("the broker does not acknowledge"));
                    }
                }
                publish = outbox.recv(), if !open || self.has_room() => match publish {
                    Some(publish) if open => self.say(publish),
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
                self.say(publish);
            }
        }
    }

    /// Follows one event of the client. True when it opened the session.
    async fn take(&mut self, event: Rumqttc, received: Instant) -> Result<bool, Ended> {
        self.opening.accepted |= matches!(event, Rumqttc::Incoming(Packet::ConnAck(_)));
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
                info!(broker = %self.url, "connected to the broker");
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

    fn say(&mut self, publish: Publish) {
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
