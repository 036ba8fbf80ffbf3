//! Documents from rows to JSON text, without a tree in between.

use std::fmt::Write;

use convoke_model::{DatabaseError, DocumentId};
use uuid::Uuid;

use crate::source::Row;

/// A row of `_id, _creation_time, data`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) id: Uuid,
    pub(crate) creation_time: f64,
    /// A JSON object of the document's own fields.
    pub(crate) data: &'a str,
}

impl<'a> Stored<'a> {
    pub(crate) fn of(row: &'a impl Row) -> Result<Self, DatabaseError> {
        Ok(Self { id: row.uuid(0)?, creation_time: row.float(1)?, data: row.json(2)? })
    }
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
