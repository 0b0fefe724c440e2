//! The grammar of command payloads: text in, actions out, or a rejection that says what was expected.
//! Contract: homeassistant.md 4.1.

use serde_json::{Map, Value};

use crate::plug::command::{Action, Switch};

use super::result::{Code, Failure};
use super::topics::Verb;

/// The longest payload that can be a command, in bytes.
const LONGEST: usize = 4096;

/// What a payload asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// In the order in which they are to be done; never empty.
    pub actions: Vec<Action>,
    /// Comes back in the result.
    pub transaction: Option<Value>,
}

/// A payload that asks for nothing that can be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// Why.
    pub failure: Failure,
    /// Comes back in the result, where it could be read.
    pub transaction: Option<Value>,
}

impl From<Failure> for Rejected {
    fn from(failure: Failure) -> Rejected {
        Rejected { failure, transaction: None }
    }
}

/// Reads the payload of a command topic. `Ok(None)` for an empty one on a set topic: that is how retained messages
/// are cleared, and asks for nothing.
pub fn parse(verb: Verb<'_>, payload: &[u8]) -> Result<Option<Command>, Rejected> {
    if verb == Verb::Get {
        return Ok(Some(Command { actions: vec![Action::Refresh], transaction: transaction(payload) }));
    }
    if payload.is_empty() {
        return Ok(None);
    }
    if payload.len() > LONGEST {
        return Err(invalid(format!("expected at most {LONGEST} bytes, found {}", payload.len())).into());
    }
    let text = std::str::from_utf8(payload).map_err(|_| invalid("expected UTF-8 text".into()))?.trim();
    let command = match verb {
        Verb::SetAttribute(attribute) => plain(vec![set(attribute, &scalar(text))?]),
        _ => match serde_json::from_str(text) {
            Ok(Value::Object(object)) => from_object(object)?,
            _ => plain(vec![set("state", &scalar(text))?]),
        },
    };
    Ok(Some(command))
}

fn plain(actions: Vec<Action>) -> Command {
    Command { actions, transaction: None }
}

fn from_object(mut object: Map<String, Value>) -> Result<Command, Rejected> {
    let transaction = object.remove("transaction");
    // Home Assistant 2024.11 sends it with every light command and cannot be told not to (homeassistant.md 8.5).
    object.remove("flash");
    let actions: Result<Vec<Action>, Failure> =
        object.iter().map(|(attribute, value)| set(attribute, value)).collect();
    match actions {
        Ok(actions) if actions.is_empty() => {
            let failure = invalid("expected an attribute to set, such as {\"state\":\"ON\"}".into());
            Err(Rejected { failure, transaction })
        }
        Ok(actions) => Ok(Command { actions, transaction }),
        Err(failure) => Err(Rejected { failure, transaction }),
    }
}

/// A plain payload as the JSON value it would be in an object: text stays text.
fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => value,
        _ => Value::String(text.into()),
    }
}

fn set(attribute: &str, value: &Value) -> Result<Action, Failure> {
    match attribute {
        "state" => Ok(Action::Relay { outlet: 0, to: switch(attribute, value)? }),
        "led" => Ok(Action::Led(switch(attribute, value)?)),
        "reboot" if is_press(value) => Ok(Action::Reboot),
        "reboot" => Err(invalid(format!("expected PRESS for reboot, found {}", shown(value)))),
        _ => {
            let message =
                format!("expected state, led or reboot, found {}", shown(&Value::String(attribute.into())));
            Err(Failure { code: Code::UnknownAttribute, message })
        }
    }
}

fn switch(attribute: &str, value: &Value) -> Result<Switch, Failure> {
    let known = match value {
        Value::Bool(on) => Some(if *on { Switch::On } else { Switch::Off }),
        Value::Number(number) => match number.as_u64() {
            Some(1) => Some(Switch::On),
            Some(0) => Some(Switch::Off),
            _ => None,
        },
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "on" | "true" | "1" => Some(Switch::On),
            "off" | "false" | "0" => Some(Switch::Off),
            "toggle" => Some(Switch::Toggle),
            _ => None,
        },
        _ => None,
    };
    known.ok_or_else(|| {
        invalid(format!(
            "expected ON, OFF, TOGGLE, true, false, 1 or 0 for {attribute}, found {}",
            shown(value)
        ))
    })
}

fn is_press(value: &Value) -> bool {
    match value {
        Value::Bool(pressed) => *pressed,
        Value::Number(number) => number.as_u64() == Some(1),
        Value::String(text) => ["press", "on", "true", "1"].contains(&text.to_ascii_lowercase().as_str()),
        _ => false,
    }
}

fn invalid(message: String) -> Failure {
    Failure { code: Code::InvalidPayload, message }
}

/// What was found, short enough for a message.
fn shown(value: &Value) -> String {
    let mut text: String = value.to_string().chars().take(48).collect();
    if text.chars().count() == 48 {
        text.push('…');
    }
    text
}

fn transaction(payload: &[u8]) -> Option<Value> {
    if payload.len() > LONGEST {
        return None;
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(mut object)) => object.remove("transaction"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ON: Action = Action::Relay { outlet: 0, to: Switch::On };
    const OFF: Action = Action::Relay { outlet: 0, to: Switch::Off };
    const TOGGLE: Action = Action::Relay { outlet: 0, to: Switch::Toggle };

    fn actions(verb: Verb<'_>, payload: &str) -> Result<Vec<Action>, Code> {
        match parse(verb, payload.as_bytes()) {
            Ok(command) => Ok(command.map(|command| command.actions).unwrap_or_default()),
            Err(rejected) => Err(rejected.failure.code),
        }
    }

    #[test]
    fn the_grammar_as_a_table() {
        use Code::{InvalidPayload, UnknownAttribute};
        let led = Verb::SetAttribute("led");
        let state = Verb::SetAttribute("state");
        let reboot = Verb::SetAttribute("reboot");
        for (verb, payload, expected) in [
            (Verb::Set, "ON", Ok(vec![ON])),
            (Verb::Set, "on", Ok(vec![ON])),
            (Verb::Set, " On\n", Ok(vec![ON])),
            (Verb::Set, "\"ON\"", Ok(vec![ON])),
            (Verb::Set, "true", Ok(vec![ON])),
            (Verb::Set, "TRUE", Ok(vec![ON])),
            (Verb::Set, "1", Ok(vec![ON])),
            (Verb::Set, "OFF", Ok(vec![OFF])),
            (Verb::Set, "false", Ok(vec![OFF])),
            (Verb::Set, "0", Ok(vec![OFF])),
            (Verb::Set, "toggle", Ok(vec![TOGGLE])),
            (Verb::Set, r#"{"state":"ON"}"#, Ok(vec![ON])),
            (Verb::Set, r#"{"state":true}"#, Ok(vec![ON])),
            (Verb::Set, r#"{"state":0}"#, Ok(vec![OFF])),
            (Verb::Set, r#"{"led":"off","state":"toggle"}"#, Ok(vec![Action::Led(Switch::Off), TOGGLE])),
            (Verb::Set, r#"{"state":"ON","flash":"short","transaction":7}"#, Ok(vec![ON])),
            (state, "ON", Ok(vec![ON])),
            (state, "false", Ok(vec![OFF])),
            (led, "OFF", Ok(vec![Action::Led(Switch::Off)])),
            (led, "1", Ok(vec![Action::Led(Switch::On)])),
            (reboot, "PRESS", Ok(vec![Action::Reboot])),
            (reboot, "true", Ok(vec![Action::Reboot])),
            (Verb::Get, "", Ok(vec![Action::Refresh])),
            (Verb::Get, "anything {", Ok(vec![Action::Refresh])),
            // Asks for nothing.
            (Verb::Set, "", Ok(vec![])),
            (reboot, "", Ok(vec![])),
            // Rejections.
            (Verb::Set, "onn", Err(InvalidPayload)),
            (Verb::Set, " ", Err(InvalidPayload)),
            (Verb::Set, "2", Err(InvalidPayload)),
            (Verb::Set, "-1", Err(InvalidPayload)),
            (Verb::Set, "1.0", Err(InvalidPayload)),
            (Verb::Set, "NaN", Err(InvalidPayload)),
            (Verb::Set, "null", Err(InvalidPayload)),
            (Verb::Set, "[\"ON\"]", Err(InvalidPayload)),
            (Verb::Set, "{}", Err(InvalidPayload)),
            (Verb::Set, "{\"state\":", Err(InvalidPayload)),
            (Verb::Set, r#"{"state":null}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"state":{"on":true}}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"state":"ON","power":12.3}"#, Err(UnknownAttribute)),
            (Verb::Set, r#"{"transaction":1}"#, Err(InvalidPayload)),
            (led, "dim", Err(InvalidPayload)),
            (reboot, "no", Err(InvalidPayload)),
            (reboot, "0", Err(InvalidPayload)),
            (Verb::SetAttribute("brightness"), "50", Err(UnknownAttribute)),
            (Verb::SetAttribute(""), "ON", Err(UnknownAttribute)),
        ] {
            assert_eq!(actions(verb, payload), expected, "{verb:?} {payload:?}");
        }
    }

    #[test]
    fn a_rejection_keeps_the_transaction_and_says_what_was_expected() {
        let rejected = parse(Verb::Set, br#"{"state":"up","transaction":{"id":7}}"#).unwrap_err();
        assert_eq!(rejected.transaction, Some(json!({"id": 7})));
        assert_eq!(
            rejected.failure.message,
            "expected ON, OFF, TOGGLE, true, false, 1 or 0 for state, found \"up\""
        );
    }

    #[test]
    fn giants_are_rejected_unread() {
        let giant = vec![b'{'; 1_000_000];
        assert_eq!(parse(Verb::Set, &giant).unwrap_err().failure.code, Code::InvalidPayload);
        assert!(parse(Verb::Get, &giant).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_a_short_rejection(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            for verb in [Verb::Set, Verb::SetAttribute("led"), Verb::SetAttribute("x")] {
                if let Err(rejected) = parse(verb, &payload) {
                    prop_assert!(rejected.failure.message.len() < 400);
                }
            }
        }
    }
}
