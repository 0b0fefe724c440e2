use serde_json::Value;

use super::super::emeter::REALTIME;
use super::*;

pub(crate) const NOW: Duration = Duration::from_secs(1_800_000_000);

pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

/// As a poll reads it: what the meter said in the same reply is in it.
pub(crate) fn parse(json: &str) -> Result<Reading, Error> {
    let reply = Reply::parse(json.as_bytes())?;
    let mut reading = Sysinfo::parse(&reply, now())?.reading;
    if let (Some(emeter), Ok(realtime)) = (&mut reading.outlets[0].emeter, reply.method(REALTIME)) {
        *emeter = Emeter::parse(realtime);
    }
    Ok(reading)
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
    let [outlet] = reading.outlets.as_slice() else { panic!("one outlet") };
    assert_eq!((outlet.relay, outlet.on_since, outlet.emeter, outlet.number), (false, None, None, 1));
    assert!(outlet.child.is_none() && outlet.timer.is_none() && outlet.next_action.is_none());
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
    let bulb = parse(&HS110_G1.replace("IOT.SMARTPLUGSWITCH", "IOT.SMARTBULB")).unwrap_err();
    assert_eq!(bulb.to_string(), "unsupported: HS110(EU) is no plug but IOT.SMARTBULB");
}

/// A strip of two outlets with meters; the second is on, and stands first.
pub(crate) const STRIP: &str = r#"{"system":{"get_sysinfo":{"sw_ver":"1.0.6 Build 180627 Rel.081000","hw_ver":"1.0",
    "model":"HS300(US)","deviceId":"8006AABBCCDDEEFF00112233445566778899AABB","oemId":"0","hwId":"0","rssi":-54,
    "longitude_i":0,"latitude_i":0,"alias":"Office strip","mic_type":"IOT.SMARTPLUGSWITCH","feature":"TIM:ENE",
    "mac":"B0:BE:76:2A:D8:38","updating":0,"led_off":0,"children":[
    {"id":"8006AABBCCDDEEFF00112233445566778899AABB01","state":1,"alias":"Screen","on_time":60,"next_action":{"type":2,"schd_sec":5,"action":0}},
    {"id":"8006AABBCCDDEEFF00112233445566778899AABB00","state":0,"alias":"","on_time":9,"next_action":{"type":1,"schd_sec":74700,"action":1}}],
    "child_num":2,"ntc_state":0,"err_code":0}}}"#;

#[test]
fn a_strips_outlets_are_numbered_by_their_ids() {
    let strip = parse(STRIP).unwrap();
    assert_eq!((strip.kind, strip.alias.as_str()), (Kind::Strip, "Office strip"));
    let [first, second] = strip.outlets.as_slice() else { panic!("two outlets") };
    assert_eq!(
        (first.number, first.relay, first.on_since),
        (1, false, None),
        "on_time says nothing while off"
    );
    assert_eq!(first.next_action, Some(NextAction { switches_on: true, second_of_day: 74_700 }));
    assert_eq!((second.number, second.relay, second.alias.as_str()), (2, true, "Screen"));
    assert_eq!(second.child.as_deref(), Some("8006AABBCCDDEEFF00112233445566778899AABB01"));
    let sysinfo = Sysinfo::parse(&Reply::parse(STRIP.as_bytes()).unwrap(), now()).unwrap();
    assert_eq!((sysinfo.timers, sysinfo.tells_next_action), (vec![Some(false), Some(true)], true));
}

#[test]
fn short_ids_are_made_long_and_strange_ids_count_by_place() {
    let numbers = |json: &str| -> Vec<(u8, String)> {
        let outlets = parse(json).unwrap().outlets;
        outlets.iter().map(|outlet| (outlet.number, outlet.child.clone().unwrap().to_string())).collect()
    };
    let short = STRIP.replace(r#""id":"8006AABBCCDDEEFF00112233445566778899AABB0"#, r#""id":"0"#);
    assert_eq!(numbers(&short), numbers(STRIP));
    let twice = STRIP.replace("AABB00", "AABB01");
    assert_eq!(numbers(&twice).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    let strange = STRIP.replace("8006AABBCCDDEEFF00112233445566778899AABB01", "x");
    assert_eq!(numbers(&strange)[0], (1, "x".into()));
}

#[test]
fn dimmers_wall_switches_and_motion_sensors_are_told_by_what_they_say() {
    let named = |name: &str, more: &str| {
        let json = EP10_G3.replace("Smart Wi-Fi Plug Mini", name).replace(r#""relay_state":0"#, more);
        let reading = parse(&json).unwrap();
        (reading.kind, reading.motion.is_some(), reading.outlets[0].brightness)
    };
    let off = r#""relay_state":0"#;
    let dim = r#""relay_state":0,"brightness":25"#;
    assert_eq!(named("Smart Wi-Fi Light Switch", off), (Kind::WallSwitch, false, None));
    assert_eq!(named("Smart Light Switch with PIR", off), (Kind::WallSwitch, true, None));
    assert_eq!(named("Smart Wi-Fi Dimmer Switch", dim), (Kind::Dimmer, false, Some(25)));
    assert_eq!(named("Wi-Fi Smart Dimmer with sensor", dim), (Kind::Dimmer, true, Some(25)));
    assert_eq!(named("Smart Wi-Fi Plug", off), (Kind::Plug, false, None));
}

#[test]
fn hostile_children_are_an_error_that_names_them() {
    for children in ["[]", "7", "[5]", r#"[{"state":1}]"#, r#"[{"id":"","state":1}]"#, r#"[{"id":"x"}]"#] {
        let json = HS110_G1.replace(r#""relay_state":1"#, &format!(r#""children":{children}"#));
        assert!(matches!(parse(&json), Err(Error::Malformed(_))), "{children}");
    }
    let many = format!("[{}]", vec![r#"{"id":"x","state":1}"#; 33].join(","));
    let json = HS110_G1.replace(r#""relay_state":1"#, &format!(r#""children":{many}"#));
    assert!(parse(&json).unwrap_err().to_string().contains("children"));
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
