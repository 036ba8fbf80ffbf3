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
pub use read::{
    Bounds, Columns, expire_receipts, find_receipt, flush_log, get, get_many, intact, leave_receipt, log_end, position,
    query, receipts_horizon, snapshot,
};
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
    let mut text = String::with_capacity(name.len() + 2);
    push_quoted(&mut text, name, '"');
    text
}

/// Quotes without a copy in between: this is done for each statement.
fn push_quoted(text: &mut String, name: &str, quote: char) {
    text.push(quote);
    for (number, part) in name.split(quote).enumerate() {
        if number > 0 {
            text.extend([quote, quote]);
        }
        text.push_str(part);
    }
    text.push(quote);
}

/// A text as SQL writes it.
pub fn quote_literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    push_quoted(&mut quoted, text, '\'');
    quoted
}

/// `"schema"."table"`.
pub fn qualified(schema: &str, table: &str) -> String {
    let mut text = String::with_capacity(schema.len() + table.len() + 5);
    push_qualified(&mut text, schema, table);
    text
}

fn push_qualified(text: &mut String, schema: &str, table: &str) {
    push_quoted(text, schema, '"');
    text.push('.');
    push_quoted(text, table, '"');
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
