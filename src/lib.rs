//! kasa2mqtt
#![forbid(unsafe_code)]
pub mod plug;
