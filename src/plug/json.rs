//! JSON as plugs send it, read once at every poll and thrown away. serde_json reads it; the shape is ours, because plugs
//! have objects of some twenty keys and short texts: a list of pairs instead of a tree, and text in place instead of on the
//! heap. A poll takes a third fewer instructions for it (docs/performance.md).

use std::fmt;

use compact_str::CompactString;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// Any value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer, or a number with a fraction.
    Number(Number),
    /// Text.
    Text(CompactString),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Object),
}

/// An object. Of two values with one key the last counts, as with serde_json.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object(Vec<(CompactString, Json)>);

impl Json {
    /// The value of a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.as_object()?.get(key)
    }

    /// The object that this is.
    pub fn as_object(&self) -> Option<&Object> {
        if let Json::Object(object) = self { Some(object) } else { None }
    }

    /// The list that this is.
    pub fn as_array(&self) -> Option<&[Json]> {
        if let Json::List(list) = self { Some(list) } else { None }
    }

    /// The text that this is.
    pub fn as_str(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    /// The integer that this is.
    pub fn as_i64(&self) -> Option<i64> {
        if let Json::Number(number) = self { number.as_i64() } else { None }
    }

    /// The integer that this is, and that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        if let Json::Number(number) = self { number.as_u64() } else { None }
    }

    /// The truth value that this is: plugs write 0 and 1.
    pub fn as_bit(&self) -> Option<bool> {
        match self.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        }
    }

    /// The number that this is.
    pub fn as_f64(&self) -> Option<f64> {
        if let Json::Number(number) = self { number.as_f64() } else { None }
    }
}

impl Object {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Json::as_str)
    }

    /// Several objects as one.
    pub fn merged(objects: impl Iterator<Item = Object>) -> Object {
        Object(objects.flat_map(|object| object.0).collect())
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(bool) => Value::Bool(bool),
            Json::Number(number) => Value::Number(number),
            Json::Text(text) => Value::String(text.into()),
            Json::List(list) => list.into_iter().map(Value::from).collect(),
            Json::Object(object) => object.into(),
        }
    }
}

impl From<Object> for Value {
    fn from(Object(pairs): Object) -> Value {
        pairs.into_iter().map(|(key, value)| (String::from(key), Value::from(value))).collect()
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Json, E> {
        Ok(Json::Bool(bool))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = object.next_entry()? {
            pairs.push(pair);
        }
        Ok(Json::Object(Object(pairs)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::Error;

    use super::*;

    /// For tests of those who read objects; outside of tests these come in replies.
    impl<'de> Deserialize<'de> for Object {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
            match Json::deserialize(deserializer)? {
                Json::Object(object) => Ok(object),
                _ => Err(Error::custom("not a JSON object")),
            }
        }
    }

    /// Anything that serde_json itself writes.
    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((".{0,30}", inner), 0..5)
                    .prop_map(|pairs| pairs.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_serde_json_reads(value in any_value()) {
            let text = value.to_string();
            let read: Json = serde_json::from_str(&text).unwrap();
            // What is written is the nearest number that can be read, so both are read.
            prop_assert_eq!(Value::from(read), serde_json::from_str::<Value>(&text).unwrap());
        }

        #[test]
        fn both_take_and_refuse_the_same(text in r#"[\[\]{}:,"0-9a-e.\\ -]{0,24}"#) {
            let (ours, theirs) = (serde_json::from_str::<Json>(&text), serde_json::from_str::<Value>(&text));
            prop_assert_eq!(ours.map(Value::from).ok(), theirs.ok());
        }
    }

    #[test]
    fn the_last_of_two_counts_and_depth_is_bounded() {
        let twice: Json = serde_json::from_str(r#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(twice.get("a").and_then(Json::as_i64), Some(3));
        assert_eq!(Value::from(twice), serde_json::json!({"a": 3, "b": 2}));
        let deep = "[".repeat(10_000);
        assert!(serde_json::from_str::<Json>(&deep).unwrap_err().to_string().contains("recursion"));
        assert!(serde_json::from_str::<Object>("[1]").is_err());
    }
}
