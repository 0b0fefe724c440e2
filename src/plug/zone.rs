//! The firmware's table of time zones (protocol.md 2.2): an index where the rest of the world has IANA names.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// The names of protocol.md 2.2, by index. 18 is US Eastern with its summer time, not the fixed EST of one client's
/// table: another client's documentation calls it Eastern Daylight, and 17 is the standard time.
const ZONES: [&str; 110] = [
    "Etc/GMT+12",
    "Pacific/Samoa",
    "US/Hawaii",
    "US/Alaska",
    "Mexico/BajaNorte",
    "Etc/GMT+8",
    "PST8PDT",
    "US/Arizona",
    "America/Mazatlan",
    "MST",
    "MST7MDT",
    "Mexico/General",
    "Etc/GMT+6",
    "CST6CDT",
    "America/Monterrey",
    "Canada/Saskatchewan",
    "America/Bogota",
    "Etc/GMT+5",
    "America/New_York",
    "America/Indiana/Indianapolis",
    "America/Caracas",
    "America/Asuncion",
    "Etc/GMT+4",
    "Canada/Atlantic",
    "America/Cuiaba",
    "Brazil/West",
    "America/Santiago",
    "Canada/Newfoundland",
    "America/Sao_Paulo",
    "America/Argentina/Buenos_Aires",
    "America/Cayenne",
    "America/Miquelon",
    "America/Montevideo",
    "Chile/Continental",
    "Etc/GMT+2",
    "Atlantic/Azores",
    "Atlantic/Cape_Verde",
    "Africa/Casablanca",
    "UCT",
    "GB",
    "Africa/Monrovia",
    "Europe/Amsterdam",
    "Europe/Belgrade",
    "Europe/Brussels",
    "Europe/Sarajevo",
    "Africa/Lagos",
    "Africa/Windhoek",
    "Asia/Amman",
    "Europe/Athens",
    "Asia/Beirut",
    "Africa/Cairo",
    "Asia/Damascus",
    "EET",
    "Africa/Harare",
    "Europe/Helsinki",
    "Asia/Istanbul",
    "Asia/Jerusalem",
    "Europe/Kaliningrad",
    "Africa/Tripoli",
    "Asia/Baghdad",
    "Asia/Kuwait",
    "Europe/Minsk",
    "Europe/Moscow",
    "Africa/Nairobi",
    "Asia/Tehran",
    "Asia/Muscat",
    "Asia/Baku",
    "Europe/Samara",
    "Indian/Mauritius",
    "Asia/Tbilisi",
    "Asia/Yerevan",
    "Asia/Kabul",
    "Asia/Ashgabat",
    "Asia/Yekaterinburg",
    "Asia/Karachi",
    "Asia/Kolkata",
    "Asia/Colombo",
    "Asia/Kathmandu",
    "Asia/Almaty",
    "Asia/Dhaka",
    "Asia/Novosibirsk",
    "Asia/Rangoon",
    "Asia/Bangkok",
    "Asia/Krasnoyarsk",
    "Asia/Chongqing",
    "Asia/Irkutsk",
    "Asia/Singapore",
    "Australia/Perth",
    "Asia/Taipei",
    "Asia/Ulaanbaatar",
    "Asia/Tokyo",
    "Asia/Seoul",
    "Asia/Yakutsk",
    "Australia/Adelaide",
    "Australia/Darwin",
    "Australia/Brisbane",
    "Australia/Canberra",
    "Pacific/Guam",
    "Australia/Hobart",
    "Antarctica/DumontDUrville",
    "Asia/Magadan",
    "Asia/Srednekolymsk",
    "Etc/GMT-11",
    "Asia/Anadyr",
    "Pacific/Auckland",
    "Etc/GMT-12",
    "Pacific/Fiji",
    "Etc/GMT-13",
    "Pacific/Apia",
    "Etc/GMT-14",
];

/// What the table's names cannot be found by where the system's zones are the newest only.
const TODAY: &[(&str, &str)] = &[
    ("Mexico/BajaNorte", "America/Tijuana"),
    ("Mexico/General", "America/Mexico_City"),
    ("Chile/Continental", "America/Santiago"),
];

/// How far ahead two zones must agree.
const AHEAD_MONTHS: i64 = 18;

/// The index to give to a plug that is to live in `zone`, whose summer time begins and ends as there. `None` when the
/// firmware knows no such zone.
///
/// The zone itself, if the table has it; else the first of the table whose clocks show the same for the next eighteen
/// months: the table has Amsterdam, but not Berlin. Mexico comes last: it gave up summer time in 2022, which the
/// firmware cannot know.
pub fn index(zone: &TimeZone, now: Timestamp) -> Option<u8> {
    let by_name = zone.iana_name().and_then(|name| ZONES.iter().position(|one| *one == name));
    let agreeing = |mexican: bool| {
        let may = |name: &str| name.starts_with("Mexico/") == mexican && agree(&named(name), zone, now);
        ZONES.iter().position(|name| may(name))
    };
    let place = by_name.or_else(|| agreeing(false)).or_else(|| agreeing(true))?;
    u8::try_from(place).ok()
}

/// The index of a zone that shows the same time at `now`, whatever it will do later.
pub fn index_for_now(zone: &TimeZone, now: Timestamp) -> Option<u8> {
    let same = |name: &str| named(name).is_some_and(|one| one.to_offset(now) == zone.to_offset(now));
    ZONES.iter().position(|name| same(name)).and_then(|place| u8::try_from(place).ok())
}

fn named(name: &str) -> Option<TimeZone> {
    let today = TODAY.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
    TimeZone::get(today).ok()
}

fn agree(one: &Option<TimeZone>, other: &TimeZone, now: Timestamp) -> bool {
    let Some(one) = one else { return false };
    let zoned = now.to_zoned(TimeZone::UTC);
    let Ok(end) = zoned.checked_add(AHEAD_MONTHS.months()).map(|end| end.timestamp()) else { return false };
    let changes = |zone: &TimeZone| {
        let upcoming = zone.following(now).take_while(|change| change.timestamp() < end).take(64);
        upcoming.map(|change| (change.timestamp(), change.offset())).collect::<Vec<_>>()
    };
    one.to_offset(now) == other.to_offset(now) && changes(one) == changes(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(zone: &str) -> Option<u8> {
        index(&TimeZone::get(zone).unwrap(), "2026-11-23T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn zones_of_the_table_and_their_equals() {
        for (zone, expected) in [
            ("Europe/Amsterdam", 41),
            ("Europe/Berlin", 41),
            ("Europe/London", 39),
            ("Etc/UTC", 38),
            ("UTC", 38),
            ("America/New_York", 18),
            ("America/Detroit", 18),
            ("America/Los_Angeles", 6),
            ("America/Chicago", 13),
            ("Asia/Tokyo", 90),
            ("Asia/Kolkata", 75),
            ("Australia/Sydney", 96),
            ("Pacific/Auckland", 104),
        ] {
            assert_eq!(at(zone), Some(expected), "{zone}");
        }
    }

    #[test]
    fn a_zone_that_the_firmware_does_not_know_still_shows_the_right_time_now() {
        // Half an hour of summer time: nobody else has that.
        assert_eq!(at("Australia/Lord_Howe"), None);
        let zone = TimeZone::get("Australia/Lord_Howe").unwrap();
        assert!(index_for_now(&zone, "2026-11-23T12:00:00Z".parse().unwrap()).is_some());
    }

    #[test]
    fn every_name_of_the_table_is_a_zone() {
        for name in ZONES {
            assert!(named(name).is_some(), "{name}");
        }
    }
}
