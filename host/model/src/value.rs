//! The two JSON forms of values: clean, and Convex' encoded form.
//!
//! Inside, a value is plain JSON; an integer is exact at any size that Postgres' `numeric` holds. In the encoded form
//! an integer that a float cannot hold travels as `{"$integer": "<8 bytes, little-endian, base64>"}`
//! (convex-protocol 1.11).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The largest integer below which every integer is a float.
const SAFE: u64 = 1 << 53;

/// Arguments from the encoded form: `$integer` becomes a JSON integer; other marks stay as they are.
pub fn decode_convex(value: Value) -> Result<Value, String> {
    match value {
        Value::Array(items) => items.into_iter().map(decode_convex).collect::<Result<_, _>>().map(Value::Array),
        Value::Object(fields) => match single_mark(&fields, "$integer") {
            Some(text) => decode_integer(text),
            None => fields
                .into_iter()
                .map(|(name, value)| Ok((name, decode_convex(value)?)))
                .collect::<Result<Map<_, _>, String>>()
                .map(Value::Object),
        },
        other => Ok(other),
    }
}

/// A result in the encoded form: integers beyond 2^53 become `$integer`.
pub fn encode_convex(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(integer) if integer.unsigned_abs() > SAFE => {
                let mut fields = Map::new();
                fields.insert("$integer".to_owned(), Value::String(STANDARD.encode(integer.to_le_bytes())));
                Value::Object(fields)
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(encode_convex).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, encode_convex(value))).collect())
        }
        other => other,
    }
}

/// Writes floats without a fraction as the integers that they are.
pub fn whole_floats_to_integers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole =
                number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() <= SAFE as f64);
            // A negative zero is no integer.
            if let Some(float) = whole.filter(|float| *float != 0.0 || float.is_sign_positive()) {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_floats_to_integers),
        Value::Object(fields) => fields.values_mut().for_each(whole_floats_to_integers),
        _ => {}
    }
}

fn single_mark<'a>(fields: &'a Map<String, Value>, mark: &str) -> Option<&'a str> {
    if fields.len() != 1 {
        return None;
    }
    fields.get(mark)?.as_str()
}

fn decode_integer(text: &str) -> Result<Value, String> {
    let bytes = STANDARD.decode(text).map_err(|_| format!("`$integer` holds {text:?}, which is not base64"))?;
    let bytes = <[u8; 8]>::try_from(bytes.as_slice())
        .map_err(|_| format!("`$integer` holds {} bytes instead of 8", bytes.len()))?;
    Ok(Value::from(i64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn integers_survive_both_ways(integer: i64) {
            let encoded = encode_convex(json!({ "n": [integer] }));
            prop_assert_eq!(decode_convex(encoded), Ok(json!({ "n": [integer] })));
        }
    }

    #[test]
    fn whole_floats_become_integers() {
        let mut value = json!({ "a": [50.0, 0.5, -0.0, 1e300], "b": 7 });
        whole_floats_to_integers(&mut value);
        assert_eq!(value.to_string(), r#"{"a":[50,0.5,-0.0,1e+300],"b":7}"#);
    }

    #[test]
    fn small_integers_stay_numbers() {
        assert_eq!(encode_convex(json!(50)), json!(50));
        assert_eq!(encode_convex(json!(i64::MAX)), json!({ "$integer": "/////////38=" }));
        assert_eq!(decode_convex(json!({ "$integer": "AQAAAAAAAAA=" })), Ok(json!(1)));
        assert!(decode_convex(json!({ "$integer": "AQ==" })).is_err());
    }
}
