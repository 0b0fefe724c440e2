//! The `netif` module: the Wi-Fi of a plug that is in some (protocol.md 2.5).

use super::super::json::{Json, fields};
use super::SimPlug;
use super::call::{Call, NO_METHOD, Outcome};

pub(super) fn call(plug: &mut SimPlug, call: &Call<'_>) -> Outcome {
    let rssi =
        plug.sysinfo.iter().find(|(key, _)| key == "rssi").map_or(Json::Int(-60), |(_, rssi)| rssi.clone());
    match call.method {
        "get_scaninfo" => {
            call.int("refresh")?;
            let network = Json::object([("ssid", "Simulated".into()), ("key_type", Json::Int(3))]);
            Ok(fields([("ap_list", Json::List(vec![network]))]))
        }
        "get_stainfo" => {
            Ok(fields([("ssid", "Simulated".into()), ("key_type", Json::Int(3)), ("rssi", rssi)]))
        }
        "set_stainfo" => {
            call.text("ssid")?;
            call.text("password")?;
            call.within("key_type", 0..=3)?;
            Ok(fields([("mac", plug.mac.as_str().into())]))
        }
        _ => Err(NO_METHOD),
    }
}
