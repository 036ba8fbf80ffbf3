//! SQL of a function's own: one statement, in the call's transaction, under the project's role.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use convoke_model::{Code, DatabaseError, DocumentId, Failure, Read, has_nul};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::call::{CallDatabase, Isolation, invalid};
use crate::document::json_column;
use crate::reads::too_many;

/// The statements that neither leave the transaction nor change the session. Whatever else a statement tries is
/// up to the role, which owns nothing and belongs to no other role.
const ALLOWED: [&str; 8] = ["select", "with", "values", "table", "insert", "update", "delete", "merge"];

impl CallDatabase {
    #[expect(clippy::too_many_lines, reason = "its parts are about to move to a crate of their own")]
    pub(crate) async fn run_sql(&mut self, statement: &str, parameters: &str) -> Result<String, DatabaseError> {
        self.transaction.check_usable()?;
        if !self.store.inner.sql {
            let words = "the project grants its functions no SQL: say `[sql]` and `allow = true` in `convoke.toml`";
            return Err(DatabaseError::Refused(Failure::function(Code::Forbidden, words)));
        }
        // One statement alone would not be held to reading.
        if self.options.isolation == Isolation::SingleRead {
            return Err(DatabaseError::NeedsSnapshot);
        }
        let word = first_word(statement).to_ascii_lowercase();
        if !ALLOWED.contains(&word.as_str()) {
            let words = format!("`{word}` is no statement that a function may send: {}", ALLOWED.join(", "));
            return Err(DatabaseError::Refused(Failure::function(Code::Forbidden, words)));
        }
        let parameters: Vec<Value> = serde_json::from_str(parameters)
            .map_err(|error| invalid(format!("the parameters are not a JSON array: {error}")))?;
        if statement.contains('\0') || parameters.iter().any(has_nul) {
            return Err(invalid("the statement or a parameter has the character \\u0000, which Postgres cannot have"));
        }
        let observe = self.options.reads.is_some();
        let rows_max = self.store.inner.limits.rows_max;
        let restore = std::sync::Arc::clone(&self.store.inner.restore);
        let writes = self.transaction.writes();
        let packet = self.take_writes();
        let mut lent = self.transaction.open(packet).await?;
        let ran = lent
            .run(&restore, writes, |client| async move {
                let bound: Vec<JsonParameter> = parameters.into_iter().map(JsonParameter).collect();
                let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
                let prepared = client.prepare(statement).await?;
                if prepared.params().len() != bound.len() {
                    return Ok(Ran::Parameters { wanted: prepared.params().len(), given: bound.len() });
                }
                let plan = if observe {
                    let explain = format!("explain (format json, verbose, costs off) {statement}");
                    client.query(&explain, &bound).await?.first().map(json_column).transpose()?.map(str::to_owned)
                } else {
                    None
                };
                if prepared.columns().is_empty() {
                    let count = client.execute(&prepared, &bound).await?;
                    return Ok(Ran::Rows { plan, rows: Vec::new(), count });
                }
                let wrapped = match word.as_str() {
                    "insert" | "update" | "delete" | "merge" => {
                        format!("with q as (\n{statement}\n) select to_json(q) from q")
                    }
                    _ => format!("select to_json(q) from (\n{statement}\n) as q limit {}", u64::from(rows_max) + 1),
                };
                let rows = client.query(&wrapped, &bound).await?;
                let count = rows.len() as u64;
                Ok(Ran::Rows { plan, rows, count })
            })
            .await;
        let ran = self.transaction.settle(lent, ran);
        if ran.is_err() && observe {
            // Why it failed may lie anywhere.
            self.observed.reads.reads.push(Read::Everything);
        }
        let (plan, rows, count) = match ran? {
            Ran::Parameters { wanted, given } => {
                let message = format!("the statement has {wanted} parameters, and {given} values were given for them");
                return Err(invalid(message));
            }
            Ran::Rows { plan, rows, count } => (plan, rows, count),
        };
        if let Some(plan) = plan {
            let reads = relations(&plan);
            self.transaction.check_intact(&names(&reads)).await?;
            self.observed.reads.reads.extend(reads);
        }
        if rows.len() > rows_max as usize {
            return Err(too_many(rows_max));
        }
        // What it wrote is not known here.
        self.known.clear();
        let rows = rows
            .iter()
            .map(json_column)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Failure::internal(format!("a row of SQL: {error}")))?;
        Ok(format!(r#"{{"rows":[{}],"count":{count}}}"#, rows.join(",")))
    }
}

/// The relations among what was read, by schema and name.
fn names(reads: &[Read]) -> Vec<(&str, &str)> {
    reads
        .iter()
        .filter_map(|read| match read {
            Read::Relation { schema, name } => Some((schema.as_str(), name.as_str())),
            Read::Document { .. } | Read::Range { .. } | Read::Everything => None,
        })
        .collect()
}

/// What became of a statement that Postgres did not refuse.
enum Ran {
    Rows {
        plan: Option<String>,
        rows: Vec<Row>,
        count: u64,
    },
    /// It was not run: there are not as many values as parameters.
    Parameters {
        wanted: usize,
        given: usize,
    },
}

/// The first word of a statement, behind white space, comments and parentheses.
fn first_word(statement: &str) -> &str {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return &rest[..end];
        }
    }
}

/// The relations in a plan, by name; everything where a function of somebody's own may read what the plan hides.
fn relations(plan: &str) -> Vec<Read> {
    let Ok(plan) = serde_json::from_str::<Value>(plan) else { return vec![Read::Everything] };
    let mut reads = Vec::new();
    collect(&plan, &mut reads);
    reads
}

fn collect(node: &Value, reads: &mut Vec<Read>) {
    match node {
        Value::Array(items) => items.iter().for_each(|item| collect(item, reads)),
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            if let (Some(schema), Some(name)) = (text("Schema"), text("Relation Name")) {
                let read = Read::Relation { schema: schema.to_owned(), name: name.to_owned() };
                if !reads.contains(&read) {
                    reads.push(read);
                }
            }
            if text("Function Name").is_some() && text("Schema") != Some("pg_catalog") {
                reads.push(Read::Everything);
            }
            fields
                .values()
                .filter(|value| value.is_array() || value.is_object())
                .for_each(|value| collect(value, reads));
        }
        _ => {}
    }
}

/// A JSON value as whatever type the statement wants, in Postgres' text form.
#[derive(Debug)]
pub(crate) struct JsonParameter(pub(crate) Value);

impl ToSql for JsonParameter {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match text_form(&self.0, ty) {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.put_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

fn text_form(value: &Value, ty: &Type) -> Option<String> {
    Some(match (value, ty.kind()) {
        (Value::Null, _) => return None,
        _ if matches!(*ty, Type::JSON | Type::JSONB) => value.to_string(),
        (Value::Array(items), Kind::Array(member)) => {
            let items = items.iter().map(|item| match text_form(item, member) {
                None => "NULL".to_owned(),
                Some(text) if item.is_array() => text,
                Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            });
            format!("{{{}}}", items.collect::<Vec<_>>().join(","))
        }
        // The id that clients see, where a row's own is wanted.
        (Value::String(text), _) if *ty == Type::UUID => {
            DocumentId::parse(text).map_or_else(|_| text.clone(), |id| id.uuid.to_string())
        }
        (Value::String(text), _) => text.clone(),
        (other, _) => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_word_is_found_behind_comments() {
        for (statement, word) in [
            ("select 1", "select"),
            ("  -- a\n /* b */ ((SELECT 1))", "SELECT"),
            ("commit", "commit"),
            ("/* never closed", ""),
            ("", ""),
            ("set role x", "set"),
        ] {
            assert_eq!(first_word(statement), word, "{statement}");
        }
    }

    #[test]
    fn values_take_the_form_of_their_type() {
        assert_eq!(text_form(&json!(null), &Type::INT4), None);
        assert_eq!(text_form(&json!(9_007_199_254_740_993_i64), &Type::INT8).as_deref(), Some("9007199254740993"));
        assert_eq!(text_form(&json!("a"), &Type::JSONB).as_deref(), Some("\"a\""));
        assert_eq!(text_form(&json!(["a\"b", null]), &Type::TEXT_ARRAY).as_deref(), Some(r#"{"a\"b",NULL}"#));
    }

    #[test]
    fn relations_come_from_the_plan() {
        let plan = json!([{ "Plan": { "Node Type": "Hash Join", "Plans": [
            { "Node Type": "Seq Scan", "Schema": "demo", "Relation Name": "a" },
            { "Node Type": "Function Scan", "Schema": "pg_catalog", "Function Name": "generate_series" },
        ] } }]);
        let read = Read::Relation { schema: "demo".to_owned(), name: "a".to_owned() };
        assert_eq!(relations(&plan.to_string()), [read]);
    }
}
