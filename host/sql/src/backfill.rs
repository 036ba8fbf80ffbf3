//! Statements of a backfill: stored documents are brought to the newest form of their table.

use convoke_model::Table;
use uuid::Uuid;

use crate::{Parameter, Statement, qualified};

/// Rows of an older form behind an id, or from the beginning, in the order of their ids: data, id, version. A row that
/// somebody else holds is told by its id alone.
pub fn outdated(schema: &str, table: &Table, after: Option<Uuid>, rows_max: u32) -> Statement {
    let relation = qualified(schema, &table.name);
    // There is an id of zeros too.
    let behind = if after.is_some() { ">" } else { ">=" };
    Statement {
        text: format!(
            "with found as (select _id from {relation} where _id {behind} $1 and _version < $2 order by _id limit $3), \
             taken as (select _id, data, _version from {relation} where _id in (select _id from found) \
             and _version < $2 for no key update skip locked) \
             select t.data, f._id, t._version from found as f left join taken as t on t._id = f._id order by f._id"
        ),
        parameters: vec![
            Parameter::Uuid(after.unwrap_or_default()),
            Parameter::Int(version(table)),
            Parameter::BigInt(i64::from(rows_max)),
        ],
    }
}

/// Puts new documents in the place of rows that are held. Their version is that of the form in which they are, not the
/// default of a column that a newer deployment has moved on.
pub fn renew(schema: &str, table: &Table, ids: Vec<Uuid>, documents: Vec<String>) -> Statement {
    Statement {
        text: format!(
            "update {} as t set data = w.document, _version = $3 from unnest($1::uuid[], $2::jsonb[]) as w(id, document) \
             where t._id = w.id",
            qualified(schema, &table.name)
        ),
        parameters: vec![Parameter::Uuids(ids), Parameter::Jsons(documents), Parameter::Int(version(table))],
    }
}

fn version(table: &Table) -> i32 {
    i32::try_from(table.version).unwrap_or(i32::MAX)
}
