//! A plan in, SQL text and parameters out.
//!
//! Every generated text depends only on the shape of what is asked, never on a value: so that it is prepared once a
//! connection, and nothing that a user sends is ever part of SQL.
//!
//! Invariant: no I/O, no clock; the same code serves the host and, composed, Spin.

mod ddl;
mod read;
mod write;

pub use ddl::{
    FieldType, bootstrap, check_expression, check_name, checked_fields, create_schema, create_table, fit,
    index_columns, index_name, key_index_name, key_index_predicate, object_check_name, primary_key_name,
    register_table, replacement_name,
};
pub use read::{get, get_many, query};
pub use write::{Existence, delete, insert, patch, patch_unset, replace};

use uuid::Uuid;

/// One statement with its parameters, numbered from `$1`.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub text: String,
    pub parameters: Vec<Parameter>,
}

/// A parameter and, by its variant, its Postgres type.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    Uuid(Uuid),
    Uuids(Vec<Uuid>),
    /// JSON text for `jsonb`.
    Json(String),
    Jsons(Vec<String>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
    BigInt(i64),
}

/// A name as SQL writes it.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL writes it.
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `"schema"."table"`.
pub fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(table))
}

/// The key of a field: the one text that every index holds and every condition on it compares.
pub fn key_of(field: &str) -> String {
    format!("convoke.key(data->{})", quote_literal(field))
}

/// A field as the indexes hold it and as conditions compare it. One function for both, so that they never part.
fn field(name: &str) -> String {
    format!("(data->{})", quote_literal(name))
}
