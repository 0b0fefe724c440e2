//! What a reply to a probe says: untrusted bytes in, one [`Found`] or an error out.

use std::net::SocketAddr;

use super::found::{Found, Protocol};
use super::probe::HEADER;
use crate::plug::cipher;
use crate::plug::error::Error;
use crate::plug::json::{Json, Object};
use crate::plug::mac::Mac;
use crate::plug::reply::{Reply, printable};

/// More outlets than any strip has.
const MAX_OUTLETS: usize = 32;

/// The port of a KLAP plug that does not say (protocol.md 6).
const HTTP_PORT: u16 = 80;

/// Reads a datagram from port 9999 that came from `sender`.
///
/// # Errors
/// It is not the sysinfo of anything with a MAC.
pub fn datagram(datagram: &mut [u8], sender: SocketAddr) -> Result<Found, Error> {
    cipher::decrypt(datagram);
    sysinfo(&Reply::parse(datagram)?, sender)
}

/// Reads sysinfo (protocol.md 3.1) of whatever generation or kind, as far as a scan shows it.
///
/// # Errors
/// It is not the sysinfo of anything with a MAC.
pub fn sysinfo(reply: &Reply, sender: SocketAddr) -> Result<Found, Error> {
    let sysinfo = reply.method(("system", "get_sysinfo"))?;
    let class = ["type", "mic_type"].iter().map(|key| text(sysinfo, key, 64)).find(|class| !class.is_empty());
    let class = class.unwrap_or_default();
    // Bulbs are "IOT.SMARTBULB"; plugs of every age have this in one of the two keys (protocol.md 3.1).
    let is_plug = class.to_ascii_uppercase().contains("SMARTPLUG");
    let protocol = if is_plug { Protocol::Xor } else { Protocol::Unsupported };
    Ok(Found {
        mac: Some(mac(sysinfo, &["mac", "mic_mac", "ethernet_mac"])?),
        open: true,
        device_type: class,
        alias: text(sysinfo, "alias", 128),
        model: text(sysinfo, "model", 32),
        hw_ver: text(sysinfo, "hw_ver", 16),
        sw_ver: text(sysinfo, "sw_ver", 64),
        relays: relays(sysinfo),
        rssi: sysinfo.get("rssi").and_then(Json::as_i64).filter(|dbm| (-200..=100).contains(dbm)),
        has_meter: sysinfo.text("feature").is_some_and(|list| list.split(':').any(|one| one == "ENE")),
        ..Found::at(sender, protocol)
    })
}

/// Reads a datagram from port 20002 that came from `sender`; `xor` is the port of plugs that still speak XOR.
///
/// # Errors
/// It is not the announcement of anything with a MAC.
pub fn announcement(datagram: &[u8], sender: SocketAddr, xor: u16) -> Result<Found, Error> {
    let body = datagram.get(HEADER..).ok_or_else(|| Error::Malformed("shorter than its header".into()))?;
    let reply = Reply::parse(body)?;
    let result = reply.object().get("result").and_then(Json::as_object);
    let result = result.ok_or_else(|| Error::Malformed("no result object".into()))?;
    let no_scheme = Object::default();
    let scheme = result.get("mgt_encrypt_schm").and_then(Json::as_object).unwrap_or(&no_scheme);
    let device_type = text(result, "device_type", 64);
    let protocol = protocol(&device_type, scheme);
    let http = scheme.get("http_port").and_then(Json::as_u64).and_then(|port| u16::try_from(port).ok());
    let port = match protocol {
        Protocol::Xor => xor,
        _ => http.filter(|port| *port != 0).unwrap_or(HTTP_PORT),
    };
    Ok(Found {
        mac: Some(mac(result, &["mac"])?),
        device_type,
        model: text(result, "device_model", 32),
        hw_ver: text(result, "hw_ver", 16),
        ..Found::at(SocketAddr::new(sender.ip(), port), protocol)
    })
}

/// protocol.md 6: the family before the dot and the encryption decide. To take every KLAP of the IOT family for the first
/// version looks like a wrong password on firmware that has `new_klap` (protocol.md 12, fact 14).
fn protocol(device_type: &str, scheme: &Object) -> Protocol {
    let truthy = |key: &str| match scheme.get(key) {
        Some(Json::Bool(yes)) => *yes,
        Some(value) => value.as_i64().is_some_and(|number| number != 0),
        None => false,
    };
    let second = truthy("new_klap") || scheme.get("lv").and_then(Json::as_i64) == Some(2);
    let (family, kind) = device_type.split_once('.').unwrap_or_default();
    if family != "IOT" || !kind.contains("SMARTPLUG") || truthy("is_support_https") {
        return Protocol::Unsupported;
    }
    match scheme.text("encrypt_type") {
        Some("XOR") => Protocol::Xor,
        Some("KLAP") if second => Protocol::Klap2,
        Some("KLAP") => Protocol::Klap,
        _ => Protocol::Unsupported,
    }
}

fn relays(sysinfo: &Object) -> Vec<bool> {
    let bit = |object: &Json, key: &str| object.get(key).and_then(Json::as_u64).map(|bit| bit == 1);
    match sysinfo.get("children").and_then(Json::as_array) {
        Some(outlets) => outlets.iter().take(MAX_OUTLETS).filter_map(|outlet| bit(outlet, "state")).collect(),
        None => sysinfo.get("relay_state").and_then(Json::as_u64).map(|bit| bit == 1).into_iter().collect(),
    }
}

fn mac(object: &Object, keys: &[&str]) -> Result<Mac, Error> {
    let mac = keys.iter().find_map(|key| object.text(key));
    let mac = mac.ok_or_else(|| Error::Malformed("no mac".into()))?;
    mac.parse().map_err(|error| Error::Malformed(format!("mac: {error}")))
}

fn text(object: &Object, key: &str, length: usize) -> String {
    printable(object.text(key).unwrap_or_default(), length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sender() -> SocketAddr {
        "192.0.2.7:9999".parse().unwrap()
    }

    fn heard(json: &str) -> Result<Found, Error> {
        datagram(&mut cipher::encrypt(json.as_bytes()), sender())
    }

    fn announced(json: &str) -> Result<Found, Error> {
        let mut bytes = vec![0; HEADER];
        bytes.extend(json.as_bytes());
        announcement(&bytes, "192.0.2.7:20002".parse().unwrap(), 9999)
    }

    const HS110: &str = r#"{"system":{"get_sysinfo":{"err_code":0,"sw_ver":"1.2.5 Build 171213 Rel.101523","hw_ver":"1.0",
        "type":"IOT.SMARTPLUGSWITCH","model":"HS110(EU)","mac":"50:C7:BF:01:02:03","alias":"Desk \u001b[31mlamp",
        "relay_state":1,"feature":"TIM:ENE","rssi":-54}}}"#;

    /// protocol.md 6, the HS100(UK) 4.1 of python-kasa's fixtures.
    const HS100_KLAP: &str = r#"{"result":{"device_id":"00112233445566778899aabbccddeeff","owner":"0",
        "device_type":"IOT.SMARTPLUGSWITCH","device_model":"HS100(UK)","ip":"192.0.2.99","mac":"CC-32-E5-01-02-03",
        "factory_default":true,"hw_ver":"4.1","mgt_encrypt_schm":{"is_support_https":false,"encrypt_type":"KLAP",
        "http_port":80}},"error_code":0}"#;

    #[test]
    fn sysinfo_of_a_plug() {
        let plug = heard(HS110).unwrap();
        assert_eq!(plug.mac.unwrap().hex(), "50c7bf010203");
        assert_eq!((plug.protocol, plug.open, plug.address), (Protocol::Xor, true, sender()));
        assert_eq!((plug.alias.as_str(), plug.model.as_str()), ("Desk [31mlamp", "HS110(EU)"));
        assert_eq!((plug.relays.as_slice(), plug.rssi, plug.has_meter), (&[true][..], Some(-54), true));
    }

    #[test]
    fn strips_have_many_relays_and_bulbs_are_unsupported() {
        let strip = HS110.replace(
            r#""relay_state":1"#,
            r#""children":[{"id":"00","state":1},{"id":"01","state":0},{"id":"02"}]"#,
        );
        assert_eq!(heard(&strip).unwrap().relays, [true, false]);
        let bulb = heard(&HS110.replace("SMARTPLUGSWITCH", "SMARTBULB")).unwrap();
        assert_eq!((bulb.protocol, bulb.is_closed()), (Protocol::Unsupported, false));
    }

    #[test]
    fn announcements_are_sorted_by_protocol() {
        let klap = announced(HS100_KLAP).unwrap();
        assert_eq!(
            klap.address,
            "192.0.2.7:80".parse().unwrap(),
            "the sender's address, not the claimed one"
        );
        assert_eq!((klap.model.as_str(), klap.hw_ver.as_str()), ("HS100(UK)", "4.1"));
        assert!(klap.is_closed());
        for (there, instead, protocol) in [
            ("KLAP", "KLAP", Protocol::Klap),
            ("KLAP", "XOR", Protocol::Xor),
            ("KLAP", "AES", Protocol::Unsupported),
            (r#""http_port":80"#, r#""http_port":80,"lv":2,"new_klap":1,"ANS":false"#, Protocol::Klap2),
            (r#""http_port":80"#, r#""http_port":80,"new_klap":true"#, Protocol::Klap2),
            (r#""http_port":80"#, r#""http_port":80,"lv":2"#, Protocol::Klap2),
            (r#""http_port":80"#, r#""http_port":80,"new_klap":0"#, Protocol::Klap),
            (r#"https":false"#, r#"https":true"#, Protocol::Unsupported),
            ("IOT.SMARTPLUGSWITCH", "SMART.TAPOPLUG", Protocol::Unsupported),
            ("IOT.SMARTPLUGSWITCH", "IOT.SMARTBULB", Protocol::Unsupported),
            ("IOT.SMARTPLUGSWITCH", "", Protocol::Unsupported),
        ] {
            assert_eq!(
                announced(&HS100_KLAP.replace(there, instead)).unwrap().protocol,
                protocol,
                "{instead}"
            );
        }
        let xor = announced(&HS100_KLAP.replace("KLAP", "XOR")).unwrap();
        assert_eq!(xor.address.port(), 9999);
    }

    #[test]
    fn what_has_no_mac_is_nobody() {
        assert!(heard(&HS110.replace("50:C7:BF", "50:C7")).is_err());
        assert!(heard("{}").is_err());
        assert!(announced(&HS100_KLAP.replace("\"mac\"", "\"cam\"")).is_err());
        assert!(announced(r#"{"result":[]}"#).is_err());
        assert!(announcement(&[2; HEADER - 1], sender(), 9999).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = announcement(&bytes, sender(), 9999);
            let _ = datagram(&mut bytes, sender());
        }

        /// Cut and changed anywhere, a reply is read or refused; what is read stays within its bounds.
        #[test]
        fn no_changed_reply_panics(at in any::<prop::sample::Index>(), byte: u8, end in any::<prop::sample::Index>()) {
            let mut json = HS110.as_bytes().to_vec();
            let length = json.len();
            json[at.index(length)] = byte;
            if let Ok(found) = datagram(&mut cipher::encrypt(&json), sender()) {
                prop_assert!(found.alias.chars().all(|letter| !letter.is_control()));
            }
            let _ = datagram(&mut cipher::encrypt(&json[..end.index(length)]), sender());
            let mut json = [&[0; HEADER], HS100_KLAP.as_bytes()].concat();
            let length = json.len();
            json[at.index(length)] = byte;
            let _ = announcement(&json, sender(), 9999);
            let _ = announcement(&json[..end.index(length)], sender(), 9999);
        }

        #[test]
        fn no_value_of_any_key_panics(key in "relay_state|children|rssi|alias|mac|feature|type", value in "[0-9]{1,25}|null|\\[\\{\\}\\]|\"[a-z]{0,300}\"|-1e400") {
            let json = format!(r#"{{"system":{{"get_sysinfo":{{"mac":"50:C7:BF:01:02:03","type":"IOT.SMARTPLUGSWITCH","{key}":{value}}}}}}}"#);
            if let Ok(found) = heard(&json) {
                prop_assert!(found.alias.len() <= 128 && found.relays.len() <= MAX_OUTLETS);
            }
        }
    }
}
