//! Documents between Postgres' rows and JSON text, without a tree in between.

use std::error::Error;
use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use convoke_model::DocumentId;
use convoke_sql::Parameter;
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

/// A row of `_id, _creation_time, data`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) id: Uuid,
    pub(crate) creation_time: f64,
    /// A JSON object of the document's own fields.
    pub(crate) data: &'a str,
}

impl<'a> Stored<'a> {
    pub(crate) fn of(row: &'a Row) -> Result<Self, tokio_postgres::Error> {
        let JsonText(data) = row.try_get(2)?;
        Ok(Self { id: row.try_get(0)?, creation_time: row.try_get(1)?, data })
    }
}

/// The first column, of type `json` or `jsonb`, as text.
pub(crate) fn json_column(row: &Row) -> Result<&str, tokio_postgres::Error> {
    row.try_get(0).map(|JsonText(text)| text)
}

/// A column of type `json` or `jsonb` as text, or none where it is null.
pub(crate) fn optional_json_column(row: &Row, column: usize) -> Result<Option<&str>, tokio_postgres::Error> {
    let value: Option<JsonText<'_>> = row.try_get(column)?;
    Ok(value.map(|JsonText(text)| text))
}

/// Appends the document of a row: its fields, after the two that the system gives.
pub(crate) fn push_document(out: &mut String, table: u32, stored: &Stored<'_>) {
    out.reserve(stored.data.len() + 96);
    push_system_fields(out, table, stored.id, stored.creation_time);
    match stored.data.trim_start().strip_prefix('{') {
        Some(fields) if fields.trim_start() != "}" => {
            out.push(',');
            out.push_str(fields);
        }
        _ => out.push('}'),
    }
}

/// Appends a part of a document: fields as their names and values in JSON, after the two that the system gives.
pub(crate) fn push_part<'a>(
    out: &mut String,
    table: u32,
    id: Uuid,
    creation_time: f64,
    fields: impl Iterator<Item = (&'a str, &'a str)>,
) {
    push_system_fields(out, table, id, creation_time);
    for (name, value) in fields {
        let _ = write!(out, ",{name}:{value}");
    }
    out.push('}');
}

/// Begins an object.
fn push_system_fields(out: &mut String, table: u32, id: Uuid, creation_time: f64) {
    out.push_str("{\"_id\":\"");
    DocumentId { table, uuid: id }.write_to(out);
    let _ = write!(out, "\",\"_creationTime\":{}", shown_time(creation_time));
}

/// JSON has neither infinities nor not-a-number, which somebody may have written into the column: they are shown as the
/// outermost floats, at that end where Postgres has them in the order.
fn shown_time(time: f64) -> f64 {
    if time.is_nan() { f64::MAX } else { time.clamp(f64::MIN, f64::MAX) }
}
