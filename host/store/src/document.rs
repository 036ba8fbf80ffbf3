//! Documents between Postgres' rows and JSON text, without a tree in between.

use std::error::Error;
use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};
use convoke_model::{Code, DocumentId, Failure};
use convoke_sql::Parameter;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

/// The version byte of `jsonb` on the wire.
const JSONB_VERSION: u8 = 1;

/// JSON text as `jsonb`.
#[derive(Debug)]
struct JsonText<'a>(&'a str);

impl ToSql for JsonText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u8(JSONB_VERSION);
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for JsonText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        match raw {
            [JSONB_VERSION, text @ ..] => Ok(Self(std::str::from_utf8(text)?)),
            _ => Err("jsonb of an unknown version".into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }
}

/// A parameter of a generated statement, as Postgres takes it.
#[derive(Debug)]
pub(crate) struct Bound<'a>(pub(crate) &'a Parameter);

impl ToSql for Bound<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Parameter::Uuid(value) => value.to_sql_checked(ty, out),
            Parameter::Uuids(values) => values.to_sql_checked(ty, out),
            Parameter::Json(text) => JsonText(text).to_sql_checked(ty, out),
            Parameter::Jsons(texts) => {
                texts.iter().map(|text| JsonText(text)).collect::<Vec<_>>().to_sql_checked(ty, out)
            }
            Parameter::Floats(values) => values.to_sql_checked(ty, out),
            Parameter::Texts(values) => values.to_sql_checked(ty, out),
            Parameter::BigInt(value) => value.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The uuid of a row of `_id, _creation_time, data`.
pub(crate) fn row_id(row: &Row) -> Result<Uuid, tokio_postgres::Error> {
    row.try_get(0)
}

/// Appends the document of a row: its fields, after the two that the system gives.
pub(crate) fn push_document(out: &mut String, table: u32, row: &Row) -> Result<(), tokio_postgres::Error> {
    let uuid = row.try_get(0)?;
    let creation_time: f64 = row.try_get(1)?;
    let JsonText(data) = row.try_get(2)?;
    out.reserve(data.len() + 96);
    out.push_str("{\"_id\":\"");
    DocumentId { table, uuid }.write_to(out);
    let _ = write!(out, "\",\"_creationTime\":{creation_time}");
    match data.strip_prefix('{') {
        Some(fields) if fields != "}" => {
            out.push(',');
            out.push_str(fields);
        }
        _ => out.push('}'),
    }
    Ok(())
}

/// Checks that a text is a JSON object whose field names a document may have.
pub(crate) fn check_document(text: &str, bytes_max: usize) -> Result<(), Failure> {
    check_size(text, bytes_max)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    reader
        .deserialize_map(FieldNames)
        .and_then(|()| reader.end())
        .map_err(|error| Failure::new(Code::InvalidArgs, format!("the document is refused: {error}")))
}

/// Splits the fields of a patch into those to set, as JSON text, and those to remove.
pub(crate) fn split_patch(text: &str, bytes_max: usize) -> Result<(String, Vec<String>), Failure> {
    check_document(text, bytes_max)?;
    if !text.contains("$undefined") {
        return Ok((text.to_owned(), Vec::new()));
    }
    let refused = |error: serde_json::Error| Failure::new(Code::InvalidArgs, format!("the patch is refused: {error}"));
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).map_err(refused)?;
    let mark = serde_json::json!({ "$undefined": null });
    let unset: Vec<String> = fields.iter().filter(|(_, value)| **value == mark).map(|(name, _)| name.clone()).collect();
    for name in &unset {
        fields.remove(name);
    }
    Ok((serde_json::Value::Object(fields).to_string(), unset))
}

fn check_size(text: &str, bytes_max: usize) -> Result<(), Failure> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    Err(Failure::new(Code::InvalidArgs, format!("a document of {} bytes is over the limit of {bytes_max}", text.len())))
}

struct FieldNames;

impl<'de> Visitor<'de> for FieldNames {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if name.is_empty() || name.starts_with(['_', '$']) {
                return Err(A::Error::custom(format!(
                    "field `{name}`: a name is not empty and does not begin with `_` or `$`"
                )));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_an_object_with_free_names() {
        assert!(check_document(r#"{"a":1,"b":{"_c":[]}}"#, 100).is_ok());
        for text in ["[]", "1", "{", r#"{"_id":1}"#, r#"{"$a":1}"#, r#"{"":1}"#, "{} {}", r#"{"a":1,}"#] {
            assert!(check_document(text, 100).is_err(), "{text}");
        }
        assert!(check_document(&format!("{{\"a\":\"{}\"}}", "x".repeat(100)), 100).is_err());
    }

    #[test]
    fn a_patch_parts_what_it_removes() {
        let (set, unset) = split_patch(r#"{"a":1,"b":{"$undefined":null}}"#, 100).expect("patch");
        assert_eq!((set.as_str(), unset), (r#"{"a":1}"#, vec!["b".to_owned()]));
    }
}
