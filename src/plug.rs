//! One plug: what travels on its wire, and the task that owns its connection. Knows nothing of MQTT.

pub mod cipher;
pub mod client;
pub mod command;
pub mod emeter;
pub mod error;
pub mod link;
pub mod mac;
pub mod reading;
pub mod reply;
pub mod request;
pub mod schedule;
pub mod settings;
pub mod task;
