//! One method of a request, and what became of it (protocol.md 2, 5).

use std::time::Duration;

use super::super::json::{Fields, Json};

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The reply as JSON, neither encrypted nor framed; `None` where the device says nothing.
    pub reply: Option<String>,
    /// How many relays were told to move, or to stay where they are.
    pub relay_commands: u64,
    /// It restarts after this long; after no time at all, before the reply.
    pub restart: Option<Duration>,
}

/// Why a method was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub i64, pub &'static str);

pub(super) const NO_MODULE: Refusal = Refusal(-1, "module not support");
pub(super) const NO_METHOD: Refusal = Refusal(-2, "member not support");
pub(super) const INVALID: Refusal = Refusal(-3, "invalid argument");
pub(super) const FAILED: Refusal = Refusal(-7, "unknown error");
pub(super) const NO_ENTRY: Refusal = Refusal(-14, "entry not exist");

/// The fields of a reply without `err_code`.
pub(super) type Outcome = Result<Fields, Refusal>;

/// One method with its arguments.
pub(super) struct Call<'a> {
    pub method: &'a str,
    pub arguments: &'a Json,
    /// Which outlets are meant. Without a context: none of a strip, the one of a plug.
    pub meant: &'a [usize],
    pub now: Duration,
}

impl Call<'_> {
    /// An argument must have the right type: a number sent as text is refused (protocol.md 2).
    pub fn int(&self, key: &str) -> Result<i64, Refusal> {
        self.arguments.get(key).and_then(Json::as_int).ok_or(INVALID)
    }

    pub fn within(&self, key: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, Refusal> {
        self.int(key).and_then(|value| if range.contains(&value) { Ok(value) } else { Err(INVALID) })
    }

    pub fn bit(&self, key: &str) -> Result<bool, Refusal> {
        self.within(key, 0..=1).map(|bit| bit == 1)
    }

    pub fn text(&self, key: &str) -> Result<&str, Refusal> {
        self.arguments.get(key).and_then(Json::as_text).ok_or(INVALID)
    }

    /// The outlet that a question is about: the first meant, or the first of all (protocol.md 2.7).
    pub fn outlet(&self) -> usize {
        self.meant.first().copied().unwrap_or(0)
    }
}

/// The way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A connection.
    Tcp,
    /// A datagram, where children have short ids.
    Udp,
}
