//! Which changes of a reading are worth a message. Meters and radios tremble; every message is a row in somebody's
//! database (homeassistant.md 4.1 and 6, row 25).

use std::time::Duration;

use crate::plug::emeter::Emeter;
use crate::plug::reading::{Outlet, Reading};
use crate::plug::timer::Timer;

/// RSSI moves by a decibel or two with every poll.
const RSSI_DBM: u64 = 3;

/// The time a timer has left runs down with every poll.
const TIMER: Duration = Duration::from_secs(30);

/// Whether `new` differs from what is shown by more than trembling: in the size of a measurement.
pub fn measures_moved(shown: &Reading, new: &Reading) -> bool {
    shown.rssi.zip(new.rssi).is_some_and(|(a, b)| a.abs_diff(b) >= RSSI_DBM)
        || shown.outlets.iter().zip(&new.outlets).any(|(a, b)| {
            a.emeter.zip(b.emeter).is_some_and(|(a, b)| measures_differ(&a, &b))
                || a.timer.zip(b.timer).is_some_and(|(a, b)| a.remaining.abs_diff(b.remaining) >= TIMER)
        })
}

/// Whether the two differ in anything but the size of a measurement. Such a difference is never kept back.
pub fn is_news(shown: &Reading, new: &Reading) -> bool {
    let outlets = shown.outlets.iter().map(outlet_without_measures);
    without_measures(shown) != without_measures(new)
        || outlets.ne(new.outlets.iter().map(outlet_without_measures))
}

/// Of a measurement counts that there is one.
fn without_measures(reading: &Reading) -> impl PartialEq {
    // Each field by name: whoever adds one decides here.
    let Reading {
        mac,
        protocol,
        kind,
        alias,
        model,
        hw_ver,
        sw_ver,
        device_id,
        rssi,
        led,
        cloud,
        motion,
        outlets: _,
    } = reading;
    ((mac, protocol, kind), (alias, model, hw_ver, sw_ver, device_id), (rssi.is_some(), led, cloud, motion))
}

fn outlet_without_measures(outlet: &Outlet) -> impl PartialEq {
    let Outlet { child, number, alias, relay, on_since, brightness, emeter, timer, next_action } = outlet;
    let known = emeter.map(|emeter| emeter.map(|_| 0));
    let timer = timer.map(|Timer { switches_on, at, remaining: _ }| (switches_on, at));
    ((child, number, alias), (relay, on_since, brightness), (known, timer, next_action))
}

fn measures_differ(shown: &Emeter, new: &Emeter) -> bool {
    // At least half a watt, or 2 % of a smaller load; never finer than what is published (0.1 W).
    let power = moved(shown.power_mw, new.power_mw, |value| (value / 50).clamp(100, 500));
    let voltage = moved(shown.voltage_mv, new.voltage_mv, |_| 500);
    let current = moved(shown.current_ma, new.current_ma, |value| (value / 50).max(5));
    let counters = |emeter: &Emeter| (emeter.total_wh, emeter.today_wh, emeter.month_wh);
    let energy = counters(shown) != counters(new);
    power || voltage || current || energy
}

fn moved(shown: Option<u64>, new: Option<u64>, band: impl Fn(u64) -> u64) -> bool {
    shown.zip(new).is_some_and(|(shown, new)| shown.abs_diff(new) >= band(shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::sysinfo::tests::hs110;

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
            assert_eq!(is_news(&shown, &new) || measures_moved(&shown, &new), news, "{new:?}");
        }
    }

    #[test]
    fn a_large_load_is_shown_to_half_a_watt() {
        let load = |milliwatts| metered(|emeter| emeter.power_mw = Some(milliwatts));
        assert!(!measures_moved(&load(2_000_000), &load(2_000_499)));
        assert!(measures_moved(&load(2_000_000), &load(2_000_500)));
    }
}
