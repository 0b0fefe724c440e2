//! Which changes of a reading are worth a message. Meters and radios tremble; every message is a row in somebody's
//! database (homeassistant.md 4.1 and 6, row 25).

use crate::plug::emeter::Emeter;
use crate::plug::reading::Reading;

/// RSSI moves by a decibel or two with every poll.
const RSSI_DBM: u64 = 3;

/// Whether `new` differs from what is shown by more than trembling. What is not a measurement counts in full.
pub fn is_news(shown: &Reading, new: &Reading) -> bool {
    differs_at_all(shown, new)
        || shown.rssi.zip(new.rssi).is_some_and(|(a, b)| a.abs_diff(b) >= RSSI_DBM)
        || {
            let meters = shown.outlets.iter().zip(&new.outlets);
            meters.filter_map(|(a, b)| a.emeter.zip(b.emeter)).any(|(a, b)| measures_differ(&a, &b))
        }
}

/// Whether the two differ in anything but the size of a measurement.
fn differs_at_all(shown: &Reading, new: &Reading) -> bool {
    let without_measures = |reading: &Reading| {
        let known = |emeter: Emeter| {
            let zeroed = |value: Option<u64>| value.map(|_| 0);
            Emeter {
                power_mw: zeroed(emeter.power_mw),
                voltage_mv: zeroed(emeter.voltage_mv),
                current_ma: zeroed(emeter.current_ma),
                total_wh: zeroed(emeter.total_wh),
            }
        };
        let mut reading = reading.clone();
        reading.rssi = reading.rssi.map(|_| 0);
        for outlet in &mut reading.outlets {
            outlet.emeter = outlet.emeter.map(known);
        }
        reading
    };
    without_measures(shown) != without_measures(new)
}

fn measures_differ(shown: &Emeter, new: &Emeter) -> bool {
    // At least half a watt, or 2 % of a smaller load; never finer than what is published (0.1 W).
    let power = moved(shown.power_mw, new.power_mw, |value| (value / 50).clamp(100, 500));
    let voltage = moved(shown.voltage_mv, new.voltage_mv, |_| 500);
    let current = moved(shown.current_ma, new.current_ma, |value| (value / 50).max(5));
    let energy = shown.total_wh != new.total_wh;
    power || voltage || current || energy
}

fn moved(shown: Option<u64>, new: Option<u64>, band: impl Fn(u64) -> u64) -> bool {
    shown.zip(new).is_some_and(|(shown, new)| shown.abs_diff(new) >= band(shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::reading::tests::hs110;

    fn with(change: impl FnOnce(&mut Reading)) -> Reading {
        let mut reading = hs110();
        change(&mut reading);
        reading
    }

    fn metered(change: impl FnOnce(&mut Emeter)) -> Reading {
        with(|reading| change(reading.outlets[0].emeter.as_mut().unwrap()))
    }

    #[test]
    fn trembling_is_no_news_and_everything_else_is() {
        let shown = hs110(); // 12.3 W, 230.1 V, 54 mA, -54 dBm
        for (news, new) in [
            (false, hs110()),
            (false, with(|reading| reading.rssi = Some(-56))),
            (true, with(|reading| reading.rssi = Some(-57))),
            (true, with(|reading| reading.rssi = None)),
            (true, with(|reading| reading.alias = "Lamp".into())),
            (true, with(|reading| reading.led = Some(false))),
            (true, with(|reading| reading.outlets[0].relay = false)),
            (true, with(|reading| reading.outlets[0].on_since = None)),
            (false, metered(|emeter| emeter.power_mw = Some(12_540))),
            (true, metered(|emeter| emeter.power_mw = Some(12_550))),
            (true, metered(|emeter| emeter.power_mw = Some(0))),
            (true, metered(|emeter| emeter.power_mw = None)),
            (false, metered(|emeter| emeter.voltage_mv = Some(230_500))),
            (true, metered(|emeter| emeter.voltage_mv = Some(230_600))),
            (false, metered(|emeter| emeter.current_ma = Some(58))),
            (true, metered(|emeter| emeter.current_ma = Some(59))),
            (true, metered(|emeter| emeter.total_wh = Some(12_346))),
        ] {
            assert_eq!(is_news(&shown, &new), news, "{new:?}");
        }
    }

    #[test]
    fn a_large_load_is_shown_to_half_a_watt() {
        let load = |milliwatts| metered(|emeter| emeter.power_mw = Some(milliwatts));
        assert!(!is_news(&load(2_000_000), &load(2_000_499)));
        assert!(is_news(&load(2_000_000), &load(2_000_500)));
    }
}
