//! Every float, those that JSON has no form for included.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

use crate::bytes::from_base64;

/// A float that may be infinite, not a number, or -0.
///
/// In JSON it is a number, and where JSON has none, `{"$float": "<base64 of its 8 bytes, the lowest first>"}`, as
/// Convex has it. A plain `f64` becomes null there, and its -0 may come back from the database as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Float(pub f64);

impl From<f64> for Float {
    fn from(float: f64) -> Self {
        Self(float)
    }
}

impl From<Float> for f64 {
    fn from(float: Float) -> Self {
        float.0
    }
}

impl fmt::Display for Float {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let float = self.0;
        // A number of Postgres has no sign at zero.
        if float.is_finite() && !(float == 0.0 && float.is_sign_negative()) {
            return serializer.serialize_f64(float);
        }
        let mut marked = serializer.serialize_map(Some(1))?;
        marked.serialize_entry("$float", &STANDARD.encode(float.to_le_bytes()))?;
        marked.end()
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FloatVisitor).map(Self)
    }
}

struct FloatVisitor;

impl<'de> Visitor<'de> for FloatVisitor {
    type Value = f64;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number or a marked float")
    }

    fn visit_f64<E>(self, float: f64) -> Result<f64, E> {
        Ok(float)
    }

    fn visit_i64<E>(self, integer: i64) -> Result<f64, E> {
        Ok(integer as f64)
    }

    fn visit_u64<E>(self, integer: u64) -> Result<f64, E> {
        Ok(integer as f64)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<f64, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Marked {
            #[serde(rename = "$float", deserialize_with = "from_base64")]
            bytes: Vec<u8>,
        }
        let marked = Marked::deserialize(MapAccessDeserializer::new(map))?;
        let bytes = marked.bytes.try_into().map_err(|_| A::Error::custom("a marked float has 8 bytes"))?;
        Ok(f64::from_le_bytes(bytes))
    }
}

impl JsonSchema for Float {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Float")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-convoke": "float",
            "anyOf": [
                { "type": "number" },
                {
                    "type": "object",
                    "properties": { "$float": { "type": "string" } },
                    "required": ["$float"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_json_can_hold_is_a_number() {
        for (float, text) in [(1.5, "1.5"), (0.0, "0.0"), (1e300, "1e+300"), (-2.0, "-2.0")] {
            assert_eq!(serde_json::to_string(&Float(float)).unwrap(), text);
        }
        for text in ["2", "-2", "18446744073709551615", "2.5"] {
            let expected: f64 = text.parse().unwrap();
            assert_eq!(serde_json::from_str::<Float>(text).unwrap(), Float(expected));
        }
    }

    #[test]
    fn the_others_are_marked() {
        for (float, text) in [
            (f64::INFINITY, r#"{"$float":"AAAAAAAA8H8="}"#),
            (f64::NEG_INFINITY, r#"{"$float":"AAAAAAAA8P8="}"#),
            (-0.0, r#"{"$float":"AAAAAAAAAIA="}"#),
        ] {
            assert_eq!(serde_json::to_string(&Float(float)).unwrap(), text);
        }
        for text in [r#"{"$float":"AAAA"}"#, r#"{"$float":1}"#, r#"{"$bytes":""}"#, "null", "\"1\""] {
            assert!(serde_json::from_str::<Float>(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_float_comes_back_bit_by_bit(bits: u64) {
            let float = Float(f64::from_bits(bits));
            let text = serde_json::to_string(&float).unwrap();
            prop_assert_eq!(serde_json::from_str::<Float>(&text).unwrap().0.to_bits(), bits);
        }
    }
}
