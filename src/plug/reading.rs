//! `system.get_sysinfo` of every generation (protocol.md 3) as one value: a plug is read as a strip of one.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::emeter::Emeter;
use super::error::Error;
use super::mac::Mac;
use super::reply::{Method, Reply, printable};

/// What a device is, told by what its sysinfo says and never by a list of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plug with one outlet.
    Plug,
    /// A switch in the wall.
    WallSwitch,
}

/// One switched outlet. A single plug has exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// Whether the relay is closed, as the plug said or confirmed.
    pub relay: bool,
    /// When it was switched on, to the second; `None` while off or where the plug does not say.
    pub on_since: Option<SystemTime>,
    /// What its meter says; `None` where there is no meter.
    pub emeter: Option<Emeter>,
}

/// Everything known of one plug at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Identity.
    pub mac: Mac,
    /// What it is.
    pub kind: Kind,
    /// Alias given in the Kasa app; may be empty. No control characters, at most 128 characters.
    pub alias: String,
    /// Model with region, as in `HS110(EU)`.
    pub model: String,
    /// Hardware version, as in `4.1`.
    pub hw_ver: String,
    /// Firmware version, as in `1.2.5 Build 171129 Rel.174814`.
    pub sw_ver: String,
    /// The vendor's id of the device; 40 hex digits on every known plug.
    pub device_id: String,
    /// Signal strength in dBm; absent on some old firmware.
    pub rssi: Option<i64>,
    /// Whether the status LED is allowed to light; absent where it cannot be switched.
    pub led: Option<bool>,
    /// The outlets, never empty.
    pub outlets: Vec<Outlet>,
}

const SYSINFO: Method = ("system", "get_sysinfo");
const REALTIME: Method = ("emeter", "get_realtime");

/// The plug's own count of seconds may wander by this much against our clock without meaning anything.
const ON_SINCE_JITTER: Duration = Duration::from_secs(5);

impl Reading {
    /// Reads a reply to [`GET_SYSINFO`](super::request::GET_SYSINFO), or to the request that asks the meter as well.
    /// `now` turns the plug's seconds since switching on into a moment.
    ///
    /// A meter that fails leaves its quantities unknown; it never fails the reading (protocol.md 5).
    pub fn parse(reply: &Reply, now: SystemTime) -> Result<Reading, Error> {
        let sysinfo = reply.method(SYSINFO)?;
        let text = |key: &str, length| printable(string(sysinfo, key).unwrap_or_default(), length);
        let mac = ["mac", "mic_mac", "ethernet_mac"].iter().find_map(|key| string(sysinfo, key));
        let mac = mac.ok_or_else(|| Error::Malformed("sysinfo has no mac".into()))?;
        let mac = mac.parse().map_err(|error| Error::Malformed(format!("sysinfo.mac: {error}")))?;
        let kind = kind(sysinfo)?;
        let emeter =
            has_meter(sysinfo).then(|| reply.method(REALTIME).map(Emeter::parse).unwrap_or_default());
        Ok(Reading {
            mac,
            kind,
            alias: text("alias", 128),
            model: text("model", 32),
            hw_ver: text("hw_ver", 16),
            sw_ver: text("sw_ver", 64),
            device_id: text("deviceId", 64),
            rssi: sysinfo.get("rssi").and_then(Value::as_i64).filter(|dbm| (-200..=100).contains(dbm)),
            led: bit(sysinfo, "led_off").map(|dark| !dark),
            outlets: vec![outlet(sysinfo, emeter, now)?],
        })
    }

    /// Whether any outlet has a meter.
    pub fn has_meter(&self) -> bool {
        self.outlets.iter().any(|outlet| outlet.emeter.is_some())
    }

    /// The same reading with each outlet's `on_since` kept where it was, unless it moved by more than the two
    /// clocks' jitter: otherwise it would change a little with every poll.
    pub fn steadied_by(mut self, earlier: &Reading) -> Reading {
        for (outlet, earlier) in self.outlets.iter_mut().zip(&earlier.outlets) {
            if let (Some(now), Some(before)) = (outlet.on_since, earlier.on_since) {
                let apart = now.duration_since(before).unwrap_or_else(|error| error.duration());
                if apart < ON_SINCE_JITTER {
                    outlet.on_since = Some(before);
                }
            }
        }
        self
    }

    /// Takes over what the plug confirmed with `err_code` 0: the outlet's relay moved at `now`.
    pub fn relay_moved(&mut self, outlet: usize, on: bool, now: SystemTime) {
        if let Some(outlet) = self.outlets.get_mut(outlet) {
            if on != outlet.relay || outlet.on_since.is_some() != on {
                outlet.on_since = on.then(|| whole_seconds(now));
            }
            outlet.relay = on;
        }
    }
}

fn kind(sysinfo: &Map<String, Value>) -> Result<Kind, Error> {
    // Bulbs have `mic_type` "IOT.SMARTBULB"; every plug has "SMARTPLUG" in one of the two keys (protocol.md 3.1).
    let class = ["type", "mic_type"].iter().find_map(|key| string(sysinfo, key)).unwrap_or_default();
    if !class.to_ascii_uppercase().contains("SMARTPLUG") {
        return Err(Error::Unsupported("it is not a plug"));
    }
    // Served half, they would leave entities behind that a later version has to take back.
    if sysinfo.contains_key("children") {
        return Err(Error::Unsupported("strips are not served yet"));
    }
    if sysinfo.contains_key("brightness") {
        return Err(Error::Unsupported("dimmers are not served yet"));
    }
    let name = string(sysinfo, "dev_name").unwrap_or_default().to_ascii_lowercase();
    let in_the_wall = name.contains("light") || name.contains("switch");
    Ok(if in_the_wall { Kind::WallSwitch } else { Kind::Plug })
}

fn has_meter(sysinfo: &Map<String, Value>) -> bool {
    string(sysinfo, "feature").is_some_and(|features| features.split(':').any(|feature| feature == "ENE"))
}

fn outlet(sysinfo: &Map<String, Value>, emeter: Option<Emeter>, now: SystemTime) -> Result<Outlet, Error> {
    let relay = bit(sysinfo, "relay_state");
    let relay = relay.ok_or_else(|| Error::Malformed("sysinfo.relay_state is not 0 or 1".into()))?;
    // Seen negative, and nonzero while off (protocol.md 3.1).
    let seconds = sysinfo.get("on_time").and_then(Value::as_u64).filter(|_| relay);
    let on_since =
        seconds.and_then(|seconds| now.checked_sub(Duration::from_secs(seconds))).map(whole_seconds);
    Ok(Outlet { relay, on_since, emeter })
}

fn whole_seconds(moment: SystemTime) -> SystemTime {
    let since_epoch = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

fn string<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn bit(object: &Map<String, Value>, key: &str) -> Option<bool> {
    match object.get(key).and_then(Value::as_u64) {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const NOW: Duration = Duration::from_secs(1_800_000_000);

    pub(crate) fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    fn parse(json: &str) -> Result<Reading, Error> {
        Reading::parse(&Reply::parse(json.as_bytes())?, now())
    }

    /// An HS110 of the first generation that is on: key order of protocol.md 3.2, G1.
    pub(crate) const HS110_G1: &str = r#"{"system":{"get_sysinfo":{"err_code":0,"sw_ver":"1.2.5 Build 171213 Rel.101523",
        "hw_ver":"1.0","type":"IOT.SMARTPLUGSWITCH","model":"HS110(EU)","mac":"50:C7:BF:01:02:03",
        "deviceId":"8006AABBCCDDEEFF00112233445566778899AABB","hwId":"00112233445566778899AABBCCDDEEFF",
        "fwId":"00000000000000000000000000000000","oemId":"FFEEDDCCBBAA99887766554433221100","alias":"Desk lamp",
        "dev_name":"Wi-Fi Smart Plug With Energy Monitoring","icon_hash":"","relay_state":1,"on_time":3600,
        "active_mode":"none","feature":"TIM:ENE","updating":0,"rssi":-54,"led_off":0,
        "latitude":52.5,"longitude":13.25}},
        "emeter":{"get_realtime":{"current":0.054000,"voltage":230.100000,"power":12.300000,"total":12.345000,"err_code":0}}}"#;

    /// The reading of [`HS110_G1`].
    pub(crate) fn hs110() -> Reading {
        parse(HS110_G1).unwrap()
    }

    /// A plug of the third generation without a meter, off.
    pub(crate) const EP10_G3: &str = r#"{"system":{"get_sysinfo":{"sw_ver":"1.0.2 Build 200915 Rel.085940","hw_ver":"1.0",
        "model":"EP10(US)","deviceId":"8006112233445566778899AABBCCDDEEFF001122","oemId":"0","hwId":"0","rssi":-64,
        "latitude_i":525000,"longitude_i":132500,"alias":"TP-LINK_Smart Plug_004C","status":"new","obd_src":"tplink",
        "mic_type":"IOT.SMARTPLUGSWITCH","feature":"TIM","mac":"54:AF:97:00:00:01","updating":0,"led_off":0,
        "relay_state":0,"on_time":0,"icon_hash":"","dev_name":"Smart Wi-Fi Plug Mini","active_mode":"none",
        "next_action":{"type":-1},"err_code":0}}}"#;

    #[test]
    fn a_metering_plug_of_the_first_generation() {
        let reading = hs110();
        assert_eq!(reading.mac.hex(), "50c7bf010203");
        assert_eq!(reading.kind, Kind::Plug);
        assert_eq!((reading.model.as_str(), reading.hw_ver.as_str()), ("HS110(EU)", "1.0"));
        assert_eq!((reading.rssi, reading.led), (Some(-54), Some(true)));
        let [outlet] = reading.outlets.as_slice() else { panic!("one outlet") };
        assert!(outlet.relay);
        assert_eq!(outlet.on_since, Some(now() - Duration::from_secs(3600)));
        assert_eq!(outlet.emeter.unwrap().power_mw, Some(12_300));
    }

    #[test]
    fn a_plain_plug_of_the_third_generation() {
        let reading = parse(EP10_G3).unwrap();
        assert_eq!(reading.kind, Kind::Plug);
        assert!(!reading.has_meter());
        assert_eq!(reading.outlets, [Outlet { relay: false, on_since: None, emeter: None }]);
    }

    #[test]
    fn the_rest_of_a_reading_survives_a_meter_that_fails() {
        let json =
            HS110_G1.replace(r#""get_realtime":{"current""#, r#""get_realtime":{"err_code":-1,"current""#);
        let json = json.replace(r#","err_code":0}}}"#, "}}}");
        assert_eq!(parse(&json).unwrap().outlets[0].emeter, Some(Emeter::default()));
    }

    #[test]
    fn old_and_odd_firmware_is_read() {
        let without = |key: &str| {
            let reply = serde_json::from_str::<Value>(HS110_G1).unwrap();
            let mut reply = reply;
            reply["system"]["get_sysinfo"].as_object_mut().unwrap().remove(key).unwrap();
            parse(&reply.to_string())
        };
        assert_eq!(without("rssi").unwrap().rssi, None);
        assert_eq!(without("dev_name").unwrap().kind, Kind::Plug);
        assert_eq!(without("alias").unwrap().alias, "");
        assert_eq!(without("led_off").unwrap().led, None);
        assert_eq!(without("on_time").unwrap().outlets[0].on_since, None);
        assert!(without("mac").unwrap_err().to_string().contains("mac"));
        assert!(without("relay_state").unwrap_err().to_string().contains("relay_state"));
        // HS110 with firmware 1.0.8 (protocol.md 3.1).
        assert!(parse(&HS110_G1.replace("IOT.SMARTPLUGSWITCH", "smartplug")).is_ok());
        for (there, instead) in [
            ("IOT.SMARTPLUGSWITCH", "IOT.SMARTBULB"),
            (r#""relay_state":1"#, r#""children":[]"#),
            (r#""on_time":3600"#, r#""brightness":50"#),
        ] {
            let parsed = parse(&HS110_G1.replace(there, instead));
            assert!(matches!(parsed, Err(Error::Unsupported(_))), "{instead}: {parsed:?}");
        }
    }

    #[test]
    fn rubbish_is_unknown_or_an_error_and_never_a_panic() {
        let on_time = |value: &str| HS110_G1.replace(r#""on_time":3600"#, &format!(r#""on_time":{value}"#));
        for value in ["-32407", "1e308", "18446744073709551615", "\"3600\"", "null", "[]"] {
            assert_eq!(parse(&on_time(value)).unwrap().outlets[0].on_since, None, "{value}");
        }
        for state in ["2", "-1", "\"1\"", "true", "null", "1.5"] {
            let json = HS110_G1.replace(r#""relay_state":1"#, &format!(r#""relay_state":{state}"#));
            assert!(parse(&json).is_err(), "{state}");
        }
        let alias = "x\\u0000\\n\\u001b[31m".to_string() + &"y".repeat(500);
        let reading = parse(&HS110_G1.replace("Desk lamp", &alias)).unwrap();
        assert!(reading.alias.starts_with("x[31my") && reading.alias.chars().count() == 128);
    }

    #[test]
    fn jitter_of_the_plugs_clock_does_not_move_on_since() {
        let earlier = hs110();
        let moved = |seconds: u64| {
            let mut later = hs110();
            later.outlets[0].on_since = earlier.outlets[0].on_since.map(|t| t + Duration::from_secs(seconds));
            later.steadied_by(&earlier)
        };
        assert_eq!(moved(4), earlier);
        assert_ne!(moved(5), earlier);
    }

    #[test]
    fn a_confirmed_relay_carries_its_own_moment() {
        let mut reading = hs110();
        reading.relay_moved(0, false, now());
        assert_eq!((reading.outlets[0].relay, reading.outlets[0].on_since), (false, None));
        reading.relay_moved(0, true, now());
        assert_eq!((reading.outlets[0].relay, reading.outlets[0].on_since), (true, Some(now())));
    }
}
