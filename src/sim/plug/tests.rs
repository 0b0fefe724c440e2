use super::super::model::MODELS;
use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn plug(name: &str) -> SimPlug {
    SimPlug::new(Model::named(name).unwrap(), "Lamp \"1\"", [0x50, 0xc7, 0xbf, 1, 2, 3])
}

fn ask_at(plug: &mut SimPlug, request: &str, now: Duration) -> String {
    plug.answer(request.as_bytes(), Way::Tcp, now).reply.unwrap()
}

fn ask(plug: &mut SimPlug, request: &str) -> String {
    ask_at(plug, request, NOW)
}

const SYSINFO: &str = r#"{"system":{"get_sysinfo":{}}}"#;
const REFUSED: &str = r#""err_code":-1,"err_msg":"module not support""#;

fn sysinfo(plug: &mut SimPlug) -> Json {
    let reply = Json::parse(ask(plug, SYSINFO).as_bytes()).unwrap();
    reply.get("system").unwrap().get("get_sysinfo").unwrap().clone()
}

fn keys(name: &str) -> String {
    let Json::Object(fields) = sysinfo(&mut plug(name)) else { panic!("an object") };
    fields.into_iter().map(|(key, _)| key).collect::<Vec<_>>().join(" ")
}

#[test]
fn keys_stand_in_the_order_of_the_wire() {
    for (name, order) in [
        (
            "HS110-G1",
            "err_code sw_ver hw_ver type model mac deviceId hwId fwId oemId alias dev_name icon_hash relay_state on_time active_mode feature updating rssi led_off latitude longitude",
        ),
        (
            "HS110-G2",
            "sw_ver hw_ver mic_type model mac dev_name alias relay_state on_time active_mode feature updating icon_hash rssi led_off longitude_i latitude_i hwId fwId deviceId oemId next_action err_code",
        ),
        (
            "HS110-G3",
            "sw_ver hw_ver model deviceId oemId hwId rssi latitude_i longitude_i alias status mic_type feature mac updating led_off relay_state on_time icon_hash dev_name active_mode next_action ntc_state err_code",
        ),
        (
            "HS300",
            "sw_ver hw_ver model deviceId oemId hwId rssi latitude_i longitude_i alias status mic_type feature mac updating led_off children child_num ntc_state err_code",
        ),
    ] {
        assert_eq!(keys(name), order);
    }
    assert!(keys("HS220-G2").contains("relay_state brightness on_time"));
}

#[test]
fn every_model_has_an_id_of_forty_digits_and_an_alias() {
    for model in MODELS {
        let sysinfo = sysinfo(&mut plug(model.name));
        assert_eq!(sysinfo.get("deviceId").unwrap().as_text().unwrap().len(), 40, "{model}");
        assert_eq!(sysinfo.get("alias").unwrap().as_text(), Some("Lamp \"1\""), "{model}");
    }
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
    let request = r#"{"emeter":{"get_realtime":{}}}"#;
    assert_eq!(ask(&mut plug("HS100-G1"), request), format!(r#"{{"emeter":{{{REFUSED}}}}}"#));
    let by_method = format!(r#"{{"emeter":{{"get_realtime":{{{REFUSED}}}}}}}"#);
    assert_eq!(ask(&mut plug("HS100-G2"), request), by_method);
    let mut lamp = plug("HS100-G3");
    assert_eq!(
        ask(&mut lamp, r#"{"system":{"fly":{},"set_relay_state":{"state":"1"},"set_led_off":{"off":1}}}"#),
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
    assert_eq!(lamp.outlets()[0].commands(), 4);
}

#[test]
fn rubbish_gets_no_answer_and_does_nothing() {
    let mut lamp = plug("HS100-G3");
    for request in ["", "{", "[]", "7", "\u{0}", &"[".repeat(60_000), "{\"a\":1e999}"] {
        assert_eq!(lamp.answer(request.as_bytes(), Way::Tcp, NOW).reply, None, "{request:.20}");
    }
    assert_eq!(ask(&mut lamp, r#"{"system":7}"#), r#"{"system":{}}"#);
    assert_eq!(ask(&mut lamp, "{}"), "{}");
    for request in [
        r#"{"system":{"set_relay_state":{"state":2},"reboot":{"delay":-1},"set_dev_alias":{"alias":1}}}"#,
        r#"{"system":{"reboot":{"delay":99999999999999999999}}}"#,
        r#"{"time":{"set_time":{"year":999999999999,"month":13,"mday":1,"hour":1,"min":1,"sec":1}}}"#,
        r#"{"count_down":{"add_rule":{"enable":1,"delay":9223372036854775807,"act":1,"name":""}}}"#,
        r#"{"schedule":{"get_daystat":{"year":-9223372036854775808,"month":0}}}"#,
        r#"{"context":1,"context":2}"#,
    ] {
        ask(&mut lamp, request);
        assert!(!lamp.relay(), "{request}");
    }
}

/// protocol.md 2.7
#[test]
fn a_strip_obeys_its_context() {
    let mut strip = plug("HS300");
    let id = |strip: &SimPlug, index: usize| strip.outlets()[index].id().unwrap().to_owned();
    let (first, third) = (id(&strip, 0), id(&strip, 2));
    assert_eq!((third.len(), &third[40..]), (42, "02"));
    let switch = |ids: &str, state: u8| {
        format!(r#"{{"context":{{"child_ids":{ids}}},"system":{{"set_relay_state":{{"state":{state}}}}}}}"#)
    };
    let relays = |strip: &SimPlug| strip.outlets().iter().map(Outlet::relay).collect::<Vec<_>>();
    assert!(ask(&mut strip, &switch(&format!("[\"{third}\"]"), 1)).contains(r#""err_code":0"#));
    assert_eq!(relays(&strip), [false, false, true, false, false, false]);
    let both = format!("[\"{first}\",\"{third}\"]");
    ask(&mut strip, &switch(&both, 0));
    assert_eq!(relays(&strip), [false, false, true, false, false, false], "the first alone");
    strip.behaviour.all_children = true;
    ask(&mut strip, &switch(&both, 0));
    assert_eq!(relays(&strip), [false; 6]);
    for (ids, code) in [("7", -3), ("[7]", -3), ("[\"99\"]", -14), ("[\"02\"]", -14), ("[]", 0)] {
        let reply = ask(&mut strip, &switch(ids, 1));
        assert!(reply.contains(&format!(r#""err_code":{code}"#)), "{ids}: {reply}");
    }
    ask(&mut strip, r#"{"system":{"set_relay_state":{"state":1}}}"#);
    assert_eq!(relays(&strip), [false; 6], "the parent is not obeyed");
    strip.behaviour.parent_relay = true;
    ask(&mut strip, r#"{"system":{"set_relay_state":{"state":1}}}"#);
    assert_eq!(relays(&strip), [true; 6]);
    let by_udp = strip.answer(switch("[\"02\"]", 0).as_bytes(), Way::Udp, NOW);
    assert_eq!((by_udp.relay_commands, relays(&strip)[2]), (1, false));
    let sysinfo = strip.answer(SYSINFO.as_bytes(), Way::Udp, NOW).reply.unwrap();
    assert!(sysinfo.contains(r#"{"id":"00","#) && !sysinfo.contains(&first), "{sysinfo}");
}

#[test]
fn a_strip_answers_for_each_outlet() {
    let mut strip = plug("HS300");
    let third = strip.outlets()[2].id().unwrap().to_owned();
    let of_third = |modules: &str| format!(r#"{{"context":{{"child_ids":["{third}"]}},{modules}}}"#);
    ask(&mut strip, &of_third(r#""system":{"set_dev_alias":{"alias":"Fan"}}"#));
    ask(&mut strip, r#"{"system":{"set_dev_alias":{"alias":"Desk"}}}"#);
    assert_eq!((strip.alias(), strip.outlets()[2].alias()), ("Desk", "Fan"));
    let realtime = r#""emeter":{"get_realtime":{}}"#;
    assert!(ask(&mut strip, &of_third(realtime)).contains(r#""slot_id":2,"#));
    assert!(ask(&mut strip, &format!("{{{realtime}}}")).contains(r#""slot_id":0,"#));
    let timer = r#""count_down":{"add_rule":{"enable":1,"delay":9,"act":1,"name":"x"}}"#;
    ask(&mut strip, &of_third(timer));
    strip.advance(NOW + Duration::from_secs(9));
    assert!(strip.outlets()[2].relay() && !strip.outlets()[0].relay());
    assert_eq!(
        ask(&mut plug("HS100-G1"), r#"{"context":{},"context":{},"time":{}}"#),
        format!(r#"{{"context":{{{REFUSED}}},"time":{{}}}}"#)
    );
}

#[test]
fn a_timer_acts_when_due() {
    let mut plug = plug("HS100-G3");
    let add = r#"{"count_down":{"add_rule":{"enable":1,"delay":60,"act":1,"name":"turn on"}}}"#;
    assert!(ask(&mut plug, add).contains(r#""err_code":0"#));
    assert!(ask(&mut plug, add).contains(r#""err_code":-10,"err_msg":"table is full""#));
    assert_eq!(plug.next_event(), Some(NOW + Duration::from_secs(60)));
    let soon = NOW + Duration::from_secs(20);
    let rules = ask_at(&mut plug, r#"{"count_down":{"get_rules":{}}}"#, soon);
    assert!(rules.contains(r#""act":1,"remain":40}"#), "{rules}");
    let sysinfo = ask_at(&mut plug, SYSINFO, soon);
    assert!(sysinfo.contains(r#""active_mode":"count_down","next_action":{"type":2,"id":""#), "{sysinfo}");
    plug.advance(NOW + Duration::from_secs(59));
    assert!(!plug.relay());
    let late = ask_at(&mut plug, SYSINFO, NOW + Duration::from_secs(70));
    assert!(plug.relay() && late.contains(r#""on_time":10,"#), "{late}");
    assert_eq!(plug.next_event(), None);
    let deleted = ask(&mut plug, r#"{"count_down":{"delete_all_rules":null}}"#);
    assert_eq!(deleted, r#"{"count_down":{"delete_all_rules":{"err_code":0}}}"#);
}

#[test]
fn a_clock_takes_all_seven_fields_or_nothing() {
    let mut plug = plug("HS110-G1").with(Behaviour { no_ntp: true, ..Behaviour::default() });
    plug.restart(NOW);
    let next = r#"{"schedule":{"get_next_action":{}}}"#;
    assert!(ask(&mut plug, next).contains(r#""err_code":-11,"err_msg":"time not sync""#));
    assert!(ask(&mut plug, r#"{"time":{"set_timezone":{"index":13}}}"#).contains(r#""err_code":-3"#));
    let all = r#"{"time":{"set_timezone":{"year":2018,"month":5,"mday":1,"hour":18,"min":13,"sec":49,"index":13}}}"#;
    assert_eq!(ask(&mut plug, all), r#"{"time":{"set_timezone":{"err_code":0}}}"#);
    assert_eq!(
        ask_at(&mut plug, r#"{"time":{"get_time":{},"get_timezone":{}}}"#, NOW + Duration::from_secs(11)),
        concat!(
            r#"{"time":{"get_time":{"year":2018,"month":5,"mday":1,"hour":18,"min":14,"sec":0,"err_code":0},"#,
            r#""get_timezone":{"index":13,"err_code":0}}}"#
        )
    );
    assert_eq!(ask(&mut plug, next), r#"{"schedule":{"get_next_action":{"type":-1,"err_code":0}}}"#);
}

#[test]
fn a_dimmer_keeps_its_level_while_off() {
    let mut dimmer = plug("HS220");
    let tell = |dimmer: &mut SimPlug, method: &str| {
        ask(dimmer, &format!(r#"{{"smartlife.iot.dimmer":{{{method}}}}}"#))
    };
    tell(&mut dimmer, r#""set_brightness":{"brightness":40}"#);
    assert_eq!((dimmer.relay(), dimmer.brightness()), (false, Some(40)));
    tell(&mut dimmer, r#""set_dimmer_transition":{"brightness":70}"#);
    assert_eq!((dimmer.relay(), dimmer.brightness()), (false, Some(70)), "no duration");
    tell(&mut dimmer, r#""set_dimmer_transition":{"brightness":30,"duration":1}"#);
    assert_eq!((dimmer.relay(), dimmer.brightness()), (true, Some(30)));
    tell(&mut dimmer, r#""set_dimmer_transition":{"brightness":0,"duration":500}"#);
    assert_eq!((dimmer.relay(), dimmer.brightness()), (false, Some(30)));
    assert!(tell(&mut dimmer, r#""set_brightness":{"brightness":0}"#).contains("-3"));
    assert!(
        ask(&mut plug("HS200"), r#"{"smartlife.iot.dimmer":{"get_dimmer_parameters":{}}}"#).contains("-1")
    );
}

#[test]
fn an_account_is_left_once() {
    let mut plug = plug("KP115").bound_to("somebody@example.org");
    assert!(ask(&mut plug, r#"{"cnCloud":{"get_info":{}}}"#).contains(r#""binded":1,"cld_connection":1"#));
    let unbind = r#"{"cnCloud":{"unbind":{}}}"#;
    assert!(ask(&mut plug, unbind).contains(r#""err_code":0"#));
    assert!(!plug.is_bound());
    assert!(ask(&mut plug, unbind).contains(r#""err_code":-8,"err_msg":"not bind yet""#));
}

#[test]
fn deadly_requests_are_deadly_only_by_option() {
    let mut plug = plug("HS100-G3");
    let (unknown, long) =
        (r#"{"emeter":{"get_realtime":{}}}"#, format!(r#"{{"system":{}{{}}}}"#, " ".repeat(800)));
    let dies = |plug: &mut SimPlug, request: &str, way| {
        let answer = plug.answer(request.as_bytes(), way, NOW);
        answer.restart.is_some() && answer.reply.is_none()
    };
    for (behaviour, request, way) in [
        (Behaviour { dies_of_unknown: true, ..Behaviour::default() }, unknown, Way::Tcp),
        (Behaviour { max_request: Some(768), ..Behaviour::default() }, &long, Way::Tcp),
        (Behaviour { max_reply: Some(100), ..Behaviour::default() }, SYSINFO, Way::Tcp),
        (Behaviour { dies_of_udp_meter: true, ..Behaviour::default() }, unknown, Way::Udp),
    ] {
        assert!(!dies(&mut plug, request, way));
        plug.behaviour = behaviour;
        assert!(dies(&mut plug, request, way));
        plug.behaviour = Behaviour::default();
    }
    plug.behaviour.max_datagram = Some(100);
    assert_eq!(plug.answer(SYSINFO.as_bytes(), Way::Udp, NOW).reply, None);
    assert!(plug.answer(SYSINFO.as_bytes(), Way::Tcp, NOW).reply.is_some());
}

#[test]
fn a_bulb_has_nothing_to_switch() {
    let mut bulb = plug("KL110");
    assert!(bulb.outlets().is_empty());
    assert!(ask(&mut bulb, SYSINFO).contains(r#""mic_type":"IOT.SMARTBULB""#));
    let reply = ask(&mut bulb, r#"{"system":{"set_relay_state":{"state":1}},"schedule":{"get_rules":{}}}"#);
    assert!(reply.contains("-2") && reply.contains("-1"), "{reply}");
}
