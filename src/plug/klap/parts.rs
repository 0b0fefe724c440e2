//! A request of several modules as several requests, for firmware that answers no more than one at a time
//! (protocol.md 7).

use serde_json::{Map, Value};

/// Goes with every part: whom of a strip the request is for.
const CONTEXT: &str = "context";

/// One request for each module; nothing where there is only one, or what is no request.
pub fn parts(request: &[u8]) -> Vec<Vec<u8>> {
    let Ok(request) = serde_json::from_slice::<Map<String, Value>>(request) else { return Vec::new() };
    let context = request.get(CONTEXT);
    let modules: Vec<_> = request.iter().filter(|(module, _)| *module != CONTEXT).collect();
    if modules.len() < 2 {
        return Vec::new();
    }
    let part = |(module, methods): (&String, &Value)| {
        let mut part = Map::from_iter([(module.clone(), methods.clone())]);
        part.extend(context.map(|context| (CONTEXT.into(), context.clone())));
        Value::Object(part).to_string().into_bytes()
    };
    modules.into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::request::{GET_SYSINFO, GET_SYSINFO_AND_ENERGY};

    fn texts(request: &[u8]) -> Vec<String> {
        parts(request).into_iter().map(|part| String::from_utf8(part).unwrap()).collect()
    }

    #[test]
    fn each_module_goes_alone_and_the_context_with_each() {
        assert_eq!(texts(GET_SYSINFO_AND_ENERGY).len(), 2);
        assert!(texts(GET_SYSINFO_AND_ENERGY).contains(&String::from_utf8_lossy(GET_SYSINFO).into_owned()));
        let request = br#"{"context":{"child_ids":["1"]},"emeter":{"a":{},"b":{}},"schedule":{"c":null}}"#;
        assert_eq!(
            texts(request),
            [
                r#"{"context":{"child_ids":["1"]},"emeter":{"a":{},"b":{}}}"#,
                r#"{"context":{"child_ids":["1"]},"schedule":{"c":null}}"#
            ]
        );
    }

    #[test]
    fn what_has_one_module_is_not_parted() {
        for request in [GET_SYSINFO, br#"{"context":{},"emeter":{}}"#, b"[]", b"{}", b"rubbish", b""] {
            assert!(parts(request).is_empty(), "{}", String::from_utf8_lossy(request));
        }
    }
}
