//! What was found, for people and for scripts.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::bridge::state::on_off;
use crate::plug::scan::found::{Found, Protocol};

const HEAD: [&str; 9] = ["NAME", "MODEL", "MAC", "ADDRESS", "RELAY", "POWER", "RSSI", "FIRMWARE", "PROTOCOL"];

/// A name longer than this is cut.
const NAME_WIDTH: usize = 24;

/// Where the table is too wide, names are cut down to this, and then columns left out that the JSON has.
const SHORTEST_NAME: usize = 12;
const DISPENSABLE: [&str; 2] = ["FIRMWARE", "RSSI"];

/// What most terminals have.
const WIDTH: usize = 80;

const CLOSED: &str = "* The firmware of this plug closed port 9999 and speaks KLAP instead, which needs the account that \
     it was\n  set up with: kasa.username and kasa.password in the configuration. Or the port is opened in the Kasa \
     app:\n  Me > Settings > Third-Party Compatibility (off and on again), until a power cycle or an update closes it.";

const UNSUPPORTED: &str = "Unsupported devices are bulbs, or speak another protocol (Tapo).";

/// A table, with an explanation of what cannot be used.
pub fn text(found: &[Found]) -> String {
    let mut rows: Vec<Vec<String>> =
        std::iter::once(HEAD.map(String::from)).chain(found.iter().map(row)).map(Vec::from).collect();
    fit(&mut rows);
    let widths = widths(&rows);
    let gap = if width(&widths, 2) <= WIDTH { "  " } else { " " };
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join(gap);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if found.iter().any(Found::is_closed) {
        let _ = writeln!(text, "\n{CLOSED}");
    }
    if found.iter().any(|one| one.protocol == Protocol::Unsupported) {
        let _ = writeln!(text, "\n{UNSUPPORTED}");
    }
    text.truncate(text.trim_end().len());
    text
}

/// Makes the table as narrow as terminals are, as far as it can.
fn fit(rows: &mut [Vec<String>]) {
    for left_out in std::iter::once(None).chain(DISPENSABLE.map(Some)) {
        if let Some(column) = left_out.and_then(|name| rows[0].iter().position(|head| head == name)) {
            rows.iter_mut().for_each(|row| drop(row.remove(column)));
        }
        let widths = widths(rows);
        let others = width(&widths, 1) - widths[0];
        let room = WIDTH.saturating_sub(others);
        if widths[0].min(SHORTEST_NAME) <= room {
            rows.iter_mut().for_each(|row| row[0] = cut(&row[0], room));
            return;
        }
    }
    rows.iter_mut().for_each(|row| row[0] = cut(&row[0], SHORTEST_NAME));
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let widest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    (0..rows[0].len()).map(widest).collect()
}

fn width(widths: &[usize], gap: usize) -> usize {
    widths.iter().sum::<usize>() + gap * (widths.len() - 1)
}

fn cut(name: &str, width: usize) -> String {
    match name.chars().count() > width {
        true => name.chars().take(width.saturating_sub(3)).chain("...".chars()).collect(),
        false => name.into(),
    }
}

fn row(found: &Found) -> [String; 9] {
    let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
    let name = cut(&found.alias, NAME_WIDTH);
    let on = found.relays.iter().filter(|on| **on).count();
    let relay = match found.relays.as_slice() {
        [] => String::new(),
        [on] => on_off(*on).into(),
        outlets => format!("{on}/{}", outlets.len()),
    };
    // The region, the build and the colons are in the JSON; here they would cost the line its 80 columns.
    let model = found.model.split('(').next().unwrap_or_default().to_string();
    let firmware = found.sw_ver.split(' ').next().unwrap_or_default().to_string();
    let mark = if found.is_closed() { "*" } else { "" };
    [
        or_dash(name),
        or_dash(model),
        or_dash(found.mac.map(|mac| mac.hex()).unwrap_or_default()),
        found.address.ip().to_string(),
        or_dash(relay),
        or_dash(found.power_mw.map(|power| format!("{:.1} W", power as f64 / 1000.0)).unwrap_or_default()),
        or_dash(found.rssi.map(|dbm| dbm.to_string()).unwrap_or_default()),
        or_dash(firmware),
        format!("{}{mark}", found.protocol.name()),
    ]
}

/// An array of objects that all have the same keys; `null` is "unknown".
pub fn json(found: &[Found]) -> Value {
    found.iter().map(object).collect()
}

fn object(found: &Found) -> Value {
    let known = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let note = match found.protocol {
        _ if found.is_closed() => {
            "port 9999 is closed by the firmware; give kasa.username and kasa.password, or open it: Kasa app > Me > \
            Settings > Third-Party Compatibility"
                .into()
        }
        Protocol::Unsupported => UNSUPPORTED.into(),
        _ => Value::Null,
    };
    json!({
        "name": known(&found.alias),
        "model": known(&found.model),
        "type": known(&found.device_type),
        "mac": found.mac.map(|mac| mac.to_string()),
        "address": found.address.ip().to_string(),
        "port": found.address.port(),
        "relays": found.relays.iter().map(|on| on_off(*on)).collect::<Vec<_>>(),
        "power": found.power_mw.map(|power| power as f64 / 1000.0),
        "rssi": found.rssi,
        "hw": known(&found.hw_ver),
        "sw": known(&found.sw_ver),
        "protocol": found.protocol.name(),
        "note": note,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plug() -> Found {
        Found {
            mac: Some("50c7bf010203".parse().unwrap()),
            open: true,
            alias: "Desk lamp".into(),
            model: "HS110(EU)".into(),
            sw_ver: "1.2.5 Build 171213 Rel.101523".into(),
            relays: vec![true],
            rssi: Some(-54),
            has_meter: true,
            power_mw: Some(12_345),
            ..Found::at("192.168.1.20:9999".parse().unwrap(), Protocol::Xor)
        }
    }

    #[test]
    fn a_row_fits_into_80_columns() {
        let table = text(&[plug()]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "NAME      MODEL MAC          ADDRESS      RELAY POWER  RSSI FIRMWARE PROTOCOL",
                "Desk lamp HS110 50c7bf010203 192.168.1.20 ON    12.3 W -54  1.2.5    xor",
            ]
        );
        assert!(lines[0].len() <= WIDTH);
    }

    #[test]
    fn strips_long_names_and_unknown_things() {
        let strip = Found {
            alias: "A name that is longer than the table".into(),
            relays: vec![true, false, true],
            power_mw: None,
            rssi: None,
            ..plug()
        };
        let table = text(&[strip]);
        assert!(table.contains("A name tha..."), "{table}");
        assert!(table.contains(" 2/3 ") && table.contains(" - "), "{table}");
    }

    #[test]
    fn a_crowd_of_everything_fits_into_80_columns() {
        let wide = Found {
            alias: "A name that is longer than the table".into(),
            power_mw: Some(1_234_500),
            sw_ver: "1.10.12 Build".into(),
            rssi: Some(-100),
            model: "KS200M(US)".into(),
            ..Found::at("192.168.100.200:9999".parse().unwrap(), Protocol::Xor)
        };
        let closed =
            Found { mac: plug().mac, ..Found::at("192.0.2.1:80".parse().unwrap(), Protocol::Unsupported) };
        let table = text(&[plug(), wide, closed]);
        assert!(table.lines().all(|line| line.chars().count() <= WIDTH), "{table}");
        assert!(table.contains("A name") && table.contains("...") && table.contains("1234.5 W"), "{table}");
        assert!(!table.contains("FIRMWARE"), "{table}");
    }

    #[test]
    fn a_closed_plug_is_told_what_that_means() {
        let closed = Found { mac: plug().mac, ..Found::at("192.0.2.1:80".parse().unwrap(), Protocol::Klap2) };
        let table = text(&[plug(), closed.clone()]);
        assert!(table.contains("klap v2*") && table.contains("Third-Party Compatibility"), "{table}");
        assert!(!text(&[plug()]).contains("Third-Party"));
        let json = json(&[plug(), closed]);
        assert!(json[1]["note"].as_str().unwrap().contains("Third-Party Compatibility"));
        assert_eq!(json[0]["note"], Value::Null);
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&json[0]), keys(&json[1]));
    }
}
