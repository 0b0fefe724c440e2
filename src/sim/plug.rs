//! A plug without a network: request bytes in, reply bytes out. Time is an argument.
//!
//! Methods run in the order in which they stand in the request, each with its own `err_code` (protocol.md 2).

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::energy::Meter;
use super::model::{Generation, Model};

/// The pairs of a JSON object as they stand, doubles included.
struct Pairs<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Pairs<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder(std::marker::PhantomData))
    }
}

/// What a request did beside being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that anybody sees.
    Nothing,
    /// Somebody told the relay to move, or to stay where it is.
    Relay(bool),
    /// The plug restarts.
    Reboot,
}

/// One simulated plug.
#[derive(Debug, Clone)]
pub struct SimPlug {
    model: Model,
    mac: [u8; 6],
    alias: String,
    relay: bool,
    led: bool,
    /// When the relay was last switched on.
    switched: Duration,
    meter: Meter,
    /// Answers every method with an error.
    pub refusing: bool,
}

/// A method's answer: the inside of its object without `err_code`, or an error.
type Answer = Result<String, (i32, &'static str)>;

const MODULE_NOT_SUPPORT: (i32, &str) = (-1, "module not support");
const MEMBER_NOT_SUPPORT: (i32, &str) = (-2, "member not support");
const INVALID_ARGUMENT: (i32, &str) = (-3, "invalid argument");

impl SimPlug {
    /// A plug that is off, its LED lit.
    pub fn new(model: Model, alias: &str, mac: [u8; 6]) -> SimPlug {
        // Loads between a phone charger and a heater, told apart by the MAC.
        let load = 4_000 + u64::from(mac[5]) * 7_000;
        SimPlug {
            model,
            mac,
            alias: alias.into(),
            relay: false,
            led: true,
            switched: Duration::ZERO,
            meter: Meter::new(load, 1234 + u64::from(mac[4])),
            refusing: false,
        }
    }

    /// `50:C7:BF:01:02:03`, as on the wire.
    pub fn mac(&self) -> String {
        self.mac.map(|byte| format!("{byte:02X}")).join(":")
    }

    /// Alias.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// Model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether the relay is closed.
    pub fn relay(&self) -> bool {
        self.relay
    }

    /// Whether the LED may light.
    pub fn led(&self) -> bool {
        self.led
    }

    /// Moves the relay at `now`, as its button or a command does.
    pub fn switch(&mut self, on: bool, now: Duration) {
        if on != self.relay {
            self.relay = on;
            self.switched = now;
            self.meter.switch(on, now);
        }
    }

    /// Answers a request that arrived at `now`. `None` where nothing is known of what a real plug would say.
    pub fn answer(&mut self, request: &[u8], now: Duration) -> Option<(String, Effect)> {
        let Pairs(modules): Pairs<Value> = serde_json::from_slice(request).ok()?;
        let text = std::str::from_utf8(request).ok()?;
        let Pairs(ordered): Pairs<Pairs<Value>> = match serde_json::from_str(text) {
            Ok(ordered) => ordered,
            // Some module is not an object: it gets no methods.
            Err(_) => Pairs(modules.into_iter().map(|(module, _)| (module, Pairs(Vec::new()))).collect()),
        };
        let mut effect = Effect::Nothing;
        let mut replies = Vec::new();
        for (module, Pairs(methods)) in ordered.into_iter().filter(|(module, _)| module != "context") {
            let reply = match self.knows(&module) {
                false if self.model.generation != Generation::G2 => error(MODULE_NOT_SUPPORT),
                known => {
                    let answers = methods.iter().map(|(method, arguments)| {
                        let answer = match known && !self.refusing {
                            true => self.call(&module, method, arguments, now, &mut effect),
                            false if self.refusing => Err((-7, "unknown error")),
                            false => Err(MODULE_NOT_SUPPORT),
                        };
                        format!("{}:{{{}}}", quoted(method), self.with_code(answer))
                    });
                    answers.collect::<Vec<_>>().join(",")
                }
            };
            replies.push(format!("{}:{{{reply}}}", quoted(&module)));
        }
        Some((format!("{{{}}}", replies.join(",")), effect))
    }

    fn knows(&self, module: &str) -> bool {
        match module {
            "system" | "time" | "cnCloud" | "schedule" | "count_down" | "anti_theft" | "netif" => true,
            "emeter" => self.model.meter,
            _ => false,
        }
    }

    fn with_code(&self, answer: Answer) -> String {
        match answer {
            Ok(inside) if inside.is_empty() => r#""err_code":0"#.into(),
            Ok(inside) if self.model.generation == Generation::G1 && inside.starts_with(r#""sw_ver""#) => {
                format!(r#""err_code":0,{inside}"#)
            }
            Ok(inside) => format!(r#"{inside},"err_code":0"#),
            Err(failure) => error(failure),
        }
    }

    fn call(
        &mut self,
        module: &str,
        method: &str,
        arguments: &Value,
        now: Duration,
        effect: &mut Effect,
    ) -> Answer {
        let bit = |key: &str| match arguments.get(key).and_then(Value::as_u64) {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(INVALID_ARGUMENT),
        };
        let done = Ok(String::new());
        match (module, method) {
            ("system", "get_sysinfo") => Ok(self.sysinfo(now)),
            ("system", "set_relay_state") => {
                let on = bit("state")?;
                self.switch(on, now);
                *effect = Effect::Relay(on);
                done
            }
            ("system", "set_led_off") => {
                self.led = !bit("off")?;
                done
            }
            ("system", "set_dev_alias") => {
                self.alias = arguments.get("alias").and_then(Value::as_str).ok_or(INVALID_ARGUMENT)?.into();
                done
            }
            ("system", "reboot") => {
                arguments.get("delay").and_then(Value::as_u64).ok_or(INVALID_ARGUMENT)?;
                *effect = Effect::Reboot;
                done
            }
            ("emeter", "get_realtime") => Ok(self.realtime(now)),
            // A young plug: it has seen one day of one month.
            ("emeter", "get_daystat") => self.statistics("day_list", &["year", "month"], arguments, now),
            ("emeter", "get_monthstat") => self.statistics("month_list", &["year"], arguments, now),
            ("time", "get_time") => Ok(clock(now)),
            ("time", "get_timezone") => Ok(r#""index":38"#.into()),
            ("cnCloud", "get_info") => Ok(concat!(
                r#""username":"","server":"devs.tplinkcloud.com","binded":0,"cld_connection":0,"illegalType":-1,"#,
                r#""stopConnect":-1,"tcspStatus":-1,"fwDlPage":"","tcspInfo":"","fwNotifyType":0"#
            )
            .into()),
            ("schedule", "get_next_action") => Ok(r#""type":-1"#.into()),
            ("schedule" | "anti_theft", "get_rules") => Ok(r#""rule_list":[],"version":2,"enable":0"#.into()),
            ("count_down", "get_rules") => Ok(r#""rule_list":[]"#.into()),
            _ => Err(MEMBER_NOT_SUPPORT),
        }
    }

    fn sysinfo(&self, now: Duration) -> String {
        let Model { model, hw_ver, sw_ver, dev_name, .. } = self.model;
        let (mac, alias) = (self.mac(), quoted(&self.alias));
        let id = self.mac.map(|byte| format!("{byte:02X}")).concat();
        let (device_id, hw_id, oem_id) =
            (format!("8006{id}{id}{id}"), format!("AA{id}{id}000000"), format!("BB{id}{id}000000"));
        let relay = u8::from(self.relay);
        let on_time = if self.relay { now.saturating_sub(self.switched).as_secs() } else { 0 };
        let feature = if self.model.meter { "TIM:ENE" } else { "TIM" };
        let led_off = u8::from(!self.led);
        let rssi = -50 - i64::from(self.mac[5] % 20);
        match self.model.generation {
            Generation::G1 => format!(
                r#""sw_ver":"{sw_ver}","hw_ver":"{hw_ver}","type":"IOT.SMARTPLUGSWITCH","model":"{model}","mac":"{mac}","deviceId":"{device_id}","hwId":"{hw_id}","fwId":"00000000000000000000000000000000","oemId":"{oem_id}","alias":{alias},"dev_name":"{dev_name}","icon_hash":"","relay_state":{relay},"on_time":{on_time},"active_mode":"none","feature":"{feature}","updating":0,"rssi":{rssi},"led_off":{led_off},"latitude":0.0,"longitude":0.0"#
            ),
            Generation::G2 => format!(
                r#""sw_ver":"{sw_ver}","hw_ver":"{hw_ver}","mic_type":"IOT.SMARTPLUGSWITCH","model":"{model}","mac":"{mac}","dev_name":"{dev_name}","alias":{alias},"relay_state":{relay},"on_time":{on_time},"active_mode":"none","feature":"{feature}","updating":0,"icon_hash":"","rssi":{rssi},"led_off":{led_off},"longitude_i":0,"latitude_i":0,"hwId":"{hw_id}","fwId":"00000000000000000000000000000000","deviceId":"{device_id}","oemId":"{oem_id}","next_action":{{"type":-1}}"#
            ),
            Generation::G3 => format!(
                r#""sw_ver":"{sw_ver}","hw_ver":"{hw_ver}","model":"{model}","deviceId":"{device_id}","oemId":"{oem_id}","hwId":"{hw_id}","rssi":{rssi},"latitude_i":0,"longitude_i":0,"alias":{alias},"status":"new","mic_type":"IOT.SMARTPLUGSWITCH","feature":"{feature}","mac":"{mac}","updating":0,"led_off":{led_off},"relay_state":{relay},"on_time":{on_time},"icon_hash":"","dev_name":"{dev_name}","active_mode":"none","next_action":{{"type":-1}},"ntc_state":0"#
            ),
        }
    }

    fn realtime(&self, now: Duration) -> String {
        let shown = self.meter.show(now);
        match self.model.generation {
            Generation::G1 => {
                let whole = |milli: u64| format!("{}.{:03}000", milli / 1000, milli % 1000);
                format!(
                    r#""current":{},"voltage":{},"power":{},"total":{}"#,
                    whole(shown.current),
                    whole(shown.voltage),
                    whole(shown.power),
                    whole(shown.total)
                )
            }
            _ => format!(
                r#""current_ma":{},"voltage_mv":{},"power_mw":{},"total_wh":{}"#,
                shown.current, shown.voltage, shown.power, shown.total
            ),
        }
    }

    fn statistics(&self, list: &str, asked: &[&str], arguments: &Value, now: Duration) -> Answer {
        let (year, month, day) = date(now);
        let number = |key: &str| arguments.get(key).and_then(Value::as_u64).ok_or(INVALID_ARGUMENT);
        let mut is_now = true;
        for key in asked {
            is_now &= number(key)? == if *key == "year" { year } else { month };
        }
        if !is_now {
            return Ok(format!(r#""{list}":[]"#));
        }
        let total = self.meter.show(now).total;
        let energy = match self.model.generation {
            Generation::G1 => format!(r#""energy":{}.{:03}000"#, total / 1000, total % 1000),
            _ => format!(r#""energy_wh":{total}"#),
        };
        let day = if asked.len() == 2 { format!(r#""day":{day},"#) } else { String::new() };
        Ok(format!(r#""{list}":[{{"year":{year},"month":{month},{day}{energy}}}]"#))
    }
}

fn error((code, message): (i32, &str)) -> String {
    format!(r#""err_code":{code},"err_msg":"{message}""#)
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `now` counts from the epoch.
fn clock(now: Duration) -> String {
    let (year, month, day) = date(now);
    let seconds = now.as_secs() % 86_400;
    let (hour, min, sec) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(r#""year":{year},"month":{month},"mday":{day},"hour":{hour},"min":{min},"sec":{sec}"#)
}

/// Year, month and day in UTC.
fn date(now: Duration) -> (u64, u64, u64) {
    let text = humantime::format_rfc3339_seconds(std::time::SystemTime::UNIX_EPOCH + now).to_string();
    let number =
        |range: std::ops::Range<usize>| text.get(range).and_then(|part| part.parse().ok()).unwrap_or(0);
    (number(0..4), number(5..7), number(8..10))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn plug(name: &str) -> SimPlug {
        SimPlug::new(Model::named(name).unwrap(), "Lamp \"1\"", [0x50, 0xc7, 0xbf, 1, 2, 3])
    }

    fn ask(plug: &mut SimPlug, request: &str) -> String {
        plug.answer(request.as_bytes(), NOW).unwrap().0
    }

    fn keys(name: &str) -> String {
        let reply = ask(&mut plug(name), r#"{"system":{"get_sysinfo":{}}}"#);
        let Pairs(modules): Pairs<Pairs<Pairs<Value>>> = serde_json::from_str(&reply).unwrap();
        let names = modules[0].1.0[0].1.0.iter().map(|(key, _)| key.clone());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn keys_stand_in_the_order_of_the_wire() {
        assert_eq!(
            keys("HS110-G1"),
            "err_code sw_ver hw_ver type model mac deviceId hwId fwId oemId alias dev_name icon_hash relay_state on_time active_mode feature updating rssi led_off latitude longitude"
        );
        assert_eq!(
            keys("HS110-G2"),
            "sw_ver hw_ver mic_type model mac dev_name alias relay_state on_time active_mode feature updating icon_hash rssi led_off longitude_i latitude_i hwId fwId deviceId oemId next_action err_code"
        );
        assert_eq!(
            keys("HS110-G3"),
            "sw_ver hw_ver model deviceId oemId hwId rssi latitude_i longitude_i alias status mic_type feature mac updating led_off relay_state on_time icon_hash dev_name active_mode next_action ntc_state err_code"
        );
    }

    #[test]
    fn the_device_id_has_forty_digits() {
        let reply: Value =
            serde_json::from_str(&ask(&mut plug("HS100-G1"), r#"{"system":{"get_sysinfo":null}}"#)).unwrap();
        assert_eq!(reply["system"]["get_sysinfo"]["deviceId"].as_str().unwrap().len(), 40);
    }

    #[test]
    fn old_meters_send_six_decimals_and_new_ones_integers() {
        let mut old = plug("HS110-G1");
        old.switch(true, NOW);
        let reply = ask(&mut old, r#"{"emeter":{"get_realtime":{}}}"#);
        for number in reply.split([':', ',']).filter(|part| part.contains('.')) {
            assert_eq!(number.split_once('.').unwrap().1.len(), 6, "{reply}");
        }
        assert!(reply.contains(r#""power":"#) && reply.ends_with(r#""err_code":0}}}"#), "{reply}");
        let reply = ask(&mut plug("HS110-G3"), r#"{"emeter":{"get_realtime":{}}}"#);
        assert!(reply.contains(r#""power_mw":0,"#), "{reply}");
    }

    #[test]
    fn each_method_has_its_own_error() {
        let refused = r#""err_code":-1,"err_msg":"module not support""#;
        assert_eq!(
            ask(&mut plug("HS100-G1"), r#"{"emeter":{"get_realtime":{}}}"#),
            format!(r#"{{"emeter":{{{refused}}}}}"#)
        );
        assert_eq!(
            ask(&mut plug("HS100-G2"), r#"{"emeter":{"get_realtime":{}}}"#),
            format!(r#"{{"emeter":{{"get_realtime":{{{refused}}}}}}}"#)
        );
        let mut lamp = plug("HS100-G3");
        assert_eq!(
            ask(
                &mut lamp,
                r#"{"system":{"fly":{},"set_relay_state":{"state":"1"},"set_led_off":{"off":1}}}"#
            ),
            r#"{"system":{"fly":{"err_code":-2,"err_msg":"member not support"},"set_relay_state":{"err_code":-3,"err_msg":"invalid argument"},"set_led_off":{"err_code":0}}}"#
        );
        assert!(!lamp.relay() && !lamp.led());
    }

    #[test]
    fn commands_run_in_order_and_doubles_run_twice() {
        let mut lamp = plug("HS100-G3");
        let on = r#""system":{"set_relay_state":{"state":1}}"#;
        let off = on.replace('1', "0");
        ask(&mut lamp, &format!("{{{on},{off}}}"));
        assert!(!lamp.relay());
        ask(&mut lamp, &format!("{{{off},{on}}}"));
        assert!(lamp.relay());
    }

    #[test]
    fn rubbish_gets_no_answer_and_does_nothing() {
        let mut lamp = plug("HS100-G3");
        for request in ["", "{", "[]", "7", "\u{0}"] {
            assert_eq!(lamp.answer(request.as_bytes(), NOW), None, "{request}");
        }
        assert_eq!(ask(&mut lamp, r#"{"system":7}"#), r#"{"system":{}}"#);
        assert_eq!(ask(&mut lamp, "{}"), "{}");
    }
}
