//! The energy meter's replies, of both generations (protocol.md 4), in integer milli-units.
//!
//! Generation 1 (HS110 hardware 1.0) sends floats of whole units: `power`, `voltage`, `current`, `total` in kWh.
//! Generation 2 sends integers: `power_mw`, `voltage_mv`, `current_ma`, `total_wh`. They are told apart key by key,
//! never by model. Integers inside mean that nothing like 157.06000000000003 can ever be published.

use super::json::{Json, Object};
use super::reply::Method;

/// What flows now, and the counter.
pub const REALTIME: Method = ("emeter", "get_realtime");

/// Energy of each day of a month.
pub const DAYS: Method = ("emeter", "get_daystat");

/// Energy of each month of a year.
pub const MONTHS: Method = ("emeter", "get_monthstat");

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
    /// Energy since midnight by the plug's own clock, in Wh.
    pub today_wh: Option<u64>,
    /// Energy since the first of the month by the plug's own clock, in Wh.
    pub month_wh: Option<u64>,
}

/// No household meter shows more than this (1 GW, 1 GV ...); beyond it a number is rubbish.
const PLAUSIBLE: f64 = 1e12;

impl Emeter {
    /// Reads the object under `emeter.get_realtime`. Rubbish in one quantity leaves the others alone.
    pub fn parse(realtime: &Object) -> Emeter {
        Emeter {
            power_mw: quantity(realtime, "power_mw", "power"),
            voltage_mv: quantity(realtime, "voltage_mv", "voltage"),
            current_ma: quantity(realtime, "current_ma", "current"),
            // kWh to Wh is a factor of 1000 as well.
            total_wh: quantity(realtime, "total_wh", "total"),
            today_wh: None,
            month_wh: None,
        }
    }

    /// Every known quantity changed by `change`.
    pub fn map(self, change: impl Fn(u64) -> u64) -> Emeter {
        let change = |quantity: Option<u64>| quantity.map(&change);
        Emeter {
            power_mw: change(self.power_mw),
            voltage_mv: change(self.voltage_mv),
            current_ma: change(self.current_ma),
            total_wh: change(self.total_wh),
            today_wh: change(self.today_wh),
            month_wh: change(self.month_wh),
        }
    }

    /// Several meters as one: sums, and the mean of the voltages. A sum with an unknown part is unknown.
    pub fn sum(meters: &[Emeter]) -> Emeter {
        let sum = |part: fn(&Emeter) -> Option<u64>| meters.iter().map(part).sum::<Option<u64>>();
        let voltages: Vec<u64> = meters.iter().filter_map(|meter| meter.voltage_mv).collect();
        let count = voltages.len() as u64;
        Emeter {
            power_mw: sum(|meter| meter.power_mw),
            voltage_mv: (count > 0).then(|| (voltages.iter().sum::<u64>() + count / 2) / count),
            current_ma: sum(|meter| meter.current_ma),
            total_wh: sum(|meter| meter.total_wh),
            today_wh: sum(|meter| meter.today_wh),
            month_wh: sum(|meter| meter.month_wh),
        }
    }
}

/// The energy in Wh of the entry of `day_list` or `month_list` whose `key` is `number`. A day or month without an entry
/// had none; a reply without a list tells nothing.
pub fn energy_of(statistics: &Object, list: &str, key: &str, number: i64) -> Option<u64> {
    let entries = statistics.get(list)?.as_array()?;
    let is_it = |entry: &&Object| entry.get(key).and_then(Json::as_i64) == Some(number);
    match entries.iter().filter_map(Json::as_object).find(is_it) {
        Some(entry) => quantity(entry, "energy_wh", "energy"),
        None => Some(0),
    }
}

fn quantity(object: &Object, milli: &str, whole: &str) -> Option<u64> {
    let number = |key: &str| object.get(key).and_then(Json::as_f64);
    number(milli).or_else(|| number(whole).map(|value| value * 1000.0)).and_then(plausible)
}
fn plausible(milli: f64) -> Option<u64> {
    (0.0..PLAUSIBLE).contains(&milli).then(|| milli.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Emeter {
        Emeter::parse(&serde_json::from_str(json).unwrap())
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
            ..Emeter::default()
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
            ..Emeter::default()
        };
        assert_eq!(parse(wire), expected);
    }

    #[test]
    fn energy_of_a_day_in_both_generations() {
        let statistics = |json: &str| serde_json::from_str::<Object>(json).unwrap();
        let first = statistics(
            r#"{"day_list":[{"year":2016,"month":11,"day":23,"energy":0.123},
            {"year":2016,"month":11,"day":24,"energy":0.5}],"err_code":0}"#,
        );
        let second = statistics(r#"{"month_list":[{"year":2016,"month":11,"energy_wh":321}],"err_code":0}"#);
        assert_eq!(energy_of(&first, "day_list", "day", 23), Some(123));
        assert_eq!(energy_of(&second, "month_list", "month", 11), Some(321));
        assert_eq!(energy_of(&second, "month_list", "month", 12), Some(0), "nothing was used yet");
        assert_eq!(energy_of(&second, "day_list", "day", 23), None, "not an answer to this");
        let rubbish = statistics(r#"{"day_list":[7,{"day":1,"energy_wh":"5"}]}"#);
        assert_eq!(energy_of(&rubbish, "day_list", "day", 1), None);
    }

    #[test]
    fn rubbish_in_one_quantity_is_unknown_and_never_zero() {
        let wire = r#"{"current_ma":"54","voltage_mv":-1,"power_mw":1e308,"total_wh":7}"#;
        assert_eq!(parse(wire), Emeter { total_wh: Some(7), ..Emeter::default() });
        assert_eq!(parse("{}"), Emeter::default());
    }
}
