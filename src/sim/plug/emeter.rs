//! The `emeter` module in both spellings: floats with six decimals, then integers in milli-units (protocol.md 4).

use super::super::energy::Day;
use super::super::json::{Fields, Json, fields};
use super::SimPlug;
use super::call::{Call, NO_METHOD, Outcome};

pub(super) fn call(plug: &mut SimPlug, call: &Call<'_>) -> Outcome {
    let first = plug.is_first_generation();
    let index = call.outlet();
    let outlet = &mut plug.outlets[index];
    let energy = |day: &Day| match first {
        true => ("energy", Json::SixDecimals(day.energy() as f64 / 1000.0)),
        false => ("energy_wh", whole(day.energy())),
    };
    match call.method {
        "get_realtime" => {
            if let Some(shown) = &outlet.shown {
                return Ok(shown.clone());
            }
            let shown = outlet.meter.show(outlet.relay, call.now);
            let units = [shown.current, shown.voltage, shown.power, shown.total];
            let names = match first {
                true => ["current", "voltage", "power", "total"],
                false => ["current_ma", "voltage_mv", "power_mw", "total_wh"],
            };
            let number =
                |unit: u64| if first { Json::SixDecimals(unit as f64 / 1000.0) } else { whole(unit) };
            let slot = plug.slot_id.then(|| ("slot_id".to_owned(), Json::Int(index as i64)));
            let values = names.into_iter().zip(units).map(|(name, unit)| (name.to_owned(), number(unit)));
            Ok(slot.into_iter().chain(values).collect())
        }
        "get_daystat" => days(outlet, call, energy),
        "get_monthstat" => months(outlet, call, energy),
        "erase_emeter_stat" => {
            outlet.meter.forget();
            Ok(Fields::new())
        }
        "get_vgain_igain" => Ok(fields([("vgain", Json::Int(13255)), ("igain", Json::Int(16489))])),
        _ => Err(NO_METHOD),
    }
}

/// `day_list` of the month asked for, with one value for each day that has one.
pub(super) fn days(
    outlet: &super::Outlet,
    call: &Call<'_>,
    value: impl Fn(&Day) -> (&'static str, Json),
) -> Outcome {
    let days = outlet.meter.days(call.int("year")?, call.int("month")?).map(|(date, day)| {
        let number = |part: i64| Json::Int(part);
        Json::object([
            ("year", number(date.year().into())),
            ("month", number(date.month().into())),
            ("day", number(date.day().into())),
            value(&day),
        ])
    });
    Ok(fields([("day_list", Json::List(days.collect()))]))
}

/// `month_list` of the year asked for, with one value for each month that has one.
pub(super) fn months(
    outlet: &super::Outlet,
    call: &Call<'_>,
    value: impl Fn(&Day) -> (&'static str, Json),
) -> Outcome {
    let months = outlet.meter.months(call.int("year")?).into_iter().map(|(date, month)| {
        let (year, number) = (Json::Int(date.year().into()), Json::Int(date.month().into()));
        Json::object([("year", year), ("month", number), value(&month)])
    });
    Ok(fields([("month_list", Json::List(months.collect()))]))
}

fn whole(value: u64) -> Json {
    Json::Int(i64::try_from(value).unwrap_or(i64::MAX))
}
