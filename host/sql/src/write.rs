//! Writes, many rows a statement.

use convoke_model::{Index, Plan, Table};
use uuid::Uuid;

use crate::read::{Bounds, push_order, push_where};
use crate::{Parameter, Statement, qualified};

/// Whether the rows of a write are known to exist. Where they are not, the statement itself fails when one is missing,
/// so that the commit which travels behind it in the same pipeline rolls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    Known,
    Checked,
}

/// What an update makes of a row, from the JSON text that comes with its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Sets top-level fields.
    Patch,
    /// Puts a new document in its place.
    Replace,
    /// Changes fields by operations: `inc`, `append`, `max`, `min`.
    Apply,
}

/// Adds rows; the three lists are of one length. `version` is as in [`Target`].
pub fn insert(
    schema: &str,
    table: &str,
    ids: Vec<Uuid>,
    creation_times: Vec<f64>,
    documents: Vec<String>,
    version: Option<u32>,
) -> Statement {
    let (column, value) = match version {
        Some(version) => (", _version", format!(", {version}")),
        None => ("", String::new()),
    };
    Statement {
        text: format!(
            "insert into {} (_id, _creation_time, data{column}) \
             select *{value} from unnest($1::uuid[], $2::double precision[], $3::jsonb[])",
            qualified(schema, table)
        ),
        parameters: vec![Parameter::Uuids(ids), Parameter::Floats(creation_times), Parameter::Jsons(documents)],
    }
}

/// The text of a document that Postgres makes of another one, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentBytes(pub usize);

impl DocumentBytes {
    fn parameter(self) -> Parameter {
        Parameter::Int(i32::try_from(self.0).unwrap_or(i32::MAX))
    }
}

/// What an update needs to know of its table.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub schema: &'a str,
    pub table: &'a str,
    /// The form of whole new documents, where the table notes it: the deployment's, which need not be the column's default.
    pub version: Option<u32>,
    pub bytes_max: DocumentBytes,
}

/// Changes rows, each id once. What the change makes of a document is held to its size, and by [`Rows::Apply`] to what
/// goes with each operation.
pub fn update(target: Target<'_>, rows: Rows, ids: Vec<Uuid>, texts: Vec<String>, existence: Existence) -> Statement {
    let Target { schema, table, version, bytes_max } = target;
    let count = ids.len();
    let name = crate::quote_literal(table);
    let data = match rows {
        Rows::Patch => format!("convoke.bounded(t.data || w.change, {name}, $3)"),
        Rows::Replace => "w.change".to_owned(),
        Rows::Apply => format!("convoke.apply(t.data, w.change, {name}, $3)"),
    };
    let version = match version {
        Some(version) if rows == Rows::Replace => format!(", _version = {version}"),
        _ => String::new(),
    };
    let text = format!(
        "update {} as t set data = {data}{version} from unnest($1::uuid[], $2::jsonb[]) as w(id, change) where t._id = w.id",
        qualified(schema, table)
    );
    let mut parameters = vec![Parameter::Uuids(ids), Parameter::Jsons(texts)];
    if rows != Rows::Replace {
        parameters.push(bytes_max.parameter());
    }
    checked(text, parameters, count, table, existence)
}

/// Sets and removes top-level fields of one row.
pub fn patch_unset(
    target: Target<'_>,
    id: Uuid,
    fields: String,
    unset: Vec<String>,
    existence: Existence,
) -> Statement {
    let Target { schema, table, bytes_max, .. } = target;
    let text = format!(
        "update {} set data = convoke.bounded((data || $2) - $3::text[], {}, $4) where _id = $1",
        qualified(schema, table),
        crate::quote_literal(table)
    );
    let parameters = vec![Parameter::Uuid(id), Parameter::Json(fields), Parameter::Texts(unset), bytes_max.parameter()];
    checked(text, parameters, 1, table, existence)
}

/// Removes rows, each id once.
pub fn delete(schema: &str, table: &str, ids: Vec<Uuid>, existence: Existence) -> Statement {
    let rows = ids.len();
    let text = format!("delete from {} where _id = any($1)", qualified(schema, table));
    checked(text, vec![Parameter::Uuids(ids)], rows, table, existence)
}

/// Sets and removes top-level fields of all rows that a plan selects; the one row returned is their number.
pub fn patch_where(
    schema: &str,
    table: &Table,
    plan: &Plan,
    index: &Index,
    fields: String,
    unset: Vec<String>,
    bytes_max: DocumentBytes,
) -> Statement {
    let relation = qualified(schema, &table.name);
    let name = crate::quote_literal(&table.name);
    let mut statement = Statement {
        text: format!("with w as (update {relation} set data = convoke.bounded((data || $1) - $2::text[], {name}, $3)"),
        parameters: vec![Parameter::Json(fields), Parameter::Texts(unset), bytes_max.parameter()],
    };
    push_selected(&mut statement, &relation, plan, index);
    statement
}

/// Removes all rows that a plan selects; the one row returned is their number.
pub fn delete_where(schema: &str, table: &Table, plan: &Plan, index: &Index) -> Statement {
    let relation = qualified(schema, &table.name);
    let mut statement = Statement { text: format!("with w as (delete from {relation}"), parameters: Vec::new() };
    push_selected(&mut statement, &relation, plan, index);
    statement
}

fn push_selected(statement: &mut Statement, relation: &str, plan: &Plan, index: &Index) {
    if plan.limit.is_none() && plan.offset.is_none() {
        push_where(statement, plan, index, Bounds::default());
    } else {
        statement.text.push_str(" where _id = any(array(select _id from ");
        statement.text.push_str(relation);
        push_where(statement, plan, index, Bounds::default());
        push_order(&mut statement.text, plan, index);
        statement.push_limit(plan.limit.unwrap_or(u32::MAX), plan.offset);
        statement.text.push_str("))");
    }
    statement.text.push_str(" returning 1) select count(*) from w");
}

fn checked(text: String, mut parameters: Vec<Parameter>, rows: usize, table: &str, existence: Existence) -> Statement {
    if existence == Existence::Known {
        return Statement { text, parameters };
    }
    parameters.push(Parameter::BigInt(i64::try_from(rows).unwrap_or(i64::MAX)));
    let text = format!(
        "with w as ({text} returning 1) select convoke.require_rows(count(*), ${}, {}) from w",
        parameters.len(),
        crate::quote_literal(table)
    );
    Statement { text, parameters }
}

#[cfg(test)]
mod tests {
    use convoke_model::TableManifest;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_row_fails_its_own_statement() {
        let statement = delete("demo", "messages", vec![Uuid::nil()], Existence::Checked);
        assert_eq!(
            statement.text,
            "with w as (delete from \"demo\".\"messages\" where _id = any($1) returning 1) \
             select convoke.require_rows(count(*), $2, 'messages') from w"
        );
        assert_eq!(statement.parameters[1], Parameter::BigInt(1));
    }

    #[test]
    fn a_known_row_costs_no_check() {
        let texts = vec!["{}".to_owned()];
        let target = Target { schema: "demo", table: "accounts", version: Some(2), bytes_max: DocumentBytes(1 << 20) };
        let statement = update(target, Rows::Patch, vec![Uuid::nil()], texts, Existence::Known);
        assert_eq!(
            statement.text,
            "update \"demo\".\"accounts\" as t set data = convoke.bounded(t.data || w.change, 'accounts', $3) \
             from unnest($1::uuid[], $2::jsonb[]) as w(id, change) where t._id = w.id"
        );
    }

    #[test]
    fn a_plan_selects_what_is_written() {
        let manifest: TableManifest = serde_json::from_value(json!({ "name": "accounts" })).expect("a manifest");
        let table = Table::declared(&manifest, "accounts");
        let write = |json: &str| {
            let plan = Plan::parse(json).expect("a plan");
            let index = plan.check(&table).expect("a plan of this table");
            delete_where("demo", &table, &plan, &index).text
        };
        assert_eq!(
            write(r#"{"table":"accounts","filter":{"field":"n","op":"eq","value":1}}"#),
            "with w as (delete from \"demo\".\"accounts\" where coalesce((data->'n') = $1, false) returning 1) \
             select count(*) from w"
        );
        assert_eq!(
            write(r#"{"table":"accounts","limit":5,"order":"desc"}"#),
            "with w as (delete from \"demo\".\"accounts\" where _id = any(array(select _id from \"demo\".\"accounts\" \
             order by _creation_time desc, _id desc limit $1)) returning 1) select count(*) from w"
        );
    }
}
