//! Requests: `{"<module>":{"<method>":<arguments>}}` (protocol.md 2).

use serde_json::json;

use super::command::Action;
use super::error::Error;
use super::reading::Reading;
use super::reply::Method;

/// Everything a plug says of itself. Always the first request on a new acquaintance, and alone:
/// some firmware resets on modules it does not have (protocol.md 1.4).
pub const GET_SYSINFO: &[u8] = br#"{"system":{"get_sysinfo":{}}}"#;

/// The poll of a plug known to have a meter: both in one exchange.
pub const GET_SYSINFO_AND_ENERGY: &[u8] = br#"{"system":{"get_sysinfo":{}},"emeter":{"get_realtime":{}}}"#;

/// One request that carries out `action`, and the method whose `err_code` tells whether it did.
/// `None` for an action that is not a request of its own ([`Action::Refresh`]).
pub fn request(action: &Action, reading: &Reading) -> Result<Option<(Vec<u8>, Method)>, Error> {
    let (method, arguments) = match action {
        Action::Relay { outlet, to } => {
            let outlet = reading.outlets.get(*outlet).ok_or(Error::Unsupported("no such outlet"))?;
            let on = to.from(outlet.relay);
            (("system", "set_relay_state"), json!({"state": u8::from(on)}))
        }
        Action::Led(to) => {
            let lit = reading.led.ok_or(Error::Unsupported("no LED that can be switched"))?;
            (("system", "set_led_off"), json!({"off": u8::from(!to.from(lit))}))
        }
        Action::Alias(alias) => (("system", "set_dev_alias"), json!({"alias": alias})),
        // A delay of 0 reboots before replying, which looks like a failure (protocol.md 2.1).
        Action::Reboot => (("system", "reboot"), json!({"delay": 1})),
        Action::Refresh => return Ok(None),
    };
    let (module, name) = method;
    Ok(Some((json!({module: {name: arguments}}).to_string().into_bytes(), method)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::command::Switch;
    use crate::plug::reading::tests::hs110;

    #[test]
    fn requests_are_what_the_wire_wants() {
        let wire = |action| {
            let (request, _) = request(&action, &hs110()).unwrap().unwrap();
            String::from_utf8(request).unwrap()
        };
        // hs110() is on, its LED is lit.
        assert_eq!(
            wire(Action::Relay { outlet: 0, to: Switch::On }),
            r#"{"system":{"set_relay_state":{"state":1}}}"#
        );
        assert_eq!(
            wire(Action::Relay { outlet: 0, to: Switch::Toggle }),
            r#"{"system":{"set_relay_state":{"state":0}}}"#
        );
        assert_eq!(wire(Action::Led(Switch::Off)), r#"{"system":{"set_led_off":{"off":1}}}"#);
        assert_eq!(wire(Action::Led(Switch::Toggle)), r#"{"system":{"set_led_off":{"off":1}}}"#);
        assert_eq!(
            wire(Action::Alias("Büro ☃".into())),
            r#"{"system":{"set_dev_alias":{"alias":"Büro ☃"}}}"#
        );
        assert_eq!(wire(Action::Reboot), r#"{"system":{"reboot":{"delay":1}}}"#);
        assert_eq!(request(&Action::Refresh, &hs110()).unwrap(), None);
    }

    #[test]
    fn an_outlet_that_is_not_there_is_refused_without_a_request() {
        let action = Action::Relay { outlet: 1, to: Switch::On };
        assert_eq!(request(&action, &hs110()), Err(Error::Unsupported("no such outlet")));
    }
}
