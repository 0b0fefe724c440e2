//! JSON as the firmware writes it: keys in their own order, some numbers always with six decimals.
//!
//! `serde_json::Value` sorts keys and keeps only the last of two equal ones; a plug does neither (protocol.md 1, 3.2).

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// An object's fields, in the order they stand on the wire. A key may occur twice in a request.
pub type Fields = Vec<(String, Json)>;

/// A JSON value that remembers the order of its keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`; plugs themselves write 1 and 0.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Written with exactly six decimals, as the first energy meters do (protocol.md 4).
    SixDecimals(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(Fields),
}

impl Json {
    /// Reads a whole message. Depth is bounded by serde_json, so a hostile request cannot exhaust the stack.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn parse(text: &[u8]) -> Result<Json, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// An object of these fields, in this order.
    pub fn object<const N: usize>(fields: [(&str, Json); N]) -> Json {
        Json::Object(self::fields(fields))
    }

    /// The field of this name, of an object that has it; the last of several.
    pub fn get(&self, key: &str) -> Option<&Json> {
        let Json::Object(fields) = self else { return None };
        fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The number, if it is a whole one.
    pub fn as_int(&self) -> Option<i64> {
        if let Json::Int(value) = self { Some(*value) } else { None }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    /// Puts another value in the place of every number but 0 and 1, which are a plug's booleans.
    pub fn replace_numbers(&mut self, by: &impl Fn(f64) -> Json) {
        match self {
            Json::Int(0 | 1) | Json::Null | Json::Bool(_) | Json::Text(_) => {}
            Json::Int(value) => *self = by(*value as f64),
            Json::Float(value) | Json::SixDecimals(value) => *self = by(*value),
            Json::List(values) => values.iter_mut().for_each(|value| value.replace_numbers(by)),
            Json::Object(fields) => fields.iter_mut().for_each(|(_, value)| value.replace_numbers(by)),
        }
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Json]> {
        if let Json::List(items) = self { Some(items) } else { None }
    }
}

/// Gives a field another value in its place; one that is not there comes last.
pub fn put(fields: &mut Fields, key: &str, value: Json) {
    match fields.iter_mut().find(|(name, _)| name == key) {
        Some((_, old)) => *old = value,
        None => fields.push((key.to_owned(), value)),
    }
}

/// Fields in this order, to be completed with an `err_code` later.
pub fn fields<const N: usize>(fields: [(&str, Json); N]) -> Fields {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

impl From<i64> for Json {
    fn from(value: i64) -> Json {
        Json::Int(value)
    }
}

/// Plugs write their booleans as 0 and 1.
impl From<bool> for Json {
    fn from(value: bool) -> Json {
        Json::Int(value.into())
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Json {
        Json::Text(value.to_owned())
    }
}

impl From<String> for Json {
    fn from(value: String) -> Json {
        Json::Text(value)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => out.write_str("null"),
            Json::Bool(value) => write!(out, "{value}"),
            Json::Int(value) => write!(out, "{value}"),
            Json::Float(value) => write!(out, "{value}"),
            Json::SixDecimals(value) => write!(out, "{value:.6}"),
            Json::Text(value) => write_text(value, out),
            Json::List(values) => {
                out.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    out.write_str(if index == 0 { "" } else { "," })?;
                    value.fmt(out)?;
                }
                out.write_str("]")
            }
            Json::Object(fields) => {
                out.write_str("{")?;
                for (index, (key, value)) in fields.iter().enumerate() {
                    out.write_str(if index == 0 { "" } else { "," })?;
                    write_text(key, out)?;
                    write!(out, ":{value}")?;
                }
                out.write_str("}")
            }
        }
    }
}

fn write_text(text: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    out.write_str(&serde_json::to_string(text).expect("any string can be written as JSON"))
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Json, D::Error> {
        input.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Json;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Float(value as f64), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = entries.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_duplicates_and_text_survive() {
        let text = r#"{"z":1,"a":{"k":null,"b":[true,-2,0.5]},"z":"Büro \"☃\""}"#;
        assert_eq!(Json::parse(text.as_bytes()).unwrap().to_string(), text);
    }

    #[test]
    fn six_decimals_are_always_six() {
        assert_eq!(Json::SixDecimals(0.216).to_string(), "0.216000");
        assert_eq!(Json::SixDecimals(0.0).to_string(), "0.000000");
    }

    #[test]
    fn hostile_depth_is_an_error_and_no_crash() {
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(Json::parse("{\"a\":".repeat(100_000).as_bytes()).is_err());
        assert!(Json::parse(b"1e999").is_err());
    }
}
