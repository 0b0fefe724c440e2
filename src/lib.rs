//! kasa2mqtt makes TP-Link Kasa plugs first-class MQTT devices, without their cloud.
//!
//! # The house
//!
//! Imports only point down; a test reads the sources and fails when one points up.
//!
//! | room | what is decided or done there |
//! |---|---|
//! | [`cli`] | the commands a person types |
//! | [`app`] | wiring: channels, tasks, the core loop, the ordered end |
//! | [`config`] | file and environment to one checked value |
//! | [`broker`] | the embedded broker, for people who have none |
//! | [`http`] | the status page, metrics and health: a picture of the fleet in a thread of its own |
//! | [`mqtt`] | the connection to the broker; the only room that names the client crate |
//! | [`bridge`] | pure: every plug and what is known of it, topics, commands, discovery, what ought to be retained |
//! | [`plug`] | one plug: cipher, requests and readings (pure), and the task that owns its connection |
//! | [`secret`] | passwords from the configuration or from files |
//! | [`unique`] | names that nobody else has |
//! | [`steps`] | moments that timers have in common |
//! | [`sim`] | simulated plugs; knows nothing of the rest but the cipher |
//!
//! A command's way: `mqtt::session` → [`bridge::core`] (topic and payload to an order) → `plug::task` (one round trip;
//! the plug's own `err_code 0` is the confirmation) → [`bridge::core`] (result, then the new state) → `mqtt::session`.
//!
//! # Invariants
//!
//! 1. A retained message is never taken as a command.
//! 2. No command runs twice, and none is begun later than `commands.ttl` (10 s) after it was received.
//! 3. Every command to a known plug gets exactly one result.
//! 4. State is what the plug confirmed, never what was asked.
//! 5. One plug's trouble never delays another.
//! 6. Nothing grows without bound: inboxes, what is held, replies, logs.
//! 7. Broker loss never stops polling; plug loss never stops the bridge.
//! 8. No reply from the network can panic, allocate more than 64 KiB, or name a topic with `+ # /` or control
//!    characters.
//! 9. Secrets, account names and coordinates are never logged or published.
//! 10. Commands that destroy a plug or its identity are refused, unless the configuration or an option names them.
//! 11. A worker that ends unasked ends the program with an error; the service manager restarts it.

#![forbid(unsafe_code)]
#![deny(clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

pub mod app;
pub mod bridge;
pub mod broker;
pub mod cli;
pub mod config;
pub mod descriptors;
pub mod http;
pub mod mqtt;
pub mod plug;
pub mod secret;
pub mod sim;
pub mod steps;
pub mod unique;
