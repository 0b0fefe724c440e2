//! One plug: what travels on its wire, and the task that owns its connection. Knows nothing of MQTT.

pub mod agenda;
pub mod cipher;
pub mod client;
pub mod clock;
pub mod command;
pub mod emeter;
pub mod error;
pub mod klap;
pub mod known;
pub mod link;
pub mod mac;
pub mod meter;
pub mod owner;
pub mod protocol;
pub mod raw;
pub mod reading;
pub mod reply;
pub mod request;
pub mod room;
pub mod scan;
pub mod schedule;
pub mod settings;
pub mod sysinfo;
pub mod task;
pub mod timer;
pub mod zone;
