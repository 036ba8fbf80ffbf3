//! Bytes, which JSON has no form for.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

/// Bytes, in JSON `{"$bytes": "<base64>"}`: what Convex' clients take for an `ArrayBuffer`.
///
/// A `Vec<u8>` is an array of numbers instead, four times as long.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Bytes> for Vec<u8> {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Bytes {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut marked = serializer.serialize_map(Some(1))?;
        marked.serialize_entry("$bytes", &STANDARD.encode(&self.0))?;
        marked.end()
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Marked {
            #[serde(rename = "$bytes", deserialize_with = "from_base64")]
            bytes: Vec<u8>,
        }
        Marked::deserialize(deserializer).map(|marked| Self(marked.bytes))
    }
}

/// Reads base64 without a copy of its text.
pub(crate) fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Base64;

    impl Visitor<'_> for Base64 {
        type Value = Vec<u8>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("base64")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
            STANDARD.decode(text).map_err(|error| E::custom(format_args!("not base64: {error}")))
        }
    }

    deserializer.deserialize_str(Base64).map_err(D::Error::custom)
}

impl JsonSchema for Bytes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Bytes")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "x-convoke": "bytes",
            "properties": { "$bytes": { "type": "string" } },
            "required": ["$bytes"],
            "additionalProperties": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_marked_base64() {
        let bytes = Bytes::from(&[0xFF_u8, 0, 1, 2][..]);
        let text = r#"{"$bytes":"/wABAg=="}"#;
        assert_eq!(serde_json::to_string(&bytes).unwrap(), text);
        assert_eq!(serde_json::from_str::<Bytes>(text).unwrap(), bytes);
        assert_eq!((bytes.len(), bytes.first()), (4, Some(&0xFF)));
    }

    #[test]
    fn nothing_else_is_bytes() {
        for text in [
            r#"{"$bytes":"/wABAg"}"#,
            r#"{"$bytes":"_wABAg=="}"#,
            r#"{"$bytes":5}"#,
            r#"{"$bytes":"","x":1}"#,
            "{}",
            "[1]",
        ] {
            assert!(serde_json::from_str::<Bytes>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_schema_is_marked() {
        let schema = schemars::schema_for!(Option<Bytes>).to_value();
        assert_eq!(schema["x-convoke"], "bytes");
        assert_eq!(schema["type"], serde_json::json!(["object", "null"]));
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes: Vec<u8>) {
            let bytes = Bytes(bytes);
            let text = serde_json::to_string(&bytes).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Bytes>(&text).unwrap(), &bytes);
            let value = serde_json::to_value(&bytes).unwrap();
            prop_assert_eq!(serde_json::from_value::<Bytes>(value).unwrap(), bytes);
        }
    }
}
