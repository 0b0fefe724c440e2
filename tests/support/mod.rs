//! What the integration tests share: a watching client, a house to live in, brokers and other people's plugs.
#![allow(dead_code)] // each test program uses a part

pub mod bridge;
#[cfg(feature = "embedded-broker")]
pub mod broker;
pub mod fuzz;
pub mod hours;
pub mod house;
pub mod log;
pub mod machine;
pub mod memory;
pub mod mosquitto;
pub mod nats;
pub mod netns;
pub mod output;
pub mod peers;
pub mod port;
pub mod rules;
pub mod watcher;
pub mod web;

use std::future::Future;
use std::time::Duration;

/// Longer than anything here takes on a busy machine; a test that waits for so long has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for `event`, but not for ever.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain for {what}"),
    }
}
