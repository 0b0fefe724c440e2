//! The grammar of command payloads: text in, actions out, or a rejection that says what was expected.
//! Contract: homeassistant.md 4.1.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::plug::command::{Action, Outlets, Switch};

use super::result::{Code, Failure};
use super::topics::Verb;

/// The longest payload that can be a command, in bytes.
const LONGEST: usize = 4096;

/// The longest alias, in characters; what plugs take is not known (protocol.md 13), the app offers half of it.
const LONGEST_ALIAS: usize = 64;

/// The longest timer: a day, in seconds.
const LONGEST_TIMER: u64 = 86_400;

/// The longest transition, in seconds.
const LONGEST_TRANSITION: f64 = 3600.0;

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
pub fn parse(verb: Verb<'_>, outlets: Outlets, payload: &[u8]) -> Result<Option<Command>, Rejected> {
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
    let one = |attribute: &str, value: &Value| {
        let mut wish = Wish::default();
        wish.take(attribute, value, outlets)?;
        Ok(Some(Command { actions: wish.actions(outlets)?, transaction: None }))
    };
    match verb {
        // An alias that looks like a number is text all the same.
        Verb::SetAttribute("alias") => one("alias", &Value::String(unquoted(text))),
        Verb::SetAttribute(attribute) => one(attribute, &scalar(text)),
        _ => match serde_json::from_str(text) {
            Ok(Value::Object(object)) => from_object(object, outlets).map(Some),
            _ => one("state", &scalar(text)),
        },
    }
}

fn from_object(mut object: Map<String, Value>, outlets: Outlets) -> Result<Command, Rejected> {
    let transaction = object.remove("transaction");
    // Home Assistant 2024.11 sends it with every light command and cannot be told not to (homeassistant.md 8.5).
    object.remove("flash");
    let mut wish = Wish::default();
    let taken = object.iter().try_for_each(|(attribute, value)| wish.take(attribute, value, outlets));
    match taken.and_then(|()| wish.actions(outlets)) {
        Ok(actions) => Ok(Command { actions, transaction }),
        Err(failure) => Err(Rejected { failure, transaction }),
    }
}

/// The attributes of one payload, before what they mean together is known.
#[derive(Default)]
struct Wish {
    state: Option<Switch>,
    /// In percent.
    brightness: Option<u8>,
    transition: Option<Duration>,
    on_time: Option<Duration>,
    others: Vec<Action>,
}

impl Wish {
    fn take(&mut self, attribute: &str, value: &Value, outlets: Outlets) -> Result<(), Failure> {
        match (attribute, outlets) {
            ("state", _) => self.state = Some(switch(attribute, value)?),
            ("on_time", _) => self.on_time = Some(seconds(attribute, value)?),
            ("alias", _) => self.others.push(Action::Alias { outlets, alias: alias(value)? }),
            (_, Outlets::One(_)) => {
                return Err(unknown(attribute, "state, on_time or alias for an outlet of a strip"));
            }
            ("brightness", _) => self.brightness = Some(percent(value)?),
            ("transition", _) => self.transition = Some(transition_time(value)?),
            ("led", _) => self.others.push(Action::Led(switch(attribute, value)?)),
            ("pir", _) => self.others.push(Action::Motion(switch(attribute, value)?)),
            ("identify", _) => self.others.push(press(attribute, value, Action::Identify)?),
            ("reboot", _) => self.others.push(press(attribute, value, Action::Reboot)?),
            _ => {
                let known = "state, brightness, transition, on_time, led, pir, alias, identify or reboot";
                return Err(unknown(attribute, known));
            }
        }
        Ok(())
    }

    /// A timer comes before the switching that it is to end: what is on must not stay on because the timer failed.
    fn actions(self, outlets: Outlets) -> Result<Vec<Action>, Failure> {
        let mut actions = Vec::new();
        if let Some(time) = self.on_time {
            let off = matches!(self.state, Some(Switch::Off | Switch::Toggle)) || self.brightness == Some(0);
            if off && !time.is_zero() {
                return Err(invalid("on_time goes with state ON".into()));
            }
            actions.push(Action::OffAfter { outlets, time });
        }
        // 0 is off (homeassistant.md 8.3).
        let level = self.brightness.filter(|percent| *percent > 0);
        let state = match (self.state, self.brightness) {
            (None, Some(0)) => Some(Switch::Off),
            (None, Some(_)) => Some(Switch::On),
            (state, _) => state,
        };
        match (state, self.transition) {
            (None, Some(_)) => return Err(invalid("transition goes with state or brightness".into())),
            (None, None) => {}
            (Some(to), None) if self.brightness.is_none() => actions.push(Action::Relay { outlets, to }),
            (Some(to), over) => actions.push(Action::Fade { to, level, over: over.unwrap_or_default() }),
        }
        actions.extend(self.others);
        match actions.is_empty() {
            true => Err(invalid("expected an attribute to set, such as {\"state\":\"ON\"}".into())),
            false => Ok(actions),
        }
    }
}

/// A plain payload as the JSON value it would be in an object: text stays text.
fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => value,
        _ => Value::String(text.into()),
    }
}

fn unquoted(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(Value::String(inner)) => inner,
        _ => text.into(),
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
    known.ok_or_else(|| expected("ON, OFF, TOGGLE, true, false, 1 or 0", attribute, value))
}

fn press(attribute: &str, value: &Value, action: Action) -> Result<Action, Failure> {
    let pressed = match value {
        Value::Bool(pressed) => *pressed,
        Value::Number(number) => number.as_u64() == Some(1),
        Value::String(text) => ["press", "on", "true", "1"].contains(&text.to_ascii_lowercase().as_str()),
        _ => false,
    };
    if pressed { Ok(action) } else { Err(expected("PRESS", attribute, value)) }
}

fn percent(value: &Value) -> Result<u8, Failure> {
    let whole = value.as_f64().filter(|percent| (0.0..=100.0).contains(percent) && percent.fract() == 0.0);
    whole
        .map(|percent| percent as u8)
        .ok_or_else(|| expected("a whole number from 0 to 100", "brightness", value))
}

fn seconds(attribute: &str, value: &Value) -> Result<Duration, Failure> {
    let whole = value
        .as_f64()
        .filter(|seconds| (0.0..=LONGEST_TIMER as f64).contains(seconds) && seconds.fract() == 0.0);
    let seconds = whole.map(|seconds| Duration::from_secs(seconds as u64));
    seconds.ok_or_else(|| expected("whole seconds from 0 to 86400", attribute, value))
}

fn transition_time(value: &Value) -> Result<Duration, Failure> {
    let seconds = value.as_f64().filter(|seconds| (0.0..=LONGEST_TRANSITION).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| expected("seconds from 0 to 3600", "transition", value))
}

fn alias(value: &Value) -> Result<String, Failure> {
    let alias = value.as_str().map(str::trim).filter(|alias| {
        !alias.is_empty() && alias.chars().count() <= LONGEST_ALIAS && !alias.chars().any(char::is_control)
    });
    alias.map(str::to_string).ok_or_else(|| expected("1 to 64 printable characters", "alias", value))
}

fn expected(what: &str, attribute: &str, found: &Value) -> Failure {
    invalid(format!("expected {what} for {attribute}, found {}", shown(found)))
}

fn invalid(message: String) -> Failure {
    Failure { code: Code::InvalidPayload, message }
}

fn unknown(attribute: &str, known: &str) -> Failure {
    let found = shown(&Value::String(attribute.into()));
    Failure { code: Code::UnknownAttribute, message: format!("expected {known}, found {found}") }
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

    const ON: Action = Action::Relay { outlets: Outlets::All, to: Switch::On };
    const OFF: Action = Action::Relay { outlets: Outlets::All, to: Switch::Off };
    const TOGGLE: Action = Action::Relay { outlets: Outlets::All, to: Switch::Toggle };

    fn actions(verb: Verb<'_>, payload: &str) -> Result<Vec<Action>, Code> {
        match parse(verb, Outlets::All, payload.as_bytes()) {
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
            (Verb::Set, r#"{"led":"off","state":"toggle"}"#, Ok(vec![TOGGLE, Action::Led(Switch::Off)])),
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
            (Verb::SetAttribute(""), "ON", Err(UnknownAttribute)),
        ] {
            assert_eq!(actions(verb, payload), expected, "{verb:?} {payload:?}");
        }
    }

    #[test]
    fn dimmers_timers_and_names_as_a_table() {
        use Code::{InvalidPayload, UnknownAttribute};
        let fade = |to, level, milliseconds| {
            Ok(vec![Action::Fade { to, level, over: Duration::from_millis(milliseconds) }])
        };
        let off_after =
            |seconds| Action::OffAfter { outlets: Outlets::All, time: Duration::from_secs(seconds) };
        let named = |alias: &str| Ok(vec![Action::Alias { outlets: Outlets::All, alias: alias.into() }]);
        let attribute = Verb::SetAttribute;
        for (verb, payload, expected) in [
            // As Home Assistant's JSON light sends it (homeassistant.md 8.3).
            (Verb::Set, r#"{"state":"ON"}"#, Ok(vec![ON])),
            (Verb::Set, r#"{"state":"ON","brightness":50}"#, fade(Switch::On, Some(50), 0)),
            (
                Verb::Set,
                r#"{"state":"ON","brightness":50,"transition":2.5}"#,
                fade(Switch::On, Some(50), 2_500),
            ),
            (Verb::Set, r#"{"state":"OFF","transition":1.5}"#, fade(Switch::Off, None, 1_500)),
            (Verb::Set, r#"{"brightness":50}"#, fade(Switch::On, Some(50), 0)),
            (Verb::Set, r#"{"brightness":0}"#, fade(Switch::Off, None, 0)),
            (Verb::Set, r#"{"state":"OFF","brightness":50}"#, fade(Switch::Off, Some(50), 0)),
            (attribute("brightness"), "100", fade(Switch::On, Some(100), 0)),
            (attribute("brightness"), "40.0", fade(Switch::On, Some(40), 0)),
            (Verb::Set, r#"{"state":"ON","on_time":600}"#, Ok(vec![off_after(600), ON])),
            (Verb::Set, r#"{"on_time":0,"state":"OFF"}"#, Ok(vec![off_after(0), OFF])),
            (attribute("on_time"), "60", Ok(vec![off_after(60)])),
            (attribute("alias"), "Büro ☃", named("Büro ☃")),
            (attribute("alias"), "  42 ", named("42")),
            (attribute("alias"), "\"true\"", named("true")),
            (attribute("pir"), "OFF", Ok(vec![Action::Motion(Switch::Off)])),
            (attribute("identify"), "PRESS", Ok(vec![Action::Identify])),
            // Rejections.
            (Verb::Set, r#"{"brightness":101}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"brightness":-1}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"brightness":49.5}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"brightness":"50"}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"transition":2}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"state":"ON","transition":-1}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"state":"ON","transition":1e308}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"state":"OFF","on_time":600}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"state":"TOGGLE","on_time":600}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"state":"ON","on_time":86401}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"state":"ON","on_time":1.5}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"alias":7}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"alias":"a\u0000b"}"#, Err(InvalidPayload)),
            (Verb::Set, r#"{"alias":" "}"#, Err(InvalidPayload)),
            (attribute("identify"), "no", Err(InvalidPayload)),
            (attribute("colour"), "red", Err(UnknownAttribute)),
        ] {
            assert_eq!(actions(verb, payload), expected, "{verb:?} {payload:?}");
        }
        let long = format!("{:a>65}", "");
        assert_eq!(actions(attribute("alias"), &long), Err(InvalidPayload));
    }

    #[test]
    fn an_outlet_of_a_strip_has_less_to_set() {
        let third = Outlets::One(3);
        let parsed = |payload: &str| parse(Verb::Set, third, payload.as_bytes());
        let actions = |payload: &str| parsed(payload).unwrap().unwrap().actions;
        assert_eq!(actions("ON"), [Action::Relay { outlets: third, to: Switch::On }]);
        assert_eq!(actions(r#"{"alias":"Lamp"}"#), [Action::Alias { outlets: third, alias: "Lamp".into() }]);
        assert_eq!(parsed(r#"{"led":"ON"}"#).unwrap_err().failure.code, Code::UnknownAttribute);
        assert_eq!(parsed(r#"{"brightness":5}"#).unwrap_err().failure.code, Code::UnknownAttribute);
    }

    #[test]
    fn a_rejection_keeps_the_transaction_and_says_what_was_expected() {
        let rejected =
            parse(Verb::Set, Outlets::All, br#"{"state":"up","transaction":{"id":7}}"#).unwrap_err();
        assert_eq!(rejected.transaction, Some(json!({"id": 7})));
        assert_eq!(
            rejected.failure.message,
            "expected ON, OFF, TOGGLE, true, false, 1 or 0 for state, found \"up\""
        );
    }

    #[test]
    fn giants_are_rejected_unread() {
        let giant = vec![b'{'; 1_000_000];
        assert_eq!(parse(Verb::Set, Outlets::All, &giant).unwrap_err().failure.code, Code::InvalidPayload);
        assert!(parse(Verb::Get, Outlets::All, &giant).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_a_short_rejection(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            for verb in [Verb::Set, Verb::SetAttribute("led"), Verb::SetAttribute("x")] {
                if let Err(rejected) = parse(verb, Outlets::All, &payload) {
                    prop_assert!(rejected.failure.message.len() < 400);
                }
            }
        }
    }
}
