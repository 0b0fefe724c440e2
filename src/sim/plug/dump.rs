//! A device as somebody's dump describes it: module, method, reply, in the JSON of python-kasa's developer tools.

use std::time::Duration;

use super::super::clock::Clock;
use super::super::json::{Fields, Json};
use super::super::model::Generation;
use super::super::template;
use super::dimmer::{self, Dimmer};
use super::{Behaviour, Outlet, SimPlug, cloud, sensor, text};

/// The text is no dump of a device of this family.
#[derive(Debug, thiserror::Error)]
pub enum NotADump {
    /// Not even JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of something else.
    #[error("no system.get_sysinfo in it")]
    NoSysinfo,
}

impl SimPlug {
    /// The device of this dump, as it was, at `now`. Its meter shows what the dump says; where the dump says nothing of
    /// a meter that the device has, it shows a load of its own.
    ///
    /// # Errors
    /// It is no dump.
    pub fn from_dump(dump: &[u8], now: Duration) -> Result<SimPlug, NotADump> {
        let dump = Json::parse(dump)?;
        let said = |module: &str, method: &str| match dump.get(module)?.get(method)? {
            Json::Object(reply) => Some(reply.clone()),
            _ => None,
        };
        let sysinfo = said("system", "get_sysinfo").ok_or(NotADump::NoSysinfo)?;
        let generation = generation(&sysinfo);
        let sysinfo = template::ordered(generation, sysinfo);
        let number = |fields: &Fields, key: &str| {
            fields.iter().find(|(name, _)| name == key).and_then(|(_, value)| value.as_int())
        };
        let realtime = said("emeter", "get_realtime");
        let refused = |reply: &Fields| number(reply, "err_code").is_some_and(|code| code != 0);
        let mut outlets = outlets(&sysinfo, now);
        for (outlet, slot) in outlets.iter_mut().zip(0..) {
            outlet.shown = realtime
                .as_ref()
                .filter(|reply| !refused(reply))
                .map(|reply| shown(reply, slot, generation == Generation::G1));
        }
        let mut clock = Clock::default();
        if let Some(zone) = said("time", "get_timezone").and_then(|reply| number(&reply, "index")) {
            clock.zone = zone;
        }
        let motion = said(sensor::MOTION, "get_config").and_then(|config| number(&config, "enable"));
        let dimmer = number(&sysinfo, "brightness").filter(|_| outlets.len() == 1).map(|level| {
            let mut dimmer = Dimmer::new(level);
            if let Some(parameters) = said(dimmer::MODULE, "get_dimmer_parameters") {
                dimmer.parameters = parameters;
            }
            dimmer
        });
        let feature = text(&sysinfo, "feature");
        let mac = ["mac", "mic_mac", "ethernet_mac"].map(|key| text(&sysinfo, key));
        Ok(SimPlug {
            mac: mac.into_iter().find(|mac| !mac.is_empty()).unwrap_or_default(),
            generation,
            alias: text(&sysinfo, "alias"),
            led_off: number(&sysinfo, "led_off") == Some(1),
            meter: !outlets.is_empty() && feature.split(':').any(|feature| feature == "ENE"),
            slot_id: realtime.as_ref().is_some_and(|reply| number(reply, "slot_id").is_some()),
            outlets,
            dimmer,
            motion: motion.map(|enabled| enabled == 1),
            cloud: said("cnCloud", "get_info").unwrap_or_else(cloud::unbound),
            clock,
            refuses_each_method: realtime.as_ref().is_some_and(refused) || generation == Generation::G2,
            recorded: recorded(&dump),
            behaviour: Behaviour::default(),
            sysinfo,
        })
    }
}

/// By the columns of protocol.md 3.3: dumps have lost the order of their keys.
fn generation(sysinfo: &Fields) -> Generation {
    let has = |key: &str| sysinfo.iter().any(|(name, _)| name == key);
    match (has("fwId"), has("next_action")) {
        (true, false) => Generation::G1,
        (true, true) => Generation::G2,
        (false, _) => Generation::G3,
    }
}

fn outlets(sysinfo: &Fields, now: Duration) -> Vec<Outlet> {
    let field = |key: &str| sysinfo.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    let blank = |index: usize| Outlet::new(20_000 + 11_000 * index as u64, 119_000, 0);
    let number = |value: Option<&Json>| value.and_then(Json::as_int).unwrap_or(0);
    if let Some(children) = field("children").and_then(Json::as_list) {
        let child = |(index, child): (usize, &Json)| {
            let Json::Object(fields) = child else { return blank(index) };
            let (on, on_time) = (number(child.get("state")) == 1, number(child.get("on_time")));
            blank(index).of_strip(&template::ordered_child(fields.clone())).recorded(on, on_time, now)
        };
        return children.iter().enumerate().map(child).collect();
    }
    let plug = |relay: &Json| {
        let alias = text(sysinfo, "alias");
        blank(0).called(&alias).recorded(number(Some(relay)) == 1, number(field("on_time")), now)
    };
    field("relay_state").map(plug).into_iter().collect()
}

/// What the meter says of the outlet in this place; dumps ask the first alone.
fn shown(realtime: &Fields, slot: i64, six_decimals: bool) -> Fields {
    let value = |(key, value): &(String, Json)| {
        let value = match (key.as_str(), value) {
            ("slot_id", _) => Json::Int(slot),
            (_, Json::Float(number)) if six_decimals => Json::SixDecimals(*number),
            (_, Json::Int(number)) if six_decimals => Json::SixDecimals(*number as f64),
            (_, value) => value.clone(),
        };
        (key.clone(), value)
    };
    let mut shown: Fields = realtime.iter().filter(|(key, _)| key != "err_code").map(value).collect();
    // As on the wire; dumps are sorted.
    shown.sort_by_key(|(key, _)| {
        ["slot_id", "current", "voltage", "power", "total"].iter().position(|name| key.starts_with(name))
    });
    shown
}

/// Every reply in it but refusals.
fn recorded(dump: &Json) -> Vec<(String, String, Fields)> {
    let mut recorded = Vec::new();
    let Json::Object(modules) = dump else { return recorded };
    for (module, methods) in modules.iter().filter(|(module, _)| module != "discovery_result") {
        let Json::Object(methods) = methods else { continue };
        for (method, reply) in methods {
            let refused = reply.get("err_code").and_then(Json::as_int).is_some_and(|code| code != 0);
            if let (Json::Object(reply), false) = (reply, refused) {
                recorded.push((module.clone(), method.clone(), reply.clone()));
            }
        }
    }
    recorded
}

#[cfg(test)]
mod tests {
    use super::super::Way;
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    /// Our own invention, sorted as dumps are.
    const STRIP: &str = r#"{
        "emeter": {"get_realtime": {"current_ma": 105, "err_code": 0, "power_mw": 8154, "slot_id": 0, "total_wh": 61, "voltage_mv": 120233}},
        "schedule": {"err_code": -1, "err_msg": "module not support"},
        "cnCloud": {"get_info": {"binded": 1, "cld_connection": 1, "err_code": 0, "username": "somebody@example.org"}},
        "system": {"get_sysinfo": {"alias": "Desk", "child_num": 2, "children": [
            {"alias": "", "id": "8006000000000000000000000000000000000000A100", "next_action": {"type": -1}, "on_time": -32407, "state": 1},
            {"alias": "Fan", "id": "8006000000000000000000000000000000000000A101", "next_action": {"type": -1}, "on_time": 8, "state": 0}],
            "deviceId": "8006000000000000000000000000000000000000A1", "err_code": 0, "feature": "TIM:ENE", "hw_ver": "2.0",
            "led_off": 1, "mac": "00:00:00:00:00:00", "mic_type": "IOT.SMARTPLUGSWITCH", "model": "HS300(US)", "rssi": -44}}
    }"#;

    fn ask(plug: &mut SimPlug, request: &str) -> String {
        plug.answer(request.as_bytes(), Way::Tcp, NOW + Duration::from_secs(7)).reply.unwrap()
    }

    #[test]
    fn a_strip_says_what_its_dump_says() {
        let mut strip = SimPlug::from_dump(STRIP.as_bytes(), NOW).unwrap();
        assert_eq!((strip.mac().as_str(), strip.outlets().len()), ("00:00:00:00:00:00", 2));
        assert!(strip.is_bound() && !strip.led());
        let sysinfo = ask(&mut strip, r#"{"system":{"get_sysinfo":{}}}"#);
        assert!(sysinfo.contains(r#""state":1,"alias":"","on_time":-32400,"#), "{sysinfo}");
        assert!(sysinfo.contains(r#""state":0,"alias":"Fan","on_time":8,"#), "{sysinfo}");
        assert!(sysinfo.find("hw_ver") < sysinfo.find("deviceId"), "{sysinfo}");
        let second = concat!(
            r#"{"context":{"child_ids":["8006000000000000000000000000000000000000A101"]},"#,
            r#""emeter":{"get_realtime":{}}}"#
        );
        assert_eq!(
            ask(&mut strip, second),
            r#"{"emeter":{"get_realtime":{"slot_id":1,"current_ma":105,"voltage_mv":120233,"power_mw":8154,"total_wh":61,"err_code":0}}}"#
        );
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for (text, why) in [("", "JSON"), ("[]", "sysinfo"), (r#"{"system":{"get_sysinfo":7}}"#, "sysinfo")] {
            let error = SimPlug::from_dump(text.as_bytes(), NOW).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
