//! KLAP: how plugs are spoken to whose firmware closed port 9999. The JSON is the same; it travels over HTTP, encrypted
//! with keys that follow from the account that the plug was set up with (protocol.md 7).
//!
//! ```text
//!   us                                        plug
//!   handshake1: local seed          ─────►
//!                                   ◄─────    remote seed, proof that it knows the account; a cookie
//!   handshake2: our proof           ─────►
//!   request?seq=N: encrypted JSON   ─────►
//!                                   ◄─────    encrypted JSON, same keys, same N
//! ```
//! The plug's proof also tells which of several accounts it knows and which version it speaks, so that nothing has to be
//! tried on the wire, and no wrong password is ever sent.

pub mod account;
pub mod auth;
pub mod http;
pub mod keys;
pub mod parts;
pub mod session;
