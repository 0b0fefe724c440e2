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

use rumqttc::QoS;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{error, warn};

use crate::bridge::message::Publish;

use super::backoff::Backoff;
use super::connection::{Connection, Will};
use super::failure::Failure;
use super::limit::Limit;
use super::settings::{BrokerUrl, Settings};
use super::window::{Window, is_answer};

mod live;

pub use super::event::Event;

use live::{Ended, Opening, Session};

/// So many sessions may end while we listen to what was left; then it is done without.
const REMEMBERED_IN_VAIN: u32 = 2;

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

/// Keeps a session with one of `brokers` open until `outbox` closes; then says what is left in it and disconnects.
/// Returns early only when nobody listens to `events` any more.
pub async fn run(
    settings: Settings,
    brokers: Vec<BrokerUrl>,
    identity: Identity,
    mut outbox: mpsc::Receiver<Publish>,
    events: mpsc::Sender<Event>,
    since: Instant,
) {
    let mut backoff = Backoff::new(settings.client_id.is_some(), brokers.len());
    let mut limit = Limit::default();
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
            since,
        )
        .await;
        let (mut accepted_at, mut opened_at, mut suspect) = (None, None, None);
        let failure = match connection {
            Err(error) => Failure::from(error),
            Ok(connection) => {
                let window = Window::default();
                let opening = Opening {
                    filters: &identity.filters,
                    memory_filters,
                    accepted_at: None,
                    unsubscribed: 0,
                };
                let mut session = Session {
                    connection,
                    window,
                    unanswered,
                    opening,
                    ending: false,
                    is_quiet: backoff.is_flapping(),
                    limit: limit.bytes(),
                    qos: if settings.subscribe_qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
                    events: &events,
                    url,
                };
                let ended = session.live(&settings, &mut outbox, &mut opened_at).await;
                suspect = session.window.suspect();
                accepted_at = session.opening.accepted_at;
                if opened_at.is_some() {
                    said[number].take_if(|_| !session.is_quiet);
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
        let since = |moment: Option<Instant>| moment.map(|moment| moment.elapsed());
        if said[number].as_ref() != Some(&failure) {
            failure.complain(url);
        }
        if limit.ended(since(opened_at), suspect) {
            error!(
                broker = %url,
                bytes = limit.bytes(),
                "the broker ends every session in which a message of this size is sent: from now on such messages are \
                 left out; raise its limit, as max_packet_size of mosquitto"
            );
        }
        // A rival may be quicker than the answer to our subscriptions.
        let pause = backoff.after(&failure, since(accepted_at), began.elapsed());
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
