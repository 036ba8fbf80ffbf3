//! A plan in, SQL text and parameters out.
//!
//! Every generated text depends only on the shape of what is asked, never on a value: so that it is prepared once a
//! connection, and nothing that a user sends is ever part of SQL.
//!
//! Invariant: no I/O, no clock; the same code serves the host and, composed, Spin.

mod aggregate;
mod backfill;
mod ddl;
mod filter;
mod read;
mod write;

pub use aggregate::aggregate;
pub use backfill::{outdated, renew};
pub use ddl::{
    FieldType, check_expression, check_name, checked_fields, create_schema, create_table, fit, index_columns,
    index_name, key_index_name, key_index_predicate, object_check_name, primary_key_name, register_table,
    replacement_name,
};
pub use read::{Bounds, Columns, expire_receipts, get, get_many, intact, position, query, recall, remember, snapshot};
pub use write::{
    DocumentBytes, Existence, Rows, Target, delete, delete_where, insert, patch_unset, patch_where, update,
};

use uuid::Uuid;

/// One statement with its parameters, numbered from `$1`.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub text: String,
    pub parameters: Vec<Parameter>,
}

impl Statement {
    /// A statement that controls the transaction: no parameters, no rows, not worth preparing.
    pub fn control(text: String) -> Self {
        Self { text, parameters: Vec::new() }
    }

    /// Whether it was made by [`Statement::control`].
    pub fn is_control(&self) -> bool {
        ["savepoint ", "release ", "rollback "].iter().any(|word| self.text.starts_with(word))
    }
}

/// A parameter and, by its variant, its Postgres type.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    Uuid(Uuid),
    Uuids(Vec<Uuid>),
    /// JSON text for `jsonb`.
    Json(String),
    Jsons(Vec<String>),
    Float(f64),
    Floats(Vec<f64>),
    Bytes(Vec<u8>),
    ManyBytes(Vec<Vec<u8>>),
    Text(String),
    Texts(Vec<String>),
    Int(i32),
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

/// A field as the indexes hold it and as conditions compare it. One function for both, so that they never part.
pub fn key_of(field: &str) -> String {
    format!("convoke.key(data->{})", quote_literal(field))
}

/// A field, or a field within fields: `author.name`.
fn path(field: &str) -> String {
    if !field.contains('.') {
        return format!("(data->{})", quote_literal(field));
    }
    let steps: Vec<String> = field.split('.').map(quote_literal).collect();
    format!("(data #> array[{}])", steps.join(", "))
}
