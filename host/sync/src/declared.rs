//! What a schema asks of the database, object by object.

use convoke_model::{BY_CREATION_TIME, Index, Table};
use convoke_sql::{
    check_expression, check_name, checked_fields, index_columns, index_name, key_index_name, key_index_predicate,
    object_check_name, primary_key_name,
};
use serde_json::Value;

use crate::compare::comparable;
use crate::hash;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Table,
    Column,
    Index,
    /// The unique index beside a declared one.
    Key,
    Constraint,
    /// A field of the documents, which Postgres does not know of.
    Field,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Column => "column",
            Self::Index => "index",
            Self::Key => "key",
            Self::Constraint => "constraint",
            Self::Field => "field",
        }
    }
}

/// One object of a table under its name in Postgres, with its definition in comparable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) definition: String,
}

/// An index as it is to be made.
#[derive(Debug, Clone)]
pub(crate) struct WantedIndex {
    pub(crate) name: String,
    /// The name in the schema.
    pub(crate) declared: String,
    pub(crate) fields: Vec<String>,
    pub(crate) unique: bool,
    /// `(…)` and what follows it.
    pub(crate) body: String,
}

/// A check as it is to be made.
#[derive(Debug, Clone)]
pub(crate) struct WantedCheck {
    pub(crate) name: String,
    pub(crate) field: String,
    pub(crate) types: Vec<String>,
    pub(crate) required: bool,
    pub(crate) expression: String,
}

impl WantedIndex {
    pub(crate) fn definition(&self) -> String {
        index_definition(self.unique, &self.body)
    }
}

/// The comparable form of an index: what follows `using`.
pub(crate) fn index_definition(unique: bool, body: &str) -> String {
    format!("{}{}", if unique { "unique:" } else { "" }, comparable(body))
}

/// All indexes of a managed table.
pub(crate) fn indexes(table: &Table) -> Vec<WantedIndex> {
    let by_creation_time = Index { name: BY_CREATION_TIME.to_owned(), fields: Vec::new(), unique: false };
    let mut wanted = Vec::new();
    for index in std::iter::once(&by_creation_time).chain(&table.indexes) {
        let fields: Vec<String> = index.fields.iter().map(|field| field.name.clone()).collect();
        wanted.push(WantedIndex {
            name: index_name(&table.name, &index.name),
            declared: index.name.clone(),
            fields: fields.clone(),
            unique: false,
            body: format!("({})", index_columns(index)),
        });
        if index.unique {
            let (keys, predicate) = key_index_predicate(index);
            wanted.push(WantedIndex {
                name: key_index_name(&table.name, &index.name),
                declared: index.name.clone(),
                fields,
                unique: true,
                body: format!("({keys}) where {predicate}"),
            });
        }
    }
    wanted
}

/// The checks of the fields of a table.
pub(crate) fn checks(table: &Table) -> Vec<WantedCheck> {
    let fields = checked_fields(table).into_iter();
    fields
        .map(|(field, kind)| WantedCheck {
            name: check_name(&table.name, &field),
            expression: check_expression(&field, &kind),
            types: kind.types,
            required: kind.required,
            field,
        })
        .collect()
}

/// The columns of a managed table, as the catalog describes them.
pub(crate) fn columns(table: &Table) -> Vec<(&'static str, String)> {
    let mut columns = vec![
        ("_id", "uuid not null default convoke.uuid_v7()".to_owned()),
        ("_creation_time", "double precision not null default convoke.now_ms()".to_owned()),
        ("data", "jsonb not null default '{}'::jsonb".to_owned()),
    ];
    if table.version > 1 {
        columns.push(("_version", format!("integer not null default {}", table.version)));
    }
    columns
}

pub(crate) fn primary_key(table: &str) -> Object {
    Object { kind: Kind::Constraint, name: primary_key_name(table), definition: comparable("primary key (_id)") }
}

pub(crate) fn object_check(table: &str) -> Object {
    Object {
        kind: Kind::Constraint,
        name: object_check_name(table),
        definition: comparable("check (jsonb_typeof(data) = 'object')"),
    }
}

/// The fields that a table's schema names; none where it does not say.
pub(crate) fn fields(table: &Table) -> Option<Vec<String>> {
    let properties = table.document.get("properties").and_then(Value::as_object)?;
    Some(properties.keys().cloned().collect())
}

/// All objects of a table, for the registry.
pub(crate) fn objects(table: &Table) -> Vec<Object> {
    let managed = table.is_managed();
    let definition = if managed { hash::documents(table) } else { "unmanaged".to_owned() };
    let mut objects = vec![Object { kind: Kind::Table, name: table.name.clone(), definition }];
    if !managed {
        return objects;
    }
    for (name, definition) in columns(table) {
        objects.push(Object { kind: Kind::Column, name: name.to_owned(), definition });
    }
    for index in indexes(table) {
        let kind = if index.unique { Kind::Key } else { Kind::Index };
        objects.push(Object { kind, definition: index.definition(), name: index.name });
    }
    objects.push(primary_key(&table.name));
    objects.push(object_check(&table.name));
    for check in checks(table) {
        let definition = comparable(&format!("check ({})", check.expression));
        objects.push(Object { kind: Kind::Constraint, name: check.name, definition });
    }
    for field in fields(table).into_iter().flatten() {
        objects.push(Object { kind: Kind::Field, name: field, definition: String::new() });
    }
    objects
}
