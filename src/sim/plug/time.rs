//! The `time` module: local time without a zone, and the number of the zone (protocol.md 2.2).

use jiff::civil::DateTime;

use super::super::json::{Fields, Json, fields};
use super::SimPlug;
use super::call::{Call, INVALID, NO_METHOD, Outcome, Refusal};

pub(super) fn call(plug: &mut SimPlug, call: &Call<'_>) -> Outcome {
    match call.method {
        "get_time" => {
            let shown = plug.clock.show(call.now);
            let part = |value: i8| Json::Int(value.into());
            Ok(fields([
                ("year", Json::Int(shown.year().into())),
                ("month", part(shown.month())),
                ("mday", part(shown.day())),
                ("hour", part(shown.hour())),
                ("min", part(shown.minute())),
                ("sec", part(shown.second())),
            ]))
        }
        "get_timezone" => Ok(fields([("index", plug.clock.zone.into())])),
        // All seven fields or nothing.
        "set_timezone" => {
            let zone = call.within("index", 0..=109)?;
            plug.clock.set(call.now, told(call)?);
            plug.clock.zone = zone;
            Ok(Fields::new())
        }
        "set_time" => {
            plug.clock.set(call.now, told(call)?);
            Ok(Fields::new())
        }
        _ => Err(NO_METHOD),
    }
}

fn told(call: &Call<'_>) -> Result<DateTime, Refusal> {
    let part = |key: &str| call.int(key).and_then(|value| i8::try_from(value).map_err(|_| INVALID));
    let year = i16::try_from(call.int("year")?).map_err(|_| INVALID)?;
    let (month, day) = (part("month")?, part("mday")?);
    DateTime::new(year, month, day, part("hour")?, part("min")?, part("sec")?, 0).map_err(|_| INVALID)
}
