//! The connection to the broker: the only room that names rumqttc.
//!
//! MQTT 3.1.1, clean session, QoS 1. The client crate is wrapped tightly, because each of these was measured to go
//! wrong (a fresh client for every connection; a task that only polls and is never cancelled; no waiting publish; a
//! window; nothing relied upon across connections). `session.rs` is the wrapping, `connection.rs` builds one
//! connection, `pulse.rs` notices a standstill, `limit.rs` messages too large for the broker, `failure.rs` says what an error means to a person, `tls.rs` is certificates.

pub mod backoff;
pub mod connection;
pub mod event;
pub mod failure;
pub mod limit;
pub mod pulse;
pub mod session;
pub mod settings;
pub mod tls;
pub mod window;
