//! The envelope of replies: `{"<module>":{"<method>":<answer>}}`, each answer with an `err_code` (protocol.md 2, 5).

use serde_json::Value;

use super::error::Error;
use super::json::{Json, Object};

/// A module and one of its methods.
pub type Method = (&'static str, &'static str);

/// A reply, known to be a JSON object.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply(Object);

impl Reply {
    /// Reads a decrypted reply.
    pub fn parse(body: &[u8]) -> Result<Reply, Error> {
        match serde_json::from_slice(body) {
            Ok(Json::Object(reply)) => Ok(Reply(reply)),
            Ok(_) => Err(Error::Malformed("not a JSON object".into())),
            // serde_json's text names line and column and quotes nothing of the reply.
            Err(error) => Err(Error::Malformed(format!("not JSON: {error}"))),
        }
    }

    /// The reply to a request whose parts were asked one by one.
    pub fn of_parts(parts: Vec<Reply>) -> Reply {
        Reply(Object::merged(parts.into_iter().map(|part| part.0)))
    }

    /// The whole reply.
    pub fn object(&self) -> &Object {
        &self.0
    }

    /// The same for a person at a shell.
    pub fn into_value(self) -> Value {
        self.0.into()
    }

    /// The object under a method, or the plug's refusal. "module not support" comes in three shapes: at the method,
    /// at the module and at the top level (protocol.md 5); all three are looked at before anything is indexed.
    pub fn method(&self, (module, name): Method) -> Result<&Object, Error> {
        refusal(&self.0)?;
        let methods = self.0.get(module).and_then(Json::as_object).ok_or_else(|| missing(module))?;
        refusal(methods)?;
        let answer = methods.get(name).and_then(Json::as_object).ok_or_else(|| missing(name))?;
        refusal(answer)?;
        Ok(answer)
    }

    /// Whether the plug confirms that it did what a request asked: the method is there with `err_code` 0.
    pub fn confirm(&self, method: Method) -> Result<(), Error> {
        match self.method(method)?.get("err_code").and_then(Json::as_i64) {
            Some(0) => Ok(()),
            _ => Err(Error::Malformed(format!("no err_code in {}", method.1))),
        }
    }
}

fn missing(key: &str) -> Error {
    Error::Malformed(format!("no {key} object"))
}

fn refusal(object: &Object) -> Result<(), Error> {
    match object.get("err_code") {
        None => Ok(()),
        Some(code) => match code.as_i64() {
            Some(0) => Ok(()),
            Some(code) => {
                let message = object.get("err_msg").and_then(Json::as_str).unwrap_or("no reason given");
                Err(Error::Refused { code, message: printable(message, 80) })
            }
            None => Err(Error::Malformed("err_code is not an integer".into())),
        },
    }
}

/// Text from the network, made fit for logs and topics' payloads: at most `length` characters, none of them control
/// characters.
pub(super) fn printable(text: &str, length: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMETER: Method = ("emeter", "get_realtime");

    #[test]
    fn module_not_support_comes_in_three_shapes() {
        let shapes = [
            r#"{"emeter":{"err_code":-1,"err_msg":"module not support"}}"#,
            r#"{"emeter":{"get_realtime":{"err_code":-1,"err_msg":"module not support"}}}"#,
            r#"{"err_code":-1,"err_msg":"module not support"}"#,
        ];
        for shape in shapes {
            let error = Reply::parse(shape.as_bytes()).unwrap().method(EMETER).unwrap_err();
            assert_eq!(error, Error::Refused { code: -1, message: "module not support".into() }, "{shape}");
        }
    }

    #[test]
    fn a_confirmation_is_an_err_code_of_zero_and_nothing_less() {
        let confirm = |json: &str| Reply::parse(json.as_bytes())?.confirm(("system", "set_relay_state"));
        assert_eq!(confirm(r#"{"system":{"set_relay_state":{"err_code":0}}}"#), Ok(()));
        for unconfirmed in [
            r#"{"system":{"set_relay_state":{}}}"#,
            r#"{"system":{"set_relay_state":{"err_code":"0"}}}"#,
            r#"{"system":{"set_relay_state":{"err_code":-3,"err_msg":"invalid argument"}}}"#,
            r#"{"system":{"set_relay_state":[]}}"#,
            r#"{"system":{}}"#,
            r#"{"system":7}"#,
            "{}",
            "[]",
            "",
            "{\"system\":",
        ] {
            assert!(confirm(unconfirmed).is_err(), "{unconfirmed}");
        }
    }

    #[test]
    fn a_deep_nest_is_an_error_and_not_a_stack_overflow() {
        let nest = format!("{}{}", "{\"a\":".repeat(10_000), "1".to_string() + &"}".repeat(10_000));
        assert!(matches!(Reply::parse(nest.as_bytes()), Err(Error::Malformed(_))));
    }
}
