//! State as users see it: one JSON object for a plug, and one for each outlet of a strip, always with every key that its
//! kind has (homeassistant.md 4.1). `null` is "unknown". Numbers are rounded once, from integers, so that no
//! 157.06000000000003 appears.

use humantime::format_rfc3339_seconds;
use serde::Serialize;

use crate::plug::emeter::Emeter;
use crate::plug::reading::{Outlet, Reading};

/// A key that is there, possibly `null`, or not there at all.
type Key<T> = Option<Option<T>>;

#[derive(Serialize)]
struct State {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    brightness: Option<u8>,
    #[serde(flatten)]
    energy: Option<Energy>,
    #[serde(flatten)]
    device: Option<Device>,
    on_since: Option<String>,
    #[serde(flatten)]
    plans: Option<Plans>,
}

/// What a meter says.
#[derive(Serialize)]
struct Energy {
    power: Option<f64>,
    voltage: Option<f64>,
    current: Option<f64>,
    energy_total: Option<f64>,
    energy_today: Option<f64>,
    energy_month: Option<f64>,
}

/// What there is once in a device, however many outlets it has.
#[derive(Serialize)]
struct Device {
    led: Option<&'static str>,
    rssi: Option<i64>,
    cloud: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pir: Key<&'static str>,
}

/// What an outlet is going to do by itself.
#[derive(Serialize)]
struct Plans {
    timer_action: Option<&'static str>,
    timer_remaining: Option<u64>,
    timer_at: Option<String>,
    next_action: Option<&'static str>,
    next_action_at: Option<String>,
}

/// What Home Assistant compares text with.
pub fn on_off(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}

/// The state of a plug, of a strip as a whole: power to 0.1 W, voltage to 0.1 V, current to 1 mA, energy to 1 Wh.
pub fn render(reading: &Reading) -> Vec<u8> {
    let device = Device {
        led: reading.led.map(on_off),
        rssi: reading.rssi,
        cloud: reading.cloud.map(on_off),
        pir: reading.motion.map(|motion| motion.enabled.map(on_off)),
    };
    let whole = reading.whole();
    let plans = (!reading.is_strip()).then(|| plans(&whole));
    write(&whole, Some(device), plans)
}

/// The state of one outlet of a strip.
pub fn outlet(outlet: &Outlet) -> Vec<u8> {
    write(outlet, None, Some(plans(outlet)))
}

fn write(outlet: &Outlet, device: Option<Device>, plans: Option<Plans>) -> Vec<u8> {
    let state = State {
        state: on_off(outlet.relay),
        // Home Assistant ignores a brightness of 0 (homeassistant.md 2).
        brightness: outlet.brightness.map(|percent| percent.max(1)),
        energy: outlet.emeter.as_ref().map(energy),
        device,
        on_since: outlet.on_since.map(|moment| format_rfc3339_seconds(moment).to_string()),
        plans,
    };
    serde_json::to_vec(&state).expect("a state is plain data")
}

fn energy(emeter: &Emeter) -> Energy {
    let rounded = |milli: Option<u64>, step: u64, per_unit: f64| {
        milli.map(|milli| ((milli + step / 2) / step) as f64 / per_unit)
    };
    Energy {
        power: rounded(emeter.power_mw, 100, 10.0),
        voltage: rounded(emeter.voltage_mv, 100, 10.0),
        current: rounded(emeter.current_ma, 1, 1000.0),
        energy_total: rounded(emeter.total_wh, 1, 1000.0),
        energy_today: rounded(emeter.today_wh, 1, 1000.0),
        energy_month: rounded(emeter.month_wh, 1, 1000.0),
    }
}

fn plans(outlet: &Outlet) -> Plans {
    let (timer, next) = (outlet.timer, outlet.next_action);
    Plans {
        timer_action: timer.map(|timer| on_off(timer.switches_on)),
        timer_remaining: timer.map(|timer| timer.remaining.as_secs()),
        timer_at: timer.map(|timer| format_rfc3339_seconds(timer.at).to_string()),
        next_action: next.map(|next| on_off(next.switches_on)),
        // By the plug's own clock, so without a zone.
        next_action_at: next.map(|next| {
            let (hours, minutes, seconds) =
                (next.second_of_day / 3600, next.second_of_day / 60 % 60, next.second_of_day % 60);
            format!("{hours:02}:{minutes:02}:{seconds:02}")
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::plug::reading::Motion;
    use crate::plug::sysinfo::tests::{STRIP, hs110, now, parse};
    use crate::plug::timer::Timer;

    fn text(reading: &Reading) -> String {
        String::from_utf8(render(reading)).unwrap()
    }

    #[test]
    fn a_metering_plug() {
        assert_eq!(
            text(&hs110()),
            r#"{"state":"ON","power":12.3,"voltage":230.1,"current":0.054,"energy_total":12.345,"energy_today":null,"energy_month":null,"led":"ON","rssi":-54,"cloud":null,"on_since":"2027-01-15T07:00:00Z","timer_action":null,"timer_remaining":null,"timer_at":null,"next_action":null,"next_action_at":null}"#
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
            r#"{"state":"ON","power":null,"voltage":null,"current":null,"energy_total":null,"energy_today":null,"energy_month":null,"led":null,"rssi":null,"cloud":null,"on_since":null,"timer_action":null,"timer_remaining":null,"timer_at":null,"next_action":null,"next_action_at":null}"#
        );
    }

    #[test]
    fn a_plain_plug_has_no_metering_keys() {
        let mut reading = hs110();
        reading.outlets[0].emeter = None;
        assert_eq!(
            text(&reading),
            r#"{"state":"ON","led":"ON","rssi":-54,"cloud":null,"on_since":"2027-01-15T07:00:00Z","timer_action":null,"timer_remaining":null,"timer_at":null,"next_action":null,"next_action_at":null}"#
        );
    }

    #[test]
    fn a_strip_and_its_outlets() {
        let mut strip = parse(STRIP).unwrap();
        strip.cloud = Some(false);
        for outlet in &mut strip.outlets {
            outlet.emeter =
                Some(Emeter { power_mw: Some(5_000), voltage_mv: Some(120_000), ..Emeter::default() });
        }
        strip.outlets[1].timer = Some(Timer::ending_in(Duration::from_secs(600), false, now()));
        assert_eq!(
            text(&strip),
            r#"{"state":"ON","power":10.0,"voltage":120.0,"current":null,"energy_total":null,"energy_today":null,"energy_month":null,"led":"ON","rssi":-54,"cloud":"OFF","on_since":"2027-01-15T07:59:00Z"}"#
        );
        let first = String::from_utf8(outlet(&strip.outlets[0])).unwrap();
        assert!(first.ends_with(r#""on_since":null,"timer_action":null,"timer_remaining":null,"timer_at":null,"next_action":"ON","next_action_at":"20:45:00"}"#), "{first}");
        let second = String::from_utf8(outlet(&strip.outlets[1])).unwrap();
        assert!(second.starts_with(r#"{"state":"ON","power":5.0,"voltage":120.0,"#), "{second}");
        assert!(
            second
                .contains(r#""timer_action":"OFF","timer_remaining":600,"timer_at":"2027-01-15T08:10:00Z""#),
            "{second}"
        );
        assert!(!second.contains("rssi") && !second.contains("led"), "{second}");
    }

    #[test]
    fn a_dimmer_keeps_its_brightness_while_off() {
        let mut reading = hs110();
        reading.outlets[0].emeter = None;
        (reading.outlets[0].relay, reading.outlets[0].brightness) = (false, Some(40));
        reading.motion = Some(Motion { enabled: Some(true) });
        let text = text(&reading);
        assert!(
            text.starts_with(r#"{"state":"OFF","brightness":40,"led":"ON""#)
                && text.contains(r#""pir":"ON""#),
            "{text}"
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
