//! Documents between Postgres' rows and JSON text, without a tree in between: the cheapest way that a person would
//! write by hand.

use std::error::Error;
use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

/// The version byte of `jsonb` on the wire.
const JSONB_VERSION: u8 = 1;

/// JSON text as `jsonb`.
#[derive(Debug)]
pub struct JsonText<T>(pub T);

impl<T: AsRef<str> + std::fmt::Debug> ToSql for JsonText<T> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u8(JSONB_VERSION);
        out.put_slice(self.0.as_ref().as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for JsonText<&'a str> {
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

/// Appends the document of a row of `_id, _creation_time, data`, whose data has at least one field.
pub fn push(out: &mut String, row: &Row) -> Result<(), tokio_postgres::Error> {
    let id: Uuid = row.try_get(0)?;
    let creation_time: f64 = row.try_get(1)?;
    let JsonText(data) = row.try_get(2)?;
    let fields = data.strip_prefix('{').unwrap_or("}");
    let _ = write!(out, "{{\"_id\":\"{id}\",\"_creationTime\":{creation_time},{fields}");
    Ok(())
}
