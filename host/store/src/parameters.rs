//! Parameters and JSON text as Postgres' protocol has them.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use convoke_model::DocumentId;
use convoke_sql::Parameter;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

/// The version byte of `jsonb` on the wire.
const JSONB_VERSION: u8 = 1;

/// JSON text as `jsonb`.
#[derive(Debug)]
pub(crate) struct JsonText<'a>(pub(crate) &'a str);

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
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        if *ty == Type::JSON {
            return Ok(Self(std::str::from_utf8(raw)?));
        }
        match raw {
            [JSONB_VERSION, text @ ..] => Ok(Self(std::str::from_utf8(text)?)),
            _ => Err("jsonb of an unknown version".into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::JSON | Type::JSONB)
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
            Parameter::Float(value) => value.to_sql_checked(ty, out),
            Parameter::Bytes(value) => value.to_sql_checked(ty, out),
            Parameter::ManyBytes(values) => values.to_sql_checked(ty, out),
            Parameter::Floats(values) => values.to_sql_checked(ty, out),
            Parameter::Text(value) => value.to_sql_checked(ty, out),
            Parameter::Texts(values) => values.to_sql_checked(ty, out),
            Parameter::Int(value) => value.to_sql_checked(ty, out),
            Parameter::BigInt(value) => value.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A column of type `json` or `jsonb` as text, or none where it is null.
pub(crate) fn optional_json_column(row: &Row, column: usize) -> Result<Option<&str>, tokio_postgres::Error> {
    let value: Option<JsonText<'_>> = row.try_get(column)?;
    Ok(value.map(|JsonText(text)| text))
}

/// A JSON value as whatever type the statement wants, in Postgres' text form.
#[derive(Debug)]
pub(crate) struct JsonParameter(pub(crate) Value);

impl ToSql for JsonParameter {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match text_form(&self.0, ty) {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.put_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

fn text_form(value: &Value, ty: &Type) -> Option<String> {
    Some(match (value, ty.kind()) {
        (Value::Null, _) => return None,
        _ if matches!(*ty, Type::JSON | Type::JSONB) => value.to_string(),
        (Value::Array(items), Kind::Array(member)) => {
            let items = items.iter().map(|item| match text_form(item, member) {
                None => "NULL".to_owned(),
                Some(text) if item.is_array() => text,
                Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            });
            format!("{{{}}}", items.collect::<Vec<_>>().join(","))
        }
        // The id that clients see, where a row's own is wanted.
        (Value::String(text), _) if *ty == Type::UUID => {
            DocumentId::parse(text).map_or_else(|_| text.clone(), |id| id.uuid.to_string())
        }
        (Value::String(text), _) => text.clone(),
        (other, _) => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_take_the_form_of_their_type() {
        assert_eq!(text_form(&json!(null), &Type::INT4), None);
        assert_eq!(text_form(&json!(9_007_199_254_740_993_i64), &Type::INT8).as_deref(), Some("9007199254740993"));
        assert_eq!(text_form(&json!("a"), &Type::JSONB).as_deref(), Some("\"a\""));
        assert_eq!(text_form(&json!(["a\"b", null]), &Type::TEXT_ARRAY).as_deref(), Some(r#"{"a\"b",NULL}"#));
    }
}
