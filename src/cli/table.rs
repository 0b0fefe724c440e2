//! What `kasa2mqtt plug` prints of a plug: lines for people, JSON for programs.

use humantime::format_rfc3339_seconds;
use serde_json::Value;

use crate::bridge::state::{self, on_off};
use crate::plug::command::Outlets;
use crate::plug::error::{Error, unsupported};
use crate::plug::reading::{Outlet, Reading};

/// ON or OFF; for a strip as a whole, a line for each outlet.
pub fn state(reading: &Reading, outlets: Outlets) -> Result<String, Error> {
    match outlets {
        Outlets::One(number) => Ok(on_off(one(reading, number)?.relay).into()),
        Outlets::All if reading.is_strip() => {
            let line =
                |outlet: &Outlet| format!("{} {:<3} {}", outlet.number, on_off(outlet.relay), outlet.alias);
            let lines: Vec<String> =
                reading.outlets.iter().map(|outlet| line(outlet).trim_end().into()).collect();
            Ok(lines.join("\n"))
        }
        Outlets::All => Ok(on_off(reading.whole().relay).into()),
    }
}

/// The state as it is published, with what identifies the plug.
pub fn as_json(reading: &Reading, outlets: Outlets) -> Result<Value, Error> {
    let parse = |state: Vec<u8>| serde_json::from_slice::<Value>(&state).expect("we have just written it");
    let mut all = match outlets {
        Outlets::All => parse(state::render(reading)),
        Outlets::One(number) => return Ok(parse(state::outlet(one(reading, number)?))),
    };
    all["mac"] = reading.mac.to_string().into();
    all["alias"] = reading.alias.as_str().into();
    all["model"] = reading.model.as_str().into();
    all["hw"] = reading.hw_ver.as_str().into();
    all["sw"] = reading.sw_ver.as_str().into();
    if reading.is_strip() {
        let outlet = |outlet: &Outlet| {
            let mut state = parse(state::outlet(outlet));
            state["number"] = outlet.number.into();
            state["alias"] = outlet.alias.as_str().into();
            state
        };
        all["outlets"] = reading.outlets.iter().map(outlet).collect();
    }
    Ok(all)
}

/// What the plug says of itself.
pub fn info(reading: &Reading) -> String {
    let whole = reading.whole();
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_string();
    let unknown = || "unknown".to_string();
    let mut rows = vec![
        ("alias", reading.alias.clone()),
        ("model", reading.model.clone()),
        ("mac", reading.mac.to_string()),
        ("hardware", reading.hw_ver.clone()),
        ("firmware", reading.sw_ver.clone()),
        ("relay", on_off(whole.relay).into()),
    ];
    rows.extend(whole.brightness.map(|percent| ("level", format!("{percent} %"))));
    let on_since = whole.on_since.map(|moment| format_rfc3339_seconds(moment).to_string());
    rows.push(("on since", on_since.unwrap_or_else(|| "-".into())));
    let timer = whole.timer.map(|timer| {
        format!("{} in {}", on_off(timer.switches_on), humantime::format_duration(timer.remaining))
    });
    rows.extend(timer.map(|timer| ("timer", timer)));
    rows.push(("led", reading.led.map_or_else(unknown, |lit| on_off(lit).into())));
    rows.push(("rssi", reading.rssi.map_or_else(unknown, |dbm| format!("{dbm} dBm"))));
    rows.push(("cloud", reading.cloud.map_or_else(unknown, yes_no)));
    rows.extend(
        reading.motion.map(|motion| ("motion", motion.enabled.map_or_else(unknown, |on| on_off(on).into()))),
    );
    rows.push(("meter", yes_no(reading.has_meter())));
    let mut lines: Vec<String> = rows.into_iter().map(|(key, value)| format!("{key:<9} {value}")).collect();
    if reading.is_strip() {
        let outlet = |outlet: &Outlet| {
            format!("outlet {}  {:<3} {}", outlet.number, on_off(outlet.relay), outlet.alias)
        };
        lines.extend(reading.outlets.iter().map(|one| outlet(one).trim_end().to_string()));
    }
    lines.join("\n")
}

/// What the meter says.
pub fn energy(reading: &Reading, outlets: Outlets) -> Result<String, Error> {
    if !reading.has_meter() {
        return Err(unsupported("no energy meter"));
    }
    let state = as_json(reading, outlets)?;
    let row = |key: &str, unit: &str| match &state[key] {
        Value::Null => "unknown".into(),
        number => format!("{number} {unit}"),
    };
    let rows = [
        ("power", row("power", "W")),
        ("voltage", row("voltage", "V")),
        ("current", row("current", "A")),
        ("total", row("energy_total", "kWh")),
        ("today", row("energy_today", "kWh")),
        ("month", row("energy_month", "kWh")),
    ];
    Ok(rows.map(|(key, value)| format!("{key:<9} {value}")).join("\n"))
}

fn one(reading: &Reading, number: u8) -> Result<&Outlet, Error> {
    let outlet = reading.outlets.iter().find(|outlet| outlet.number == number && outlet.child.is_some());
    outlet.ok_or_else(|| unsupported(format!("no outlet {number}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plug::sysinfo::tests::{STRIP, hs110, parse};

    #[test]
    fn a_strip_line_by_line() {
        let strip = parse(STRIP).unwrap();
        assert_eq!(state(&strip, Outlets::All).unwrap(), "1 OFF\n2 ON  Screen");
        assert_eq!(state(&strip, Outlets::One(2)).unwrap(), "ON");
        assert!(state(&strip, Outlets::One(3)).is_err() && state(&hs110(), Outlets::One(1)).is_err());
        assert_eq!(as_json(&strip, Outlets::All).unwrap()["outlets"][1]["alias"], json!("Screen"));
        assert!(info(&strip).ends_with("outlet 1  OFF\noutlet 2  ON  Screen"), "{}", info(&strip));
    }

    #[test]
    fn a_meter_row_by_row() {
        let text = energy(&hs110(), Outlets::All).unwrap();
        assert!(
            text.starts_with("power     12.3 W\nvoltage   230.1 V\ncurrent   0.054 A\ntotal     12.345 kWh"),
            "{text}"
        );
        let mut plain = hs110();
        plain.outlets[0].emeter = None;
        assert!(energy(&plain, Outlets::All).is_err());
    }
}
