//! What a device says of itself before anything happens to it: `get_sysinfo` in the order of each generation's wire
//! (protocol.md 3.1, 3.2). What changes with time is overwritten in place when it is asked for.

use super::json::{Fields, Json, fields};
use super::model::{Generation, Model};

const G1: &str = "err_code sw_ver hw_ver type model mac deviceId hwId fwId oemId alias dev_name icon_hash relay_state \
    on_time active_mode feature updating rssi led_off latitude longitude";
const G2: &str = "sw_ver hw_ver type mic_type model mac dev_name alias relay_state brightness on_time active_mode \
    feature updating icon_hash rssi led_off longitude_i latitude_i hwId fwId deviceId oemId preferred_state \
    next_action err_code";
const G3: &str = "sw_ver hw_ver model deviceId oemId hwId rssi latitude_i longitude_i alias status obd_src mic_type \
    feature mac mic_mac updating led_off relay_state brightness on_time icon_hash dev_name active_mode next_action \
    preferred_state children child_num ntc_state err_code";

/// The keys of `sysinfo` in the order of their generation; those that the order does not know come last.
pub fn ordered(generation: Generation, mut sysinfo: Fields) -> Fields {
    let order: Vec<&str> = order(generation).split_whitespace().collect();
    let place = |key: &str| order.iter().position(|known| *known == key);
    // `err_code` ends the list, where it does not begin it.
    sysinfo.sort_by_key(|(key, _)| place(key).unwrap_or(order.len() - 2));
    sysinfo
}

/// The keys of a strip's child in the order of the wire.
pub fn ordered_child(mut child: Fields) -> Fields {
    let order = ["id", "state", "alias", "on_time", "next_action"];
    child.sort_by_key(|(key, _)| order.iter().position(|known| known == key).unwrap_or(order.len()));
    child
}

/// `get_sysinfo` of a device with this MAC.
pub fn sysinfo(model: &Model, mac: [u8; 6]) -> Fields {
    order(model.generation)
        .split_whitespace()
        .filter_map(|key| Some((key.to_owned(), field(model, mac, key)?)))
        .collect()
}

/// `50:C7:BF:01:02:03`
pub fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02X}")).join(":")
}

/// What is not said of a child of a strip by its parent.
pub fn child(device_id: &str, index: usize) -> Fields {
    fields([
        ("id", format!("{device_id}{index:02}").into()),
        ("state", Json::Int(0)),
        ("alias", format!("Plug {}", index + 1).into()),
        ("on_time", Json::Int(0)),
        ("next_action", idle()),
    ])
}

/// Nothing is planned.
pub fn idle() -> Json {
    Json::object([("type", Json::Int(-1))])
}

fn order(generation: Generation) -> &'static str {
    match generation {
        Generation::G1 => G1,
        Generation::G2 => G2,
        Generation::G3 => G3,
    }
}

/// One field, if this model has it.
fn field(model: &Model, mac: [u8; 6], key: &str) -> Option<Json> {
    let single = model.children == 0 && !model.bulb;
    let (first, second) = (model.generation == Generation::G1, model.generation == Generation::G2);
    let id = mac.map(|byte| format!("{byte:02X}")).concat();
    let device_id = format!("8006{id}{id}{id}");
    Some(match key {
        "sw_ver" => model.sw_ver.into(),
        "hw_ver" => model.hw_ver.into(),
        "model" => model.model.into(),
        "deviceId" => device_id.into(),
        "hwId" => format!("AA{id}{id}000000").into(),
        "oemId" => format!("BB{id}{id}000000").into(),
        "fwId" => "0".repeat(32).into(),
        "rssi" => Json::Int(-50 - i64::from(mac[5] % 20)),
        "latitude" | "longitude" => Json::SixDecimals(0.0),
        "type" if first => "IOT.SMARTPLUGSWITCH".into(),
        "mic_type" if model.bulb => "IOT.SMARTBULB".into(),
        "mic_type" => "IOT.SMARTPLUGSWITCH".into(),
        "mic_mac" if model.bulb => id.into(),
        "mac" if !model.bulb => colons(mac).into(),
        "feature" if !model.bulb => if model.meter { "TIM:ENE" } else { "TIM" }.into(),
        "alias" => "".into(),
        "icon_hash" if single => "".into(),
        "dev_name" if model.children == 0 => model.dev_name.into(),
        "status" => "new".into(),
        "active_mode" if single => "none".into(),
        "next_action" if single => idle(),
        "relay_state" | "on_time" if single => Json::Int(0),
        "brightness" if model.dimmer => Json::Int(100),
        "preferred_state" if model.dimmer => Json::List(
            (0..)
                .zip([100, 75, 50, 25])
                .map(|(index, level)| {
                    Json::object([("index", Json::Int(index)), ("brightness", Json::Int(level))])
                })
                .collect(),
        ),
        "children" if model.children > 0 => Json::List(
            (0..usize::from(model.children)).map(|index| Json::Object(child(&device_id, index))).collect(),
        ),
        "child_num" if model.children > 0 => Json::Int(model.children.into()),
        "ntc_state" if !model.bulb && !second => Json::Int(0),
        "led_off" if !model.bulb => Json::Int(0),
        "err_code" | "updating" | "latitude_i" | "longitude_i" => Json::Int(0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::MODELS;
    use super::*;

    #[test]
    fn what_is_ordered_stays_in_order() {
        for model in MODELS {
            let sysinfo = sysinfo(model, [1; 6]);
            let mut sorted = sysinfo.clone();
            sorted.sort_by(|left, right| left.0.cmp(&right.0));
            assert_eq!(ordered(model.generation, sorted), sysinfo, "{model}");
        }
    }

    #[test]
    fn unknown_keys_come_before_the_end() {
        let odd = vec![("err_code".into(), Json::Int(0)), ("new".into(), Json::Int(1))];
        assert_eq!(ordered(Generation::G3, odd.clone())[0].0, "new");
        assert_eq!(ordered(Generation::G1, odd)[0].0, "err_code");
    }
}
