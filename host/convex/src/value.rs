//! Values between their clean form, in which functions see them, and Convex' encoded form (1.11). Texts without a mark
//! are the same in both, and are not parsed.

use std::fmt;
use std::sync::Arc;

use convoke_model::{decode_convex, encode_convex};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

/// Integers that a float cannot hold have sixteen digits or more.
const LONG_DIGITS: usize = 16;

/// A value as JSON text in the encoded form. Made once a result; a copy is a pointer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Encoded(Arc<str>);

impl Encoded {
    /// From the clean form, which a function has returned.
    pub fn from_clean(text: String) -> Self {
        Self(encode(text).into())
    }

    /// From a value in the clean form.
    pub fn from_value(value: Value) -> Self {
        Self(encode_convex(value).to_string().into())
    }

    pub fn null() -> Self {
        Self("null".into())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// JSON text of a value, from its clean to its encoded form. A text without a run of sixteen digits needs no second look.
pub fn encode(text: String) -> String {
    let long = text
        .as_bytes()
        .chunk_by(|a, b| a.is_ascii_digit() && b.is_ascii_digit())
        .any(|run| run.len() >= LONG_DIGITS && run[0].is_ascii_digit());
    if !long {
        return text;
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(parsed) => encode_convex(parsed).to_string(),
        Err(_) => text,
    }
}

/// Why arguments cannot be those of a function.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArgumentsError {
    #[error("`args` is not valid JSON: {0}")]
    Json(String),
    #[error("`args` takes one object of named arguments, found an array of {0}")]
    Count(usize),
    #[error("`args` takes an object of named arguments")]
    Form,
    #[error("`args` holds a value that is none: {0}")]
    Value(String),
}

/// The arguments object: Convex' clients send it alone in an array, people send the object.
pub fn single_argument(args: &str) -> Result<&str, ArgumentsError> {
    if !args.starts_with('[') {
        return Ok(args);
    }
    let list: Vec<&RawValue> = serde_json::from_str(args).map_err(|error| ArgumentsError::Json(error.to_string()))?;
    match list.as_slice() {
        [] => Ok("{}"),
        [args] => Ok(args.get()),
        more => Err(ArgumentsError::Count(more.len())),
    }
}

/// The named arguments as a JSON object in the clean form.
pub fn named_arguments(args: &RawValue) -> Result<String, ArgumentsError> {
    let object = single_argument(args.get())?;
    if !object.starts_with('{') {
        return Err(ArgumentsError::Form);
    }
    // A mark may be spelt with escapes.
    if !object.contains("\"$") && !object.contains('\\') {
        return Ok(object.to_owned());
    }
    let value: Value = serde_json::from_str(object).map_err(|error| ArgumentsError::Json(error.to_string()))?;
    let value = decode_convex(value).map_err(ArgumentsError::Value)?;
    if value.is_object() { Ok(value.to_string()) } else { Err(ArgumentsError::Form) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(args: &str) -> Result<String, ArgumentsError> {
        named_arguments(&RawValue::from_string(args.to_owned()).expect("JSON"))
    }

    #[test]
    fn texts_without_long_integers_stay_as_they_are() {
        for text in ["{ \"a\" : 1 }", "\"123456789012345\"", "null", "0.1"] {
            assert_eq!(encode(text.to_owned()), text);
        }
        assert_eq!(encode("[9007199254740993]".to_owned()), r#"[{"$integer":"AQAAAAAAIAA="}]"#);
        // Digits of a string, not of a number.
        assert_eq!(Encoded::from_clean("\"9007199254740993\"".to_owned()).as_str(), "\"9007199254740993\"");
    }

    #[test]
    fn arguments_come_as_one_object_in_an_array() {
        assert_eq!(named(r#"[{"a":1}]"#).as_deref(), Ok(r#"{"a":1}"#));
        assert_eq!(named(r#"[ {"a":1} ]"#).as_deref(), Ok(r#"{"a":1}"#));
        assert_eq!(named("[]").as_deref(), Ok("{}"));
        assert_eq!(named("{}").as_deref(), Ok("{}"));
        assert_eq!(named("[{},{}]"), Err(ArgumentsError::Count(2)));
        for args in ["[null]", "null", "[[]]", r#"[{"$integer":"AQAAAAAAAAA="}]"#] {
            assert_eq!(named(args), Err(ArgumentsError::Form), "{args}");
        }
    }

    #[test]
    fn integers_are_decoded_in_every_spelling() {
        assert_eq!(named(r#"[{"n":{"$integer":"AQAAAAAAAAA="}}]"#).as_deref(), Ok(r#"{"n":1}"#));
        assert_eq!(named(r#"[{"n":{"\u0024integer":"AQAAAAAAAAA="}}]"#).as_deref(), Ok(r#"{"n":1}"#));
        assert!(matches!(named(r#"[{"n":{"$integer":"AQ=="}}]"#), Err(ArgumentsError::Value(_))));
    }
}
