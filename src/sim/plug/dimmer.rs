//! The `smartlife.iot.dimmer` module (protocol.md 2.6).

use super::super::json::{Fields, Json, fields, put};
use super::SimPlug;
use super::call::{Answer, Call, NO_METHOD, Outcome};

pub(super) const MODULE: &str = "smartlife.iot.dimmer";

/// A dimmer's level and settings.
#[derive(Debug, Clone)]
pub(super) struct Dimmer {
    /// 1 to 100, also while off.
    pub level: i64,
    /// What `get_dimmer_parameters` says.
    pub parameters: Fields,
}

impl Dimmer {
    pub fn new(level: i64) -> Dimmer {
        let parameters = fields([
            ("minThreshold", Json::Int(0)),
            ("fadeOnTime", Json::Int(1000)),
            ("fadeOffTime", Json::Int(1000)),
            ("gentleOnTime", Json::Int(3000)),
            ("gentleOffTime", Json::Int(10_000)),
            ("rampRate", Json::Int(30)),
            ("bulb_type", Json::Int(1)),
        ]);
        Dimmer { level, parameters }
    }
}

pub(super) fn call(plug: &mut SimPlug, call: &Call<'_>, answer: &mut Answer) -> Outcome {
    let Some(dimmer) = &mut plug.dimmer else { return Err(NO_METHOD) };
    let mut setting = |argument: &str, parameter: &str, range| {
        let value = call.within(argument, range)?;
        put(&mut dimmer.parameters, parameter, value.into());
        Ok(Fields::new())
    };
    match call.method {
        "get_dimmer_parameters" => Ok(dimmer.parameters.clone()),
        "get_default_behavior" => {
            let mode = |mode: &str| Json::object([("mode", mode.into())]);
            Ok(fields([
                ("soft_on", mode("last_status")),
                ("hard_on", mode("last_status")),
                ("long_press", mode("instant_on_off")),
                ("double_click", mode("gentle_on_off")),
            ]))
        }
        // Does not switch on.
        "set_brightness" => {
            dimmer.level = call.within("brightness", 1..=100)?;
            Ok(Fields::new())
        }
        "set_switch_state" => {
            let on = call.bit("state")?;
            plug.outlets[0].command(on, call.now, &plug.clock);
            answer.relay_commands += 1;
            Ok(Fields::new())
        }
        // Without a duration the level is stored and nothing lights (homeassistant.md 8.3).
        "set_dimmer_transition" => {
            let level = call.within("brightness", 0..=100)?;
            let fades = call.int("duration").is_ok_and(|duration| duration > 0);
            if level > 0 {
                dimmer.level = level;
            }
            if fades {
                plug.outlets[0].command(level > 0, call.now, &plug.clock);
                answer.relay_commands += 1;
            }
            Ok(Fields::new())
        }
        "set_fade_on_time" => setting("fadeTime", "fadeOnTime", 0..=10_000),
        "set_fade_off_time" => setting("fadeTime", "fadeOffTime", 0..=10_000),
        "set_gentle_on_time" => setting("duration", "gentleOnTime", 0..=120_000),
        "set_gentle_off_time" => setting("duration", "gentleOffTime", 0..=120_000),
        "set_button_ramp_rate" => setting("rampRate", "rampRate", 10..=50),
        "calibrate_brightness" => setting("minThreshold", "minThreshold", 0..=51),
        "set_double_click_action" | "set_long_press_action" => call.text("mode").map(|_| Fields::new()),
        _ => Err(NO_METHOD),
    }
}
