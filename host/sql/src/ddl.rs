//! The tables of a project.

use std::collections::BTreeMap;

use convoke_model::{Index, Order, Table};
use serde_json::Value;

use crate::{key_of, qualified, quote_identifier, quote_literal};

/// Postgres cuts longer names off, and two that differ behind the cut are one.
const NAME_BYTES_MAX: usize = 63;

/// The project's schema.
pub fn create_schema(schema: &str) -> String {
    format!("create schema if not exists {}", quote_identifier(schema))
}

/// Gives a table its number, once.
pub fn register_table(project: &str, table: &str) -> String {
    format!(
        "insert into convoke.tables (project, name) values ({}, {}) on conflict (project, name) do nothing",
        quote_literal(project),
        quote_literal(table)
    )
}

/// A table of documents. A row written by hand gets its id and its creation time by default.
pub fn create_table(schema: &str, table: &Table) -> String {
    let name = &table.name;
    let mut columns = vec![
        format!(
            "_id uuid default convoke.uuid_v7() constraint {} primary key",
            quote_identifier(&primary_key_name(name))
        ),
        "_creation_time double precision not null default convoke.now_ms()".to_owned(),
        format!(
            "data jsonb not null default '{{}}' constraint {} check (jsonb_typeof(data) = 'object')",
            quote_identifier(&object_check_name(name))
        ),
    ];
    if table.version > 1 {
        columns.push(format!("_version integer not null default {}", table.version));
    }
    for (field, kind) in checked_fields(table) {
        let constraint = quote_identifier(&check_name(name, &field));
        columns.push(format!("constraint {constraint} check ({})", check_expression(&field, &kind)));
    }
    format!("create table if not exists {} (\n  {}\n)", qualified(schema, name), columns.join(",\n  "))
}

/// What an index holds, in the parentheses: the keys of the fields, the creation time, the id.
pub fn index_columns(index: &Index) -> String {
    let fields = index.fields.iter().map(|field| match field.order {
        Order::Asc => key_of(&field.name),
        Order::Desc => format!("{} desc", key_of(&field.name)),
    });
    fields.chain(["_creation_time".to_owned(), "_id".to_owned()]).collect::<Vec<_>>().join(", ")
}

/// What makes the fields of an index unique: their keys, and the condition that a document has all of them.
pub fn key_index_predicate(index: &Index) -> (String, String) {
    let keys = index.fields.iter().map(|field| key_of(&field.name)).collect::<Vec<_>>().join(", ");
    let names = index.fields.iter().map(|field| quote_literal(&field.name)).collect::<Vec<_>>().join(", ");
    (keys, format!("data ?& array[{names}]"))
}

/// Indexes of a schema share one name space in Postgres, those of a table do not in ours.
pub fn index_name(table: &str, index: &str) -> String {
    fit(&format!("{table}_{index}"), "_idx")
}

/// The unique index beside one that is declared unique.
pub fn key_index_name(table: &str, index: &str) -> String {
    fit(&format!("{table}_{index}"), "_key")
}

/// What takes the place of an index of this name is built under a name of its own first.
pub fn replacement_name(index_name: &str) -> String {
    match index_name.strip_suffix("_idx") {
        Some(stem) => format!("{stem}_ixn"),
        None => format!("{}_kyn", index_name.strip_suffix("_key").unwrap_or(index_name)),
    }
}

pub fn primary_key_name(table: &str) -> String {
    fit(table, "_pkey")
}

pub fn object_check_name(table: &str) -> String {
    fit(table, "_data_check")
}

/// The check of a field's type. A field `data` must not take the name of the check that `data` is an object.
pub fn check_name(table: &str, field: &str) -> String {
    match field {
        "data" => format!("{}_check", shortened(&format!("{table}_data"), NAME_BYTES_MAX - "_check".len())),
        _ => fit(&format!("{table}_{field}"), "_check"),
    }
}

/// A name with its suffix; one that is too long is cut and told apart by a digest of the whole.
pub fn fit(stem: &str, suffix: &str) -> String {
    let bytes_max = NAME_BYTES_MAX - suffix.len();
    if stem.len() <= bytes_max { format!("{stem}{suffix}") } else { format!("{}{suffix}", shortened(stem, bytes_max)) }
}

fn shortened(stem: &str, bytes_max: usize) -> String {
    // FNV-1a: names are no secrets, and this crate has no digest.
    let digest = stem
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let end = stem.floor_char_boundary(stem.len().min(bytes_max - 9));
    format!("{}_{:08x}", &stem[..end], (digest >> 32) ^ (digest & 0xffff_ffff))
}

/// What a check holds a field to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldType {
    /// Types of JSON Schema, sorted.
    pub types: Vec<String>,
    pub required: bool,
}

const CHECKED_TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// The fields whose types Postgres checks: those of a table that asks for it whose schema gives their type plainly.
pub fn checked_fields(table: &Table) -> BTreeMap<String, FieldType> {
    let properties = table.document.get("properties").and_then(Value::as_object).filter(|_| table.check);
    let required = table.document.get("required").and_then(Value::as_array);
    let is_required =
        |name: &str| required.is_some_and(|required| required.iter().any(|field| field.as_str() == Some(name)));
    properties
        .into_iter()
        .flatten()
        .filter_map(|(name, schema)| {
            Some((name.clone(), FieldType { types: plain_types(schema)?, required: is_required(name) }))
        })
        .collect()
}

fn plain_types(schema: &Value) -> Option<Vec<String>> {
    let mut types = match schema.get("type")? {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()?,
        _ => return None,
    };
    types.sort_unstable();
    types.dedup();
    (!types.is_empty() && types.iter().all(|name| CHECKED_TYPES.contains(&name.as_str()))).then_some(types)
}

/// The condition of a check.
pub fn check_expression(field: &str, kind: &FieldType) -> String {
    let name = quote_literal(field);
    let value = format!("data->{name}");
    // JSON has no infinities: they are objects with one field (docs/guide/tables.md).
    let number = "number".to_owned();
    let is_number = kind.types.contains(&number);
    let whole = kind.types.iter().any(|name| name == "integer") && !is_number;
    let mut names: Vec<&str> =
        kind.types.iter().map(|name| if name == "integer" { "number" } else { name.as_str() }).collect();
    names.dedup();
    let mut allowed: Vec<String> = Vec::new();
    if whole {
        names.retain(|name| *name != "number");
        allowed.push(format!(
            "case when jsonb_typeof({value}) = 'number' then ({value})::numeric = trunc(({value})::numeric) else false end"
        ));
    }
    match names.as_slice() {
        [] => {}
        [one] => allowed.push(format!("jsonb_typeof({value}) = {}", quote_literal(one))),
        many => {
            let list = many.iter().map(|name| quote_literal(name)).collect::<Vec<_>>().join(", ");
            allowed.push(format!("jsonb_typeof({value}) = any (array[{list}])"));
        }
    }
    if is_number && !names.contains(&"object") {
        allowed.push(format!("{value}->'$float' is not null"));
    }
    if kind.required {
        let allowed = allowed.join(" or ");
        format!("data ? {name} and ({allowed})")
    } else {
        format!("{value} is null or {}", allowed.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use convoke_model::IndexField;

    use super::*;

    fn index(fields: &[(&str, Order)]) -> Index {
        let fields = fields.iter().map(|(name, order)| IndexField { name: (*name).to_owned(), order: *order });
        Index { name: "by".to_owned(), fields: fields.collect(), unique: true }
    }

    #[test]
    fn an_index_holds_what_conditions_compare() {
        assert_eq!(
            index_columns(&index(&[("channel", Order::Asc), ("at", Order::Desc)])),
            "convoke.key(data->'channel'), convoke.key(data->'at') desc, _creation_time, _id"
        );
        let (keys, predicate) = key_index_predicate(&index(&[("a", Order::Desc), ("b", Order::Asc)]));
        assert_eq!(keys, "convoke.key(data->'a'), convoke.key(data->'b')");
        assert_eq!(predicate, "data ?& array['a', 'b']");
    }

    #[test]
    fn long_names_fit_and_stay_apart() {
        let long = "t".repeat(60);
        let (one, two) = (index_name(&long, "a"), index_name(&long, "b"));
        assert!(one.len() <= 63 && one.ends_with("_idx") && one != two, "{one} {two}");
        assert_eq!(index_name("messages", "by_channel"), "messages_by_channel_idx");
        assert_ne!(check_name("t", "data"), object_check_name("t"));
        assert_eq!(replacement_name("a_b_idx").len(), "a_b_idx".len());
        assert_ne!(replacement_name("a_b_idx"), replacement_name("a_b_key"));
    }

    #[test]
    fn checks_allow_what_the_schema_does() {
        let text = |types: &[&str], required| {
            check_expression("f", &FieldType { types: types.iter().map(|name| (*name).to_owned()).collect(), required })
        };
        assert_eq!(text(&["string"], true), "data ? 'f' and (jsonb_typeof(data->'f') = 'string')");
        assert_eq!(
            text(&["null", "string"], false),
            "data->'f' is null or jsonb_typeof(data->'f') = any (array['null', 'string'])"
        );
        assert_eq!(
            text(&["number"], true),
            "data ? 'f' and (jsonb_typeof(data->'f') = 'number' or data->'f'->'$float' is not null)"
        );
        assert_eq!(
            text(&["integer"], false),
            "data->'f' is null or case when jsonb_typeof(data->'f') = 'number' \
             then (data->'f')::numeric = trunc((data->'f')::numeric) else false end"
        );
    }
}
