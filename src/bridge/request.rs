//! Requests to the bridge itself, `bridge/request/<x>`, and their responses in the form that zigbee2mqtt gave them.

use serde_json::{Value, json};

use crate::plug::raw;

const KNOWN: &str = "restart, health_check, scan, device/refresh, device/rename, device/remove, device/raw";

/// How the topics of responses begin that are about one plug.
pub const OF_PLUG: &str = "response/device/";

/// What somebody asks of the bridge.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// To start afresh.
    Restart,
    /// To say how it is.
    HealthCheck,
    /// To search the network.
    Scan,
    /// To ask a plug everything now.
    Refresh {
        /// Name or MAC.
        device: String,
    },
    /// To give a plug another name in topics.
    Rename {
        /// Name or MAC.
        device: String,
        /// The new name.
        to: String,
    },
    /// To forget a plug.
    Remove {
        /// Name or MAC.
        device: String,
    },
    /// To send a request to a plug as it is.
    Raw {
        /// Name or MAC.
        device: String,
        /// The request.
        request: Value,
        /// Whether coordinates, ids and account names are to be in the reply.
        unmasked: bool,
    },
}

impl Request {
    /// Name or MAC of the plug that it is about.
    pub fn device(&self) -> Option<&str> {
        match self {
            Request::Restart | Request::HealthCheck | Request::Scan => None,
            Request::Refresh { device }
            | Request::Rename { device, .. }
            | Request::Remove { device }
            | Request::Raw { device, .. } => Some(device),
        }
    }
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Where the response goes, below the bridge's topic. Only names that we know go into topics.
    pub topic: &'static str,
    /// What was asked for, or what is wrong with it.
    pub request: Result<Request, String>,
    /// Comes back in the response.
    pub transaction: Option<Value>,
}

/// Reads a request: the rest of its topic, and its payload.
pub fn parse(request: &str, payload: &[u8]) -> Asked {
    let asked: Value = serde_json::from_slice(payload).unwrap_or_default();
    let (topic, parsed) = match request {
        "restart" => ("response/restart", Ok(Request::Restart)),
        "health_check" => ("response/health_check", Ok(Request::HealthCheck)),
        "scan" => ("response/scan", Ok(Request::Scan)),
        "device/refresh" => {
            ("response/device/refresh", device(&asked, payload).map(|device| Request::Refresh { device }))
        }
        "device/rename" => ("response/device/rename", rename(&asked)),
        "device/remove" => {
            ("response/device/remove", device(&asked, payload).map(|device| Request::Remove { device }))
        }
        "device/raw" => ("response/device/raw", raw_request(&asked)),
        _ => ("response/unknown", Err(format!("unknown request; known: {KNOWN}"))),
    };
    Asked { topic, request: parsed, transaction: asked.get("transaction").cloned() }
}

/// zigbee2mqtt takes a bare name, too.
fn device(asked: &Value, payload: &[u8]) -> Result<String, String> {
    let named = asked.get("id").or(Some(asked)).and_then(Value::as_str);
    let bare = std::str::from_utf8(payload).ok().map(str::trim);
    let bare = bare.filter(|text| !text.is_empty() && !text.starts_with(['{', '[', '"']));
    named.or(bare).map(str::to_string).ok_or_else(|| r#"expected {"id":"NAME or MAC"}"#.into())
}

fn rename(asked: &Value) -> Result<Request, String> {
    let text = |key: &str| asked.get(key).and_then(Value::as_str).map(str::to_string);
    let (Some(device), Some(to)) = (text("from").or_else(|| text("id")), text("to")) else {
        return Err(r#"expected {"from":"NAME or MAC","to":"NAME"}"#.into());
    };
    Ok(Request::Rename { device, to })
}

fn raw_request(asked: &Value) -> Result<Request, String> {
    let expected = || r#"expected {"id":"NAME or MAC","request":{"MODULE":{"METHOD":{}}}}"#.to_string();
    let device = asked.get("id").and_then(Value::as_str).ok_or_else(expected)?;
    let request = asked.get("request").filter(|request| request.is_object()).ok_or_else(expected)?;
    let unmasked = asked.get("unmasked").and_then(Value::as_bool).unwrap_or(false);
    Ok(Request::Raw { device: device.into(), request: request.clone(), unmasked })
}

/// Whether the configuration lets this request through to a plug; else why not.
pub fn is_allowed(request: &Value, enabled: bool, destructive: &[String]) -> Result<(), String> {
    if !enabled {
        return Err("raw requests are not enabled: commands.raw = true".into());
    }
    match raw::destructive(request).iter().find(|method| !destructive.iter().any(|named| named == *method)) {
        Some(method) => Err(format!(
            "{method} can destroy the plug or its identity: name it in commands.destructive to allow it"
        )),
        None => Ok(()),
    }
}

/// The payload of a response.
pub fn response(outcome: Result<Value, String>, transaction: Option<&Value>) -> Vec<u8> {
    let mut response = match outcome {
        Ok(data) => json!({"status": "ok", "data": data}),
        Err(error) => json!({"status": "error", "data": {}, "error": error}),
    };
    if let Some(transaction) = transaction {
        response["transaction"] = transaction.clone();
    }
    response.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_as_they_come() {
        let restart = parse("restart", br#"{"transaction":7}"#);
        assert_eq!((restart.request, restart.transaction), (Ok(Request::Restart), Some(json!(7))));
        assert_eq!(parse("restart", b"").request, Ok(Request::Restart));
        let raw = parse("device/raw", br#"{"id":"lamp","request":{"time":{"get_time":{}}}}"#);
        let expected = Request::Raw {
            device: "lamp".into(),
            request: json!({"time": {"get_time": {}}}),
            unmasked: false,
        };
        assert_eq!((raw.topic, raw.request), ("response/device/raw", Ok(expected)));
        for payload in
            ["", "{}", r#"{"id":"lamp"}"#, r#"{"id":"lamp","request":"x"}"#, r#"{"id":7,"request":{}}"#]
        {
            assert!(parse("device/raw", payload.as_bytes()).request.is_err(), "{payload}");
        }
        assert_eq!(parse("a/+/#", b"").topic, "response/unknown");
        let lamp = || "lamp".to_string();
        for payload in ["lamp", "\"lamp\"", r#"{"id":"lamp"}"#, " lamp\n"] {
            let asked = parse("device/remove", payload.as_bytes());
            assert_eq!(asked.request, Ok(Request::Remove { device: lamp() }), "{payload}");
        }
        for payload in ["", "{}", "[1]", "{\"id\":7}", "\u{ff}"] {
            assert!(parse("device/refresh", payload.as_bytes()).request.is_err() || payload == "\u{ff}");
        }
        let asked = parse("device/rename", br#"{"from":"lamp","to":"desk"}"#);
        assert_eq!(asked.request, Ok(Request::Rename { device: lamp(), to: "desk".into() }));
        assert!(parse("device/rename", br#"{"from":"lamp"}"#).request.is_err());
    }

    #[test]
    fn what_destroys_is_sent_only_when_it_is_named() {
        let reset = json!({"system": {"reset": {"delay": 1}}});
        let time = json!({"time": {"get_time": {}}});
        let named = ["reset".to_string()];
        assert!(is_allowed(&time, false, &[]).unwrap_err().contains("commands.raw"));
        assert!(is_allowed(&time, true, &[]).is_ok());
        assert!(is_allowed(&reset, true, &[]).unwrap_err().contains("reset"));
        assert!(is_allowed(&reset, true, &named).is_ok());
        assert!(is_allowed(&json!({"cnCloud": {"unbind": {}}}), true, &named).is_err());
    }
}
