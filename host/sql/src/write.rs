//! Writes, many rows a statement.

use uuid::Uuid;

use crate::{Parameter, Statement, qualified};

/// Whether the rows of a write are known to exist. Where they are not, the statement itself fails when one is missing,
/// so that the commit which travels behind it in the same pipeline rolls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    Known,
    Checked,
}

/// Adds rows; the three lists are of one length.
pub fn insert(
    schema: &str,
    table: &str,
    ids: Vec<Uuid>,
    creation_times: Vec<f64>,
    documents: Vec<String>,
) -> Statement {
    Statement {
        text: format!(
            "insert into {} (_id, _creation_time, data) select * from unnest($1::uuid[], $2::double precision[], $3::jsonb[])",
            qualified(schema, table)
        ),
        parameters: vec![Parameter::Uuids(ids), Parameter::Floats(creation_times), Parameter::Jsons(documents)],
    }
}

/// Sets top-level fields of rows, each id once.
pub fn patch(schema: &str, table: &str, ids: Vec<Uuid>, fields: Vec<String>, existence: Existence) -> Statement {
    let rows = ids.len();
    let text = format!(
        "update {} as t set data = t.data || w.fields from unnest($1::uuid[], $2::jsonb[]) as w(id, fields) where t._id = w.id",
        qualified(schema, table)
    );
    checked(text, vec![Parameter::Uuids(ids), Parameter::Jsons(fields)], rows, table, existence)
}

/// Sets and removes top-level fields of one row.
pub fn patch_unset(
    schema: &str,
    table: &str,
    id: Uuid,
    fields: String,
    unset: Vec<String>,
    existence: Existence,
) -> Statement {
    let text = format!("update {} set data = (data || $2) - $3::text[] where _id = $1", qualified(schema, table));
    let parameters = vec![Parameter::Uuid(id), Parameter::Json(fields), Parameter::Texts(unset)];
    checked(text, parameters, 1, table, existence)
}

/// Puts new documents into rows, each id once.
pub fn replace(schema: &str, table: &str, ids: Vec<Uuid>, documents: Vec<String>, existence: Existence) -> Statement {
    let rows = ids.len();
    let text = format!(
        "update {} as t set data = w.document from unnest($1::uuid[], $2::jsonb[]) as w(id, document) where t._id = w.id",
        qualified(schema, table)
    );
    checked(text, vec![Parameter::Uuids(ids), Parameter::Jsons(documents)], rows, table, existence)
}

/// Removes rows, each id once.
pub fn delete(schema: &str, table: &str, ids: Vec<Uuid>, existence: Existence) -> Statement {
    let rows = ids.len();
    let text = format!("delete from {} where _id = any($1)", qualified(schema, table));
    checked(text, vec![Parameter::Uuids(ids)], rows, table, existence)
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
        let statement = patch("demo", "accounts", vec![Uuid::nil()], vec!["{}".to_owned()], Existence::Known);
        assert_eq!(
            statement.text,
            "update \"demo\".\"accounts\" as t set data = t.data || w.fields from unnest($1::uuid[], $2::jsonb[]) \
             as w(id, fields) where t._id = w.id"
        );
    }
}
