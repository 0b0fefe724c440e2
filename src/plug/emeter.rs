//! The energy meter's reply, of both generations (protocol.md 4), in integer milli-units.
//!
//! Generation 1 (HS110 hardware 1.0) sends floats of whole units: `power`, `voltage`, `current`, `total` in kWh.
//! Generation 2 sends integers: `power_mw`, `voltage_mv`, `current_ma`, `total_wh`. They are told apart key by key,
//! never by model. Integers inside mean that nothing like 157.06000000000003 can ever be published.

use serde_json::{Map, Value};

/// One reading of a meter. `None` is "unknown", never zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Emeter {
    /// Active power in mW.
    pub power_mw: Option<u64>,
    /// Voltage in mV.
    pub voltage_mv: Option<u64>,
    /// Current in mA.
    pub current_ma: Option<u64>,
    /// The plug's counter in Wh. May restart from zero when the plug loses power.
    pub total_wh: Option<u64>,
}

/// No household meter shows more than this (1 GW, 1 GV ...); beyond it a number is rubbish.
const PLAUSIBLE: f64 = 1e12;

impl Emeter {
    /// Reads the object under `emeter.get_realtime`. Rubbish in one quantity leaves the others alone.
    pub fn parse(realtime: &Map<String, Value>) -> Emeter {
        let quantity = |milli: &str, whole: &str| {
            let number = |key: &str| realtime.get(key).and_then(Value::as_f64);
            number(milli).or_else(|| number(whole).map(|value| value * 1000.0)).and_then(plausible)
        };
        Emeter {
            power_mw: quantity("power_mw", "power"),
            voltage_mv: quantity("voltage_mv", "voltage"),
            current_ma: quantity("current_ma", "current"),
            // kWh to Wh is a factor of 1000 as well.
            total_wh: quantity("total_wh", "total"),
        }
    }
}

fn plausible(milli: f64) -> Option<u64> {
    (0.0..PLAUSIBLE).contains(&milli).then(|| milli.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Emeter {
        Emeter::parse(serde_json::from_str::<Value>(json).unwrap().as_object().unwrap())
    }

    #[test]
    fn generation_1_sends_floats_of_whole_units() {
        let wire =
            r#"{"current":0.022636,"voltage":238.338504,"power":0.619029,"total":0.216000,"err_code":0}"#;
        let expected = Emeter {
            power_mw: Some(619),
            voltage_mv: Some(238_339),
            current_ma: Some(23),
            total_wh: Some(216),
        };
        assert_eq!(parse(wire), expected);
    }

    #[test]
    fn generation_2_sends_integers_of_milli_units() {
        let wire = r#"{"current_ma":54,"voltage_mv":242327,"power_mw":12300,"total_wh":12345,"err_code":0}"#;
        let expected = Emeter {
            power_mw: Some(12_300),
            voltage_mv: Some(242_327),
            current_ma: Some(54),
            total_wh: Some(12_345),
        };
        assert_eq!(parse(wire), expected);
    }

    #[test]
    fn rubbish_in_one_quantity_is_unknown_and_never_zero() {
        let wire = r#"{"current_ma":"54","voltage_mv":-1,"power_mw":1e308,"total_wh":7}"#;
        assert_eq!(parse(wire), Emeter { total_wh: Some(7), ..Emeter::default() });
        assert_eq!(parse("{}"), Emeter::default());
    }
}
