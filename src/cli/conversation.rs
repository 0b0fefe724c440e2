//! A few words with the running bridge by way of its broker, as another client of it.

use std::time::Instant;

use tokio::sync::mpsc;

use crate::bridge::message::Publish;
use crate::config::Config;
use crate::mqtt::session::{self, Event, Identity};
use crate::mqtt::settings::BrokerUrl;
use crate::unique;

/// Listens to `filter`, says `words` in each session, if there are any, and lets `hear` look at what happens until that
/// has found what it waits for. `None` when the client ended before.
pub async fn hold<T>(
    config: &Config,
    urls: Vec<BrokerUrl>,
    filter: String,
    words: Option<Publish>,
    mut hear: impl FnMut(Event) -> Option<T>,
) -> Option<T> {
    let identity = Identity {
        client_id: unique::client_id(),
        will: None,
        filters: vec![filter],
        memory_filters: Vec::new(),
    };
    // The session lasts as long as its outbox is open.
    let (outbox, publishes) = mpsc::channel(1);
    let (sender, mut events) = mpsc::channel(16);
    let session = session::run(config.client(), urls, identity, publishes, sender, Instant::now());
    let conversation = async {
        loop {
            let event = events.recv().await?;
            if let (Event::Opened, Some(words)) = (&event, &words) {
                outbox.send(words.clone()).await.ok()?;
            }
            if let Some(heard) = hear(event) {
                return Some(heard);
            }
        }
    };
    tokio::select! {
        () = session => None,
        heard = conversation => heard,
    }
}

/// Brokers, for a person.
pub fn places(urls: &[BrokerUrl]) -> String {
    urls.iter().map(BrokerUrl::to_string).collect::<Vec<_>>().join(", ")
}
