//! Requests: `{"<module>":{"<method>":<arguments>}}` (protocol.md 2), and what an action takes.

use std::time::Duration;

use serde_json::{Value, json};

use super::command::{Action, Outlets};
use super::emeter::{DAYS, MONTHS, REALTIME};
use super::error::{Error, unsupported};
use super::reading::{Outlet, Reading};
use super::reply::Method;

/// Everything a plug says of itself. Always the first request on a new acquaintance, and alone:
/// some firmware resets on modules it does not have (protocol.md 1.4).
pub const GET_SYSINFO: &[u8] = br#"{"system":{"get_sysinfo":{}}}"#;

/// The poll of a single plug known to have a meter: both in one exchange.
pub const GET_SYSINFO_AND_ENERGY: &[u8] = br#"{"system":{"get_sysinfo":{}},"emeter":{"get_realtime":{}}}"#;

/// What is true of a plug once it has confirmed a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that a reading shows.
    None,
    /// An outlet's relay moved.
    Relay(usize, bool),
    /// The dimmer moved; at level 0 it is off and keeps its brightness.
    Level(u8),
    /// The LED is lit or dark.
    Led(bool),
    /// The motion sensor switches the relay or does not.
    Motion(bool),
    /// An outlet's timer runs; a time of zero: none runs.
    OffAfter(usize, Duration),
    /// The plug, or one of a strip's outlets, has a new alias.
    Alias(Option<usize>, String),
    /// It restarts.
    Rebooting,
}

/// One exchange of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The request.
    pub request: Vec<u8>,
    /// The method whose `err_code` tells whether it was done.
    pub confirms: Method,
    /// What is true then.
    pub effect: Effect,
    /// Whether doing it twice is the same as doing it once, so that it may be sent again on a doubt.
    pub repeatable: bool,
}

/// A request for one method, of one outlet of a strip if `child` names one (protocol.md 2.7).
pub fn request(child: Option<&str>, (module, method): Method, arguments: Value) -> Vec<u8> {
    to_outlet(child, &json!({module: {method: arguments}}).to_string())
}

/// What flows through one outlet now.
pub fn realtime(outlet: &Outlet) -> Vec<u8> {
    request(outlet.child.as_deref(), REALTIME, json!({}))
}

/// What one outlet used on each day of a month, and in each month of its year: one exchange, whose reply stays below
/// the 4096 bytes that some firmware does not survive (protocol.md 1.2).
pub fn statistics(outlet: &Outlet, year: i16, month: i8) -> Vec<u8> {
    let emeter = json!({"emeter": {DAYS.1: {"year": year, "month": month}, MONTHS.1: {"year": year}}});
    to_outlet(outlet.child.as_deref(), &emeter.to_string())
}

fn to_outlet(child: Option<&str>, modules: &str) -> Vec<u8> {
    match child {
        None => modules.into(),
        // `context` first, as the vendor's app sends it.
        Some(child) => {
            format!(r#"{{"context":{{"child_ids":[{}]}},{}"#, json!(child), &modules[1..]).into_bytes()
        }
    }
}

/// The exchanges that carry out `action` on the plug as it is known from `reading`; none for an action that is not a
/// request of its own.
///
/// # Errors
/// [`Error::Unsupported`] for what this plug does not have.
pub fn steps(action: &Action, reading: &Reading) -> Result<Vec<Step>, Error> {
    let step = |child: Option<&str>, confirms: Method, arguments: Value, effect: Effect| Step {
        request: request(child, confirms, arguments),
        confirms,
        repeatable: effect != Effect::Rebooting,
        effect,
    };
    let one = |confirms: Method, arguments: Value, effect: Effect| {
        Ok(vec![step(None, confirms, arguments, effect)])
    };
    match action {
        Action::Relay { outlets, to } => {
            // A whole strip is told outlet by outlet: other ways do not work on every firmware (protocol.md 2.7).
            let on = to.from(is_on(reading, *outlets)?);
            let told = |index: usize| {
                let child = reading.outlets[index].child.as_deref();
                let arguments = json!({"state": u8::from(on)});
                step(child, ("system", "set_relay_state"), arguments, Effect::Relay(index, on))
            };
            Ok(meant(reading, *outlets)?.map(told).collect())
        }
        Action::Fade { to, level, over } => {
            let outlet = &reading.outlets[0];
            let last = outlet.brightness.ok_or_else(|| unsupported("no dimmer"))?;
            let on = to.from(outlet.relay);
            let level = if on { level.unwrap_or(last).clamp(1, 100) } else { 0 };
            // Without a duration some plugs store the level and stay dark (homeassistant.md 8.3).
            let milliseconds = u64::try_from(over.as_millis()).unwrap_or(u64::MAX).max(1);
            let arguments = json!({"brightness": level, "duration": milliseconds});
            one(("smartlife.iot.dimmer", "set_dimmer_transition"), arguments, Effect::Level(level))
        }
        Action::OffAfter { outlets, time } => {
            let told = |index: usize| timer(&reading.outlets[index], index, *time);
            Ok(meant(reading, *outlets)?.map(told).collect())
        }
        Action::Led(to) => {
            let lit = to.from(reading.led.ok_or_else(|| unsupported("no LED that can be switched"))?);
            one(("system", "set_led_off"), json!({"off": u8::from(!lit)}), Effect::Led(lit))
        }
        Action::Motion(to) => {
            let motion = reading.motion.ok_or_else(|| unsupported("no motion sensor"))?;
            let on = to.from(motion.enabled.unwrap_or(false));
            one(("smartlife.iot.PIR", "set_enable"), json!({"enable": u8::from(on)}), Effect::Motion(on))
        }
        Action::Alias { outlets, alias } => {
            let place = match outlets {
                Outlets::All => None,
                Outlets::One(_) => meant(reading, *outlets)?.next(),
            };
            let child = place.and_then(|place| reading.outlets[place].child.as_deref());
            let effect = Effect::Alias(place, alias.clone());
            Ok(vec![step(child, ("system", "set_dev_alias"), json!({"alias": alias}), effect)])
        }
        // A delay of 0 reboots before replying, which looks like a failure (protocol.md 2.1).
        Action::Reboot => one(("system", "reboot"), json!({"delay": 1}), Effect::Rebooting),
        Action::Identify | Action::Refresh | Action::Raw(_) => Ok(Vec::new()),
    }
}

/// The module holds one rule, so the old one goes first: a second is refused as "table is full" (protocol.md 2.4).
fn timer(outlet: &Outlet, index: usize, time: Duration) -> Step {
    let (confirms, add_rule) = match time.is_zero() {
        true => (("count_down", "delete_all_rules"), String::new()),
        false => {
            let rule = json!({"enable": 1, "delay": time.as_secs(), "act": 0, "name": "kasa2mqtt"});
            (("count_down", "add_rule"), format!(r#","add_rule":{rule}"#))
        }
    };
    // Written by hand: methods run in the order in which they stand, and a map would sort them.
    let modules = format!(r#"{{"count_down":{{"delete_all_rules":{{}}{add_rule}}}}}"#);
    let request = to_outlet(outlet.child.as_deref(), &modules);
    Step { request, confirms, effect: Effect::OffAfter(index, time), repeatable: true }
}

/// The outlets meant, by their place in the reading.
fn meant(reading: &Reading, outlets: Outlets) -> Result<std::ops::Range<usize>, Error> {
    let Outlets::One(number) = outlets else { return Ok(0..reading.outlets.len()) };
    let place = reading.outlets.iter().position(|outlet| outlet.number == number && outlet.child.is_some());
    place.map(|place| place..place + 1).ok_or_else(|| unsupported(format!("no outlet {number}")))
}

fn is_on(reading: &Reading, outlets: Outlets) -> Result<bool, Error> {
    Ok(meant(reading, outlets)?.any(|one| reading.outlets[one].relay))
}

#[cfg(test)]
mod tests {
    use super::super::command::Switch;
    use super::super::sysinfo::tests::{EP10_G3, STRIP, hs110, parse};
    use super::*;

    fn texts(action: &Action, reading: &Reading) -> Vec<String> {
        let steps = steps(action, reading).unwrap();
        steps.into_iter().map(|step| String::from_utf8(step.request).unwrap()).collect()
    }

    fn relay(outlets: Outlets, to: Switch) -> Action {
        Action::Relay { outlets, to }
    }

    const FIRST: &str = r#"{"context":{"child_ids":["8006AABBCCDDEEFF00112233445566778899AABB00"]},"#;
    const SECOND: &str = r#"{"context":{"child_ids":["8006AABBCCDDEEFF00112233445566778899AABB01"]},"#;

    #[test]
    fn requests_of_a_single_plug() {
        let plug = hs110();
        let ten_minutes = Duration::from_secs(600);
        for (action, expected) in [
            (relay(Outlets::All, Switch::Off), r#"{"system":{"set_relay_state":{"state":0}}}"#),
            (relay(Outlets::All, Switch::Toggle), r#"{"system":{"set_relay_state":{"state":0}}}"#),
            (Action::Led(Switch::Off), r#"{"system":{"set_led_off":{"off":1}}}"#),
            (
                Action::Alias { outlets: Outlets::All, alias: "Büro \"☃\"".into() },
                r#"{"system":{"set_dev_alias":{"alias":"Büro \"☃\""}}}"#,
            ),
            (Action::Reboot, r#"{"system":{"reboot":{"delay":1}}}"#),
            (
                Action::OffAfter { outlets: Outlets::All, time: ten_minutes },
                r#"{"count_down":{"delete_all_rules":{},"add_rule":{"act":0,"delay":600,"enable":1,"name":"kasa2mqtt"}}}"#,
            ),
            (
                Action::OffAfter { outlets: Outlets::All, time: Duration::ZERO },
                r#"{"count_down":{"delete_all_rules":{}}}"#,
            ),
        ] {
            assert_eq!(texts(&action, &plug), [expected], "{action:?}");
        }
        assert!(texts(&Action::Refresh, &plug).is_empty());
    }

    #[test]
    fn a_strip_is_told_outlet_by_outlet() {
        let strip = parse(STRIP).unwrap();
        let told = |on: u8| {
            [FIRST, SECOND].map(|to| format!(r#"{to}"system":{{"set_relay_state":{{"state":{on}}}}}}}"#))
        };
        assert_eq!(texts(&relay(Outlets::All, Switch::On), &strip), told(1));
        assert_eq!(texts(&relay(Outlets::All, Switch::Toggle), &strip), told(0), "one outlet is on");
        assert_eq!(texts(&relay(Outlets::One(1), Switch::Toggle), &strip), told(1)[..1]);
        assert_eq!(texts(&relay(Outlets::One(2), Switch::Off), &strip), told(0)[1..]);
        let alias = Action::Alias { outlets: Outlets::One(2), alias: "Lamp".into() };
        assert_eq!(
            texts(&alias, &strip),
            [format!(r#"{SECOND}"system":{{"set_dev_alias":{{"alias":"Lamp"}}}}}}"#)]
        );
        let realtime = realtime(&strip.outlets[0]);
        assert_eq!(realtime, format!(r#"{FIRST}"emeter":{{"get_realtime":{{}}}}}}"#).into_bytes());
        assert!(
            statistics(&strip.outlets[0], 2026, 11).len() < 768,
            "no request is longer (protocol.md 1.2)"
        );
    }

    #[test]
    fn a_dimmer_fades() {
        let dimmer =
            parse(&EP10_G3.replace(r#""relay_state":0"#, r#""relay_state":0,"brightness":25"#)).unwrap();
        let fade = |to, level, over| {
            let action = Action::Fade { to, level, over: Duration::from_millis(over) };
            let [text] = texts(&action, &dimmer).try_into().unwrap();
            text.replace(r#"{"smartlife.iot.dimmer":{"set_dimmer_transition":"#, "").replace("}}}", "}")
        };
        assert_eq!(fade(Switch::On, Some(60), 0), r#"{"brightness":60,"duration":1}"#);
        assert_eq!(fade(Switch::On, None, 2_000), r#"{"brightness":25,"duration":2000}"#);
        assert_eq!(fade(Switch::Off, Some(60), 1_500), r#"{"brightness":0,"duration":1500}"#);
        assert_eq!(fade(Switch::Toggle, None, 0), r#"{"brightness":25,"duration":1}"#);
    }

    #[test]
    fn what_a_plug_does_not_have_is_unsupported() {
        let plug = hs110();
        for action in [
            relay(Outlets::One(1), Switch::On),
            Action::Fade { to: Switch::On, level: None, over: Duration::ZERO },
            Action::Motion(Switch::On),
            Action::OffAfter { outlets: Outlets::One(3), time: Duration::ZERO },
        ] {
            assert!(matches!(steps(&action, &plug), Err(Error::Unsupported(_))), "{action:?}");
        }
    }
}
