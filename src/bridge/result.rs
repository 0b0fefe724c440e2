//! The one answer that every command gets, on the plug's `result` topic.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::plug::error::Error;

/// Why a command was not done; scripts may rely on these names (homeassistant.md 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The payload is not of the grammar.
    InvalidPayload,
    /// No plug has such an attribute.
    UnknownAttribute,
    /// This plug cannot do it.
    Unsupported,
    /// The plug did not answer in time. It may have obeyed all the same; the next poll tells.
    Timeout,
    /// The plug cannot be reached.
    Offline,
    /// The plug wants an account that we do not have.
    Auth,
    /// The plug answered with an error, or with rubbish.
    DeviceError,
    /// A newer command for the same thing came before this one was begun.
    Superseded,
    /// It waited longer than `commands.ttl` and was not begun.
    Stale,
}

/// Why a command was not done, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        let code = match error {
            Error::Timeout(_) => Code::Timeout,
            Error::Connect(_)
            | Error::Closed
            | Error::Broken(_)
            | Error::WrongPlug { .. }
            | Error::Auth
            | Error::Forgotten
            | Error::Resting(_) => Code::Offline,
            Error::TooLong(_) | Error::Malformed(_) | Error::Refused { .. } => Code::DeviceError,
            Error::Unsupported(_) => Code::Unsupported,
            Error::Stale => Code::Stale,
        };
        Failure { code, message: error.to_string() }
    }
}

/// The payload of a result.
///
/// `command` is the end of the command's topic (`set`, `set/led`, `get`); without a failure it was done.
pub fn render(
    command: &str,
    failure: Option<&Failure>,
    took: Duration,
    transaction: Option<&Value>,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Payload<'a> {
        ok: bool,
        command: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a Failure>,
        duration_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        transaction: Option<&'a Value>,
    }
    let payload = Payload {
        ok: failure.is_none(),
        command,
        error: failure,
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        transaction,
    };
    serde_json::to_vec(&payload).expect("a result is plain data")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_read_by_scripts() {
        let took = Duration::from_micros(4_700);
        let text = |payload| String::from_utf8(payload).unwrap();
        assert_eq!(
            text(render("set", None, took, Some(&json!("a")))),
            r#"{"ok":true,"command":"set","duration_ms":4,"transaction":"a"}"#
        );
        let failure = Failure::from(&Error::Timeout(Duration::from_secs(5)));
        assert_eq!(
            text(render("set/led", Some(&failure), took, None)),
            r#"{"ok":false,"command":"set/led","error":{"code":"timeout","message":"no answer within 5s"},"duration_ms":4}"#
        );
    }
}
