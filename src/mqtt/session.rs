//! Sessions with the broker, one after the other for ever.
//!
//! ```text
//!            CONNACK            SUBACK
//! connecting ───────► subscribing ────► open ──outbox closed──► closing ──► end
//!     ▲                   │              │
//!     └──── backoff ◄─────┴── failure ◄──┘
//! ```
//!
//! Nothing is relied upon across connections: a new session is reported to the core, which says everything again.
//! Only answers to commands, which the core does not keep, are carried over until the broker has acknowledged them.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rumqttc::{ClientError, Event as Rumqttc, Outgoing, Packet, QoS, SubscribeFilter, SubscribeReasonCode};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::bridge::message::{Message, Publish};
use crate::bridge::retained::Ticket;

use super::backoff::Backoff;
use super::connection::{Connection, WINDOW, Will};
use super::failure::Failure;
use super::settings::{BrokerUrl, Settings};

/// Time for the last messages of a clean end.
const FAREWELL: Duration = Duration::from_millis(600);

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
    pub will: Will,
    /// What we listen to.
    pub filters: Vec<String>,
}

/// Keeps a session open until `outbox` closes; then says what is left in it and disconnects. Returns early only when
/// nobody listens to `events` any more.
pub async fn run(
    settings: Settings,
    url: BrokerUrl,
    identity: Identity,
    mut outbox: mpsc::Receiver<Publish>,
    events: mpsc::Sender<Event>,
) {
    let mut backoff = Backoff::new(settings.client_id.is_some());
    let mut unanswered = VecDeque::new();
    let mut said = None;
    for attempt in 0.. {
        let began = Instant::now();
        let connection =
            Connection::begin(&settings, &url, &identity.client_id, &identity.will, attempt).await;
        let mut opened_at = None;
        let failure = match connection {
            Err(error) => Failure::from(error),
            Ok(connection) => {
                let mut session =
                    Session { connection, window: Window::default(), unanswered, events: &events, url: &url };
                let ended =
                    session.live(&settings, &identity.filters, &mut outbox, &mut opened_at, &mut said).await;
                unanswered = session.take_unanswered();
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
        if said.as_ref() != Some(&failure) {
            complain(&url, &failure);
        }
        let pause = backoff.after(&failure, lasted, began.elapsed());
        if backoff.is_fighting() {
            warn!(
                client_id = identity.client_id,
                "sessions end as soon as they begin: does another client use this id?"
            );
        }
        said = Some(failure);
        if closes_within(pause, &mut outbox).await {
            return;
        }
    }
}

fn complain(url: &BrokerUrl, failure: &Failure) {
    match failure.needs_a_person {
        true => error!(broker = %url, "no connection to the broker: {}", failure.text),
        false => warn!(broker = %url, "no connection to the broker: {}; trying again", failure.text),
    }
}

/// Waits; true when the outbox closed meanwhile. What the core had put into it belongs to the lost session.
async fn closes_within(pause: Duration, outbox: &mut mpsc::Receiver<Publish>) -> bool {
    let closed = async { while outbox.recv().await.is_some() {} };
    timeout(pause, closed).await.is_ok()
}

enum Ended {
    /// The outbox closed, and everything in it was said.
    Closed,
    Failed(Failure),
}

/// Messages handed to the client. Its events name packet ids, which it assigns in the order of our requests.
#[derive(Debug, Default)]
struct Window {
    requested: VecDeque<Sent>,
    on_the_wire: HashMap<u16, Sent>,
    /// When the broker last acknowledged something, or had nothing to.
    progress: Option<Instant>,
}

#[derive(Debug)]
struct Sent {
    ticket: Ticket,
    /// Kept where nobody else could say it again.
    answer: Option<Publish>,
}

impl Window {
    fn len(&self) -> usize {
        self.requested.len() + self.on_the_wire.len()
    }

    fn is_stuck(&self, patience: Duration) -> bool {
        self.len() > 0 && self.progress.is_some_and(|progress| progress.elapsed() > patience)
    }
}

struct Session<'a> {
    connection: Connection,
    window: Window,
    unanswered: VecDeque<Publish>,
    events: &'a mpsc::Sender<Event>,
    url: &'a BrokerUrl,
}

impl Session<'_> {
    async fn live(
        &mut self,
        settings: &Settings,
        filters: &[String],
        outbox: &mut mpsc::Receiver<Publish>,
        opened_at: &mut Option<Instant>,
        said: &mut Option<Failure>,
    ) -> Ended {
        // The client pings at every keep-alive, so silence for longer means that it hangs; and so does a window that
        // the broker does not empty while it answers pings. Either way a new connection is the cure.
        let patience = settings.keep_alive.mul_f32(2.5);
        loop {
            let open = opened_at.is_some();
            tokio::select! {
                event = timeout(patience, self.connection.events.recv()) => {
                    let Ok(Some((received, polled))) = event else {
                        return Ended::Failed(Failure::passing("the client hangs"));
                    };
                    match polled {
                        Err(error) => return Ended::Failed(error.into()),
                        Ok(event) => match self.take(event, received, filters).await {
                            Ok(true) => {
                                *opened_at = Some(Instant::now());
                                *said = None;
                            }
                            Ok(false) => {}
                            Err(ended) => return ended,
                        },
                    }
                    if self.window.is_stuck(patience) {
                        return Ended::Failed(Failure::passing("the broker does not acknowledge"));
                    }
                }
                publish = outbox.recv(), if !open || self.window.len() < WINDOW => match publish {
                    Some(publish) if open => self.say(publish),
                    Some(_) => {} // meant for the session before
                    None if open => return self.close().await,
                    None => return Ended::Closed,
                },
            }
            while opened_at.is_some()
                && self.window.len() < WINDOW
                && let Some(publish) = self.unanswered.pop_front()
            {
                self.say(publish);
            }
        }
    }

    /// Follows one event of the client. True when it opened the session.
    async fn take(&mut self, event: Rumqttc, received: Instant, filters: &[String]) -> Result<bool, Ended> {
        let news = match event {
            Rumqttc::Incoming(Packet::ConnAck(_)) => {
                let filters =
                    filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
                match self.connection.client.try_subscribe_many(filters) {
                    Ok(()) => return Ok(false),
                    Err(error) => return Err(Ended::Failed(Failure::passing(error.to_string()))),
                }
            }
            Rumqttc::Incoming(Packet::SubAck(answer)) => {
                for (filter, code) in filters.iter().zip(&answer.return_codes) {
                    if *code == SubscribeReasonCode::Failure {
                        warn!(filter, "the broker refuses our subscription: check its access list");
                    }
                }
                info!(broker = %self.url, "connected to the broker");
                Event::Opened
            }
            Rumqttc::Outgoing(Outgoing::Publish(id)) => {
                if let Some(sent) = self.window.requested.pop_front() {
                    self.window.on_the_wire.insert(id, sent);
                }
                return Ok(false);
            }
            Rumqttc::Incoming(Packet::PubAck(answer)) => {
                self.window.progress = Some(received);
                match self.window.on_the_wire.remove(&answer.pkid) {
                    Some(Sent { answer: None, ticket }) => Event::Acknowledged(ticket),
                    _ => return Ok(false),
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

    fn say(&mut self, publish: Publish) {
        if self.window.len() == 0 {
            self.window.progress = Some(Instant::now());
        }
        let ticket = publish.ticket;
        let answer = (!publish.retain).then(|| publish.clone());
        let Publish { topic, payload, retain, .. } = publish;
        match self.connection.client.try_publish(topic, QoS::AtLeastOnce, retain, payload) {
            Ok(()) => self.window.requested.push_back(Sent { ticket, answer }),
            // The event loop has ended; its last word follows, and a new session says everything again.
            Err(ClientError::TryRequest(_) | ClientError::Request(_)) => self.unanswered.extend(answer),
        }
    }

    /// Waits for the broker to take everything, then disconnects, so that the will stays unspoken.
    async fn close(&mut self) -> Ended {
        let farewell = async {
            while self.window.len() > 0 {
                match self.connection.events.recv().await {
                    Some((received, Ok(event))) => {
                        let _ = self.take(event, received, &[]).await;
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

    /// Answers that the broker has not acknowledged, the oldest first.
    fn take_unanswered(self) -> VecDeque<Publish> {
        let mut on_the_wire: Vec<(u16, Sent)> = self.window.on_the_wire.into_iter().collect();
        on_the_wire.sort_by_key(|(id, _)| *id);
        let sent = on_the_wire.into_iter().map(|(_, sent)| sent).chain(self.window.requested);
        sent.filter_map(|sent| sent.answer).chain(self.unanswered).collect()
    }
}
