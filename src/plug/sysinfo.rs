//! `system.get_sysinfo` of every generation (protocol.md 3) as a [`Reading`]. What sysinfo does not tell stays unknown.

use std::time::{Duration, SystemTime};

use super::emeter::Emeter;
use super::error::{Error, unsupported};
use super::json::{Json, Object};
use super::protocol::Protocol;
use super::reading::{Kind, Motion, Outlet, Reading};
use super::reply::{Method, Reply, printable};
use super::timer::{self, NextAction, whole_seconds};

/// The first and the only question that every plug answers.
pub const METHOD: Method = ("system", "get_sysinfo");

/// More outlets than any strip has.
const MOST_OUTLETS: usize = 32;

/// What one sysinfo says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysinfo {
    /// The plug; meters are there but unknown.
    pub reading: Reading,
    /// For each outlet, whether the plug says that its timer runs; `None` where it says nothing of timers.
    pub timers: Vec<Option<bool>>,
    /// Whether it tells what its schedule does next, so that it need not be asked.
    pub tells_next_action: bool,
}

impl Sysinfo {
    /// Reads a reply that has sysinfo in it. `now` turns the plug's seconds since switching on into a moment.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device that is not of the plug family, [`Error::Malformed`] naming the key,
    /// [`Error::Refused`].
    pub fn parse(reply: &Reply, now: SystemTime) -> Result<Sysinfo, Error> {
        let sysinfo = reply.method(METHOD)?;
        let text = |key: &str, length| printable(sysinfo.text(key).unwrap_or_default(), length);
        is_of_the_plug_family(sysinfo)?;
        let mac = ["mac", "mic_mac", "ethernet_mac"].iter().find_map(|key| sysinfo.text(key));
        let mac = mac.ok_or_else(|| Error::Malformed("sysinfo has no mac".into()))?;
        let mac = mac.parse().map_err(|error| Error::Malformed(format!("sysinfo.mac: {error}")))?;
        let device_id = text("deviceId", 64);
        let name = sysinfo.text("dev_name").unwrap_or_default().to_ascii_lowercase();
        let children = match sysinfo.get("children") {
            None => None,
            Some(children) => Some(
                children
                    .as_array()
                    .filter(|list| (1..=MOST_OUTLETS).contains(&list.len()))
                    .ok_or_else(|| Error::Malformed("sysinfo.children is not a list of outlets".into()))?,
            ),
        };
        let (mut outlets, timers): (Vec<Outlet>, Vec<Option<bool>>) = match children {
            None => (vec![outlet(sysinfo, "relay_state", now)?], vec![timer_runs(sysinfo)]),
            Some(children) => strip(children, &device_id, now)?.into_iter().unzip(),
        };
        let kind = match children {
            Some(_) => Kind::Strip,
            None if outlets[0].brightness.is_some() => Kind::Dimmer,
            None if name.contains("light") || name.contains("switch") => Kind::WallSwitch,
            None => Kind::Plug,
        };
        if has_feature(sysinfo, "ENE") {
            outlets.iter_mut().for_each(|outlet| outlet.emeter = Some(Emeter::default()));
        }
        let first = children.map_or(Some(sysinfo), |children| children[0].as_object());
        Ok(Sysinfo {
            timers,
            tells_next_action: first.is_some_and(|object| object.get("next_action").is_some()),
            reading: Reading {
                mac,
                // Whoever asked knows better.
                protocol: Protocol::default(),
                kind,
                alias: text("alias", 128),
                model: text("model", 32),
                hw_ver: text("hw_ver", 16),
                sw_ver: text("sw_ver", 64),
                device_id,
                rssi: sysinfo.get("rssi").and_then(Json::as_i64).filter(|dbm| (-200..=100).contains(dbm)),
                led: sysinfo.get("led_off").and_then(Json::as_bit).map(|dark| !dark),
                cloud: None,
                // KS200M says "PIR"; KS220M and ES20M say "sensor".
                motion: (name.contains("pir") || name.contains("sensor")).then(Motion::default),
                outlets,
            },
        })
    }
}

/// Bulbs have `mic_type` "IOT.SMARTBULB"; every plug has "SMARTPLUG" in one of the two keys (protocol.md 3.1).
fn is_of_the_plug_family(sysinfo: &Object) -> Result<(), Error> {
    let class = ["type", "mic_type"].iter().find_map(|key| sysinfo.text(key)).unwrap_or_default();
    if class.to_ascii_uppercase().contains("SMARTPLUG") {
        return Ok(());
    }
    let part = |key: &str| printable(sysinfo.text(key).unwrap_or("unknown"), 32);
    Err(unsupported(format!("{} is no plug but {}", part("model"), printable(class, 32))))
}

fn has_feature(sysinfo: &Object, feature: &str) -> bool {
    sysinfo.text("feature").is_some_and(|features| features.split(':').any(|one| one == feature))
}

fn strip(children: &[Json], device_id: &str, now: SystemTime) -> Result<Vec<(Outlet, Option<bool>)>, Error> {
    let malformed = |what: &str| Error::Malformed(format!("sysinfo.children: {what}"));
    let mut outlets = Vec::with_capacity(children.len());
    for child in children {
        let child = child.as_object().ok_or_else(|| malformed("not an object"))?;
        let id = child.text("id").map(|id| printable(id, 64)).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| malformed("no id"))?;
        // Over UDP, and on some firmware, only the last two characters are sent (protocol.md 2.7).
        let id = if id.len() == 2 { format!("{device_id}{id}") } else { id };
        let outlet = Outlet {
            alias: printable(child.text("alias").unwrap_or_default(), 128),
            child: Some(id.into()),
            ..outlet(child, "state", now)?
        };
        outlets.push((outlet, timer_runs(child)));
    }
    number(&mut outlets);
    Ok(outlets)
}

/// By the ids' last two digits; by their order where these do not tell the outlets apart.
fn number(outlets: &mut [(Outlet, Option<bool>)]) {
    let told = |outlet: &Outlet| {
        let id = outlet.child.as_deref().filter(|id| id.len() == 42 && id.is_ascii())?;
        id[40..].parse::<u8>().ok().filter(|index| usize::from(*index) < MOST_OUTLETS).map(|index| index + 1)
    };
    let numbers: Vec<Option<u8>> = outlets.iter().map(|(outlet, _)| told(outlet)).collect();
    let unique =
        numbers.iter().enumerate().all(|(at, number)| number.is_some() && !numbers[..at].contains(number));
    for (((outlet, _), told), place) in outlets.iter_mut().zip(numbers).zip(1..) {
        outlet.number = told.filter(|_| unique).unwrap_or(place);
    }
    outlets.sort_by_key(|(outlet, _)| outlet.number);
}

fn outlet(object: &Object, relay: &str, now: SystemTime) -> Result<Outlet, Error> {
    let on = object.get(relay).and_then(Json::as_bit);
    let on = on.ok_or_else(|| Error::Malformed(format!("sysinfo.{relay} is not 0 or 1")))?;
    // Seen negative, and nonzero while off (protocol.md 3.1).
    let seconds = object.get("on_time").and_then(Json::as_u64).filter(|_| on);
    let brightness = object.get("brightness").and_then(Json::as_u64).filter(|percent| *percent <= 100);
    Ok(Outlet {
        child: None,
        number: 1,
        alias: String::new(),
        relay: on,
        on_since: seconds
            .and_then(|seconds| now.checked_sub(Duration::from_secs(seconds)))
            .map(whole_seconds),
        brightness: brightness.and_then(|percent| u8::try_from(percent).ok()),
        emeter: None,
        timer: None,
        next_action: object.get("next_action").and_then(Json::as_object).and_then(NextAction::parse),
    })
}

/// `active_mode` says it on single plugs, the type of `next_action` on strips.
fn timer_runs(object: &Object) -> Option<bool> {
    let mode = object.text("active_mode").map(|mode| mode == "count_down");
    let next = object.get("next_action").and_then(Json::as_object).map(timer::is_timer);
    match (mode, next) {
        (None, None) => None,
        (mode, next) => Some(mode.unwrap_or(false) || next.unwrap_or(false)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
