//! The bridge's decisions, all of them plain functions: no tokio, no clock, no socket. Time is an argument.
//!
//! [`core`] ties the room together; the others are one subject each.

pub mod birth;
pub mod command;
pub mod components;
pub mod core;
pub mod deadband;
pub mod discovery;
pub mod event;
pub mod fleet;
pub mod memory;
pub mod message;
pub mod names;
pub mod overview;
pub mod peers;
pub mod plug;
pub mod queue;
pub mod render;
pub mod request;
pub mod result;
pub mod retained;
pub mod retirement;
pub mod search;
pub mod settings;
pub mod shard;
pub mod spacing;
pub mod state;
pub mod tally;
pub mod topics;
pub mod view;
