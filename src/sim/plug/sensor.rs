//! The sensors of switches that see motion: `smartlife.iot.PIR` and `smartlife.iot.LAS` (protocol.md 2.6).

use super::super::json::{Fields, Json, fields};
use super::SimPlug;
use super::call::{Call, NO_METHOD, Outcome};

pub(super) const MOTION: &str = "smartlife.iot.PIR";
pub(super) const LIGHT: &str = "smartlife.iot.LAS";

pub(super) fn call(plug: &mut SimPlug, module: &str, call: &Call<'_>) -> Outcome {
    let recorded = plug.recorded(module, call.method);
    let Some(enabled) = &mut plug.motion else { return Err(NO_METHOD) };
    match (module, call.method) {
        (MOTION, "get_config") => {
            let mut config = recorded.unwrap_or_else(config);
            super::put(&mut config, "enable", (*enabled).into());
            Ok(config)
        }
        (MOTION, "set_enable") => {
            *enabled = call.bit("enable")?;
            Ok(Fields::new())
        }
        (MOTION, "get_adc_value") => Ok(fields([("value", Json::Int(107))])),
        (MOTION, "set_trigger_sens") => call.within("index", 0..=3).map(|_| Fields::new()),
        (MOTION, "set_cold_time") => call.int("cold_time").map(|_| Fields::new()),
        (LIGHT, "get_current_brt") => Ok(fields([("value", Json::Int(16))])),
        (LIGHT, "get_dark_status") => Ok(fields([("bDark", Json::Int(1))])),
        (LIGHT, "set_enable") => call.bit("enable").map(|_| Fields::new()),
        _ => Err(NO_METHOD),
    }
}

fn config() -> Fields {
    fields([
        ("enable", Json::Int(1)),
        ("version", "1.0".into()),
        ("trigger_index", Json::Int(2)),
        ("cold_time", Json::Int(60_000)),
    ])
}
