//! The `system` module: what a device is, its relays, its name, its LED (protocol.md 2.1).

use std::time::Duration;

use super::super::json::{Fields, Json, put};
use super::call::{Answer, Call, FAILED, INVALID, NO_METHOD, Outcome, Refusal, Way};
use super::{SimPlug, text};

const NO_MEMORY: Refusal = Refusal(-5, "not enough memory");

pub(super) fn call(plug: &mut SimPlug, call: &Call<'_>, way: Way, answer: &mut Answer) -> Outcome {
    let done = Ok(Fields::new());
    match call.method {
        "get_sysinfo" => Ok(plug.sysinfo(way, call.now)),
        "set_relay_state" if !plug.outlets.is_empty() => {
            let on = call.bit("state")?;
            for index in plug.obeying(call) {
                plug.outlets[index].command(on, call.now, &plug.clock);
                answer.relay_commands += 1;
            }
            done
        }
        // The first child alone (protocol.md 2.7).
        "set_dev_alias" => {
            let alias = call.text("alias")?.to_owned();
            match call.meant.first().filter(|_| plug.is_strip()) {
                Some(child) => plug.outlets[*child].alias = alias,
                None => plug.alias = alias,
            }
            done
        }
        "set_led_off" if !plug.outlets.is_empty() => {
            plug.led_off = call.bit("off")?;
            done
        }
        "reboot" | "reset" => {
            let delay = u64::try_from(call.int("delay")?).map_err(|_| INVALID)?;
            answer.restart = Some(Duration::from_secs(delay));
            done
        }
        "set_dev_location" => call.int("latitude_i").and(call.int("longitude_i")).map(|_| Fields::new()),
        "get_download_state" => Err(FAILED),
        "flash_firmware" => Err(NO_MEMORY),
        "download_firmware" => call.text("url").map(|_| Fields::new()),
        "set_mac_addr" => call.text("mac").map(|_| Fields::new()),
        "set_device_id" => call.text("deviceId").map(|_| Fields::new()),
        "set_hw_id" => call.text("hwId").map(|_| Fields::new()),
        "set_test_mode" => call.bit("enable").map(|_| Fields::new()),
        "check_new_config" => done,
        "get_dev_icon" => Ok(vec![("icon".into(), "".into()), ("hash".into(), "".into())]),
        "set_dev_icon" => call.text("icon").and(call.text("hash")).map(|_| Fields::new()),
        "test_check_uboot" => Ok(vec![("uboot".into(), "0".repeat(128).into())]),
        _ => Err(NO_METHOD),
    }
}

impl SimPlug {
    /// The outlets that obey a relay command (protocol.md 2.7).
    fn obeying(&self, call: &Call<'_>) -> Vec<usize> {
        match call.meant {
            [] if self.behaviour.parent_relay => (0..self.outlets.len()).collect(),
            [first, _, ..] if !self.behaviour.all_children => vec![*first],
            meant => meant.to_vec(),
        }
    }

    /// The template with what is true now in its place.
    fn sysinfo(&self, way: Way, now: Duration) -> Fields {
        let mut sysinfo = self.sysinfo.clone();
        let first = self.outlets.first();
        for (key, value) in &mut sysinfo {
            *value = match (key.as_str(), first) {
                ("alias", _) => self.alias.as_str().into(),
                ("led_off", _) => self.led_off.into(),
                ("relay_state", Some(outlet)) => outlet.relay.into(),
                ("on_time", Some(outlet)) => outlet.on_time(now).into(),
                ("brightness", _) => match &self.dimmer {
                    Some(dimmer) => dimmer.level.into(),
                    None => continue,
                },
                ("active_mode", Some(outlet)) if outlet.next_action("", now, &self.clock).is_some() => {
                    "count_down".into()
                }
                ("next_action", Some(outlet)) => match outlet.next_action("schd_sec", now, &self.clock) {
                    Some(action) => Json::Object(action),
                    None => continue,
                },
                ("children", _) => Json::List(self.children(way, now)),
                _ => continue,
            };
        }
        sysinfo
    }

    /// By UDP a child's id is its last two characters.
    fn children(&self, way: Way, now: Duration) -> Vec<Json> {
        let children = self.outlets.iter().map(|outlet| outlet.as_child(now, &self.clock));
        let shortened = |child: Json| match child {
            Json::Object(mut fields) if way == Way::Udp => {
                let id = text(&fields, "id");
                put(&mut fields, "id", id[id.len().saturating_sub(2)..].into());
                Json::Object(fields)
            }
            child => child,
        };
        children.map(shortened).collect()
    }
}
