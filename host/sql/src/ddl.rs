//! The tables: what Convoke keeps for itself, and the project's own.

use convoke_model::{BY_CREATION_TIME, Index, Order};

use crate::{key_of, qualified, quote_identifier};

/// The schema `convoke`: the registry of tables, and the functions that rows and people at a psql prompt use. Running
/// it again changes nothing.
pub fn bootstrap() -> &'static str {
    include_str!("bootstrap.sql")
}

/// The project's schema.
pub fn create_schema(schema: &str) -> String {
    format!("create schema if not exists {}", quote_identifier(schema))
}

/// Gives a table its number, once; the row has the number whether it is new or not.
pub fn register_table() -> &'static str {
    "insert into convoke.tables (project, name) values ($1, $2) \
     on conflict (project, name) do update set name = excluded.name returning number"
}

/// A table of documents. A row written by hand gets its id and its creation time by default.
pub fn create_table(schema: &str, table: &str) -> String {
    format!(
        "create table if not exists {} (\n  \
         _id uuid primary key default convoke.uuid_v7(),\n  \
         _creation_time double precision not null default convoke.now_ms(),\n  \
         data jsonb not null default '{{}}' check (jsonb_typeof(data) = 'object')\n)",
        qualified(schema, table)
    )
}

/// An index of a table, with the creation time and the id appended.
pub fn create_index(schema: &str, table: &str, index: &Index) -> String {
    let fields: String = index
        .fields
        .iter()
        .map(|field| format!("{}{}, ", key_of(&field.name), if field.order == Order::Desc { " desc" } else { "" }))
        .collect();
    format!(
        "create index if not exists {} on {} ({fields}_creation_time, _id)",
        quote_identifier(&index_name(table, &index.name)),
        qualified(schema, table),
    )
}

/// The index by creation time, which every table has.
pub fn create_creation_time_index(schema: &str, table: &str) -> String {
    format!(
        "create index if not exists {} on {} (_creation_time, _id)",
        quote_identifier(&index_name(table, BY_CREATION_TIME)),
        qualified(schema, table),
    )
}

/// Indexes of a schema share one name space in Postgres, those of a table do not in ours.
fn index_name(table: &str, index: &str) -> String {
    format!("{table}_{index}_idx")
}

#[cfg(test)]
mod tests {
    use convoke_model::IndexField;

    use super::*;

    #[test]
    fn an_index_holds_what_conditions_compare() {
        let fields = vec![IndexField::ascending("channel")];
        let index = Index { name: "by_channel".to_owned(), fields, unique: false };
        assert_eq!(
            create_index("demo", "messages", &index),
            "create index if not exists \"messages_by_channel_idx\" on \"demo\".\"messages\" \
             (convoke.key(data->'channel'), _creation_time, _id)"
        );
    }
}
