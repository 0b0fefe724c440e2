//! Simulated plugs: for the demo, the tests and `kasa2mqtt simulate`.
//!
//! An independent witness: it shares nothing with the rest of the program but the cipher, which published vectors pin
//! down, and builds its JSON itself, in the key order of each generation's wire.

pub mod behaviour;
pub mod clock;
mod connection;
pub mod discovery;
mod door;
pub mod energy;
mod host;
mod http;
pub mod json;
pub mod klap;
pub mod model;
pub mod plug;
pub mod server;
pub mod template;
