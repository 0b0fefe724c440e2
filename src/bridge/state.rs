//! A plug's state as users see it: one JSON object, always with every key its kind of plug has (homeassistant.md 4.1).
//! `null` is "unknown". Numbers are rounded once, from integers, so that no 157.06000000000003 appears.

use humantime::format_rfc3339_seconds;
use serde::Serialize;

use crate::plug::reading::Reading;

/// A key that is there, possibly `null`, or not there at all.
type Key<T> = Option<Option<T>>;

#[derive(Serialize)]
struct State {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    power: Key<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    voltage: Key<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Key<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    energy_total: Key<f64>,
    led: Option<&'static str>,
    rssi: Option<i64>,
    on_since: Option<String>,
}

/// What Home Assistant compares text with.
pub fn on_off(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}

/// The state payload: power to 0.1 W, voltage to 0.1 V, current to 1 mA, energy to 1 Wh.
pub fn render(reading: &Reading) -> Vec<u8> {
    let outlet = &reading.outlets[0];
    let metered = |quantity: fn(&crate::plug::emeter::Emeter) -> Option<u64>, step: u64, per_unit: f64| {
        outlet
            .emeter
            .map(|emeter| quantity(&emeter).map(|milli| ((milli + step / 2) / step) as f64 / per_unit))
    };
    let state = State {
        state: on_off(outlet.relay),
        power: metered(|emeter| emeter.power_mw, 100, 10.0),
        voltage: metered(|emeter| emeter.voltage_mv, 100, 10.0),
        current: metered(|emeter| emeter.current_ma, 1, 1000.0),
        energy_total: metered(|emeter| emeter.total_wh, 1, 1000.0),
        led: reading.led.map(on_off),
        rssi: reading.rssi,
        on_since: outlet.on_since.map(|moment| format_rfc3339_seconds(moment).to_string()),
    };
    serde_json::to_vec(&state).expect("a state is plain data")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plug::emeter::Emeter;
    use crate::plug::reading::tests::hs110;

    fn text(reading: &Reading) -> String {
        String::from_utf8(render(reading)).unwrap()
    }

    #[test]
    fn a_metering_plug() {
        assert_eq!(
            text(&hs110()),
            r#"{"state":"ON","power":12.3,"voltage":230.1,"current":0.054,"energy_total":12.345,"led":"ON","rssi":-54,"on_since":"2027-01-15T07:00:00Z"}"#
        );
    }

    #[test]
    fn unknown_is_null_and_never_missing_or_zero() {
        let mut reading = hs110();
        reading.outlets[0].emeter = Some(Emeter::default());
        reading.outlets[0].on_since = None;
        (reading.rssi, reading.led) = (None, None);
        assert_eq!(
            text(&reading),
            r#"{"state":"ON","power":null,"voltage":null,"current":null,"energy_total":null,"led":null,"rssi":null,"on_since":null}"#
        );
    }

    #[test]
    fn a_plain_plug_has_no_metering_keys() {
        let mut reading = hs110();
        reading.outlets[0].emeter = None;
        assert_eq!(
            text(&reading),
            r#"{"state":"ON","led":"ON","rssi":-54,"on_since":"2027-01-15T07:00:00Z"}"#
        );
    }

    proptest! {
        #[test]
        fn numbers_have_no_float_noise(power_mw in 0..4_000_000u64, total_wh in 0..100_000_000u64) {
            let mut reading = hs110();
            reading.outlets[0].emeter = Some(Emeter { power_mw: Some(power_mw), total_wh: Some(total_wh), ..Emeter::default() });
            let state: serde_json::Value = serde_json::from_slice(&render(&reading)).unwrap();
            let decimals = |key: &str| state[key].to_string().split_once('.').map_or(0, |(_, digits)| digits.len());
            prop_assert!(decimals("power") <= 1 && decimals("energy_total") <= 3, "{state}");
        }
    }
}
