//! Requests that people write themselves: which are dangerous, and what of a reply is nobody's business.

use serde_json::Value;

/// Methods that destroy, re-identify or expose a plug (class X of protocol.md 2).
pub const DESTRUCTIVE: &[&str] = &[
    "reset",
    "set_mac_addr",
    "set_device_id",
    "set_hw_id",
    "set_test_mode",
    "download_firmware",
    "flash_firmware",
    "bind",
    "unbind",
    "set_server_url",
    "set_sefserver_url",
    "set_stainfo",
    "erase_emeter_stat",
    "set_vgain_igain",
    "start_calibration",
];

/// Keys whose values tell where and whose a plug is. `mac` is not among them: it is in every topic.
const PRIVATE: &[&str] = &[
    "latitude",
    "longitude",
    "latitude_i",
    "longitude_i",
    "deviceId",
    "hwId",
    "fwId",
    "oemId",
    "username",
    "password",
    "setup_code",
    "setup_payload",
    "ssid",
];

/// The destructive methods in a request, in whichever module they stand.
pub fn destructive(request: &Value) -> Vec<&'static str> {
    let modules = request.as_object().into_iter().flat_map(|modules| modules.values());
    let methods: Vec<&String> =
        modules.filter_map(Value::as_object).flat_map(|methods| methods.keys()).collect();
    DESTRUCTIVE.iter().copied().filter(|name| methods.iter().any(|method| method == name)).collect()
}

/// The reply with coordinates, ids and account names hidden.
pub fn masked(mut reply: Value) -> Value {
    mask(&mut reply);
    reply
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let is_child = object.contains_key("state") && object.contains_key("alias");
            for (key, value) in object.iter_mut() {
                // A child's id is its plug's id with two more digits.
                if PRIVATE.contains(&key.as_str()) || (is_child && key == "id") {
                    *value = Value::String("***".into());
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn destructive_methods_are_found_in_any_module_and_company() {
        let found = |request: Value| destructive(&request);
        assert_eq!(found(json!({"system": {"get_sysinfo": {}, "reset": {"delay": 1}}})), ["reset"]);
        assert_eq!(
            found(json!({"cnCloud": {"unbind": {}}, "netif": {"set_stainfo": null}})),
            ["unbind", "set_stainfo"]
        );
        assert!(found(json!({"system": {"set_relay_state": {"state": 1}}})).is_empty());
        assert!(found(json!(["reset"])).is_empty());
    }

    #[test]
    fn what_is_private_is_masked_at_every_depth() {
        let reply = json!({"system": {"get_sysinfo": {"latitude_i": 522430, "deviceId": "8006", "mac": "50:C7:BF:01:02:03",
            "children": [{"id": "800600", "state": 1, "alias": "Lamp"}]}}, "cnCloud": {"get_info": {"username": "a@b.c"}},
            "schedule": {"get_rules": {"rule_list": [{"id": "689C"}]}}});
        let expected = json!({"system": {"get_sysinfo": {"latitude_i": "***", "deviceId": "***", "mac": "50:C7:BF:01:02:03",
            "children": [{"id": "***", "state": 1, "alias": "Lamp"}]}}, "cnCloud": {"get_info": {"username": "***"}},
            "schedule": {"get_rules": {"rule_list": [{"id": "689C"}]}}});
        assert_eq!(masked(reply), expected);
    }
}
