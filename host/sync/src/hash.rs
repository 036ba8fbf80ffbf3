//! Digests: of a schema, of a database's shape, of a plan.

use std::fmt::Write as _;

use convoke_model::{Order, Schema, Table, TableKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Changes when the same schema becomes other SQL, so that databases of older hosts are planned again.
const FORMAT: u32 = 1;

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The digest of what a schema says; where tables and fields are written, and by which component, is no part of it.
pub(crate) fn target(schema: &Schema) -> String {
    let tables: Vec<Value> = schema.tables.values().map(table).collect();
    sha256(canonical(&json!({ "format": FORMAT, "tables": tables })).as_bytes())
}

fn table(table: &Table) -> Value {
    let mut indexes: Vec<Value> = table
        .indexes
        .iter()
        .map(|index| {
            let fields: Vec<Value> =
                index.fields.iter().map(|field| json!([field.name, field.order == Order::Desc])).collect();
            json!({ "name": index.name, "fields": fields, "unique": index.unique })
        })
        .collect();
    indexes.sort_by_key(|index| index["name"].as_str().map(str::to_owned));
    let key = match &table.kind {
        TableKind::Managed => Value::Null,
        TableKind::Unmanaged { key } => json!(key),
    };
    json!({
        "name": table.name,
        "indexes": indexes,
        "document": table.document,
        "version": table.version,
        "upcast": table.upcast,
        "unknown": table.unknown,
        "check": table.check,
        "key": key,
    })
}

/// The digest of the documents that a table allows.
pub(crate) fn documents(table: &Table) -> String {
    sha256(canonical(&json!([without_words(&table.document), table.version])).as_bytes())
}

/// A JSON Schema without what is written for people.
fn without_words(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, value)| {
                !(["title", "description", "$schema", "$comment"].contains(&name.as_str()) && value.is_string())
            });
            Value::Object(fields.map(|(name, value)| (name.clone(), without_words(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_words).collect()),
        other => other.clone(),
    }
}

/// JSON with sorted names and no spaces.
pub(crate) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    push(&mut out, value);
    out
}

fn push(out: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                push(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (position, (name, item)) in fields.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", Value::String(name.clone()));
                push(out, item);
            }
            out.push('}');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_names_and_the_words_do_not_count() {
        let a: Value = serde_json::from_str(r#"{"b":1,"a":{"d":[1,{"y":1,"x":2}],"c":null}}"#).expect("JSON");
        assert_eq!(canonical(&a), r#"{"a":{"c":null,"d":[1,{"x":2,"y":1}]},"b":1}"#);
        assert_eq!(
            without_words(&json!({ "description": "a", "properties": { "title": { "type": "string" } } })),
            json!({ "properties": { "title": { "type": "string" } } })
        );
    }
}
