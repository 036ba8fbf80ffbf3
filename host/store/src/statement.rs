//! SQL of a function's own: one statement, in the call's transaction, under the project's role.

use convoke_documents::{Row as _, Rows as _, Source as _, invalid, too_many};
use convoke_model::{Code, DatabaseError, Failure, Read, has_nul};
use serde_json::Value;
use tokio_postgres::types::ToSql;

use crate::call::CallDatabase;
use crate::error::Fault;
use crate::explain::Plan;
use crate::parameters::{Bound, JsonParameter};
use crate::rows::{Budget, Rows};
use crate::sessions::Object;

/// The statements that neither leave the transaction nor change the session. Whatever else a statement tries is
/// up to the role, which owns nothing and belongs to no other role.
const ALLOWED: [&str; 8] = ["select", "with", "values", "table", "insert", "update", "delete", "merge"];

/// A statement that may be sent.
struct Sql<'a> {
    text: &'a str,
    /// Its first word, in lower case.
    word: String,
    parameters: Vec<JsonParameter>,
    /// Whether it is to be known which relations it reads.
    noted: bool,
    rows_max: u32,
}

impl CallDatabase {
    pub(crate) async fn run_sql(&mut self, statement: &str, parameters: &str) -> Result<String, DatabaseError> {
        self.documents.source.check_usable()?;
        if !self.store.inner.sql {
            let words = "the project grants its functions no SQL: say `[sql]` and `allow = true` in `convoke.toml`";
            return Err(DatabaseError::Refused(Failure::function(Code::Forbidden, words)));
        }
        let rows_max = self.store.inner.project.limits.rows_max;
        let sql = Sql::of(statement, parameters, self.documents.is_noted(), rows_max)?;
        let restore = std::sync::Arc::clone(&self.store.inner.restore);
        let writes = self.documents.source.writes();
        let packet = self.documents.take_writes();
        let mut lent = self.documents.source.open(packet).await?;
        let run = async |client: &Object, budget: &mut Budget| sql.run(client, budget).await;
        let ran = lent.run(&restore, writes, run).await;
        let ran = self.documents.source.settle(lent, ran);
        if ran.is_err() {
            // Why it failed may lie anywhere.
            self.documents.note([Read::Everything]);
        }
        let (plan, rows, count) = match ran? {
            Ran::Parameters { wanted, given } => {
                let message = format!("the statement has {wanted} parameters, and {given} values were given for them");
                return Err(invalid(message));
            }
            Ran::Rows { plan, rows, count } => (plan, rows, count),
        };
        if let Some(plan) = plan {
            self.documents.source.check_intact(&names(&plan.reads)).await?;
            self.documents.note(plan.reads);
            self.is_volatile |= plan.is_volatile;
        }
        if rows.rows().len() > rows_max as usize {
            return Err(too_many(rows_max));
        }
        // What it wrote is not known here.
        self.documents.clear_known();
        let rows = rows.rows().iter().map(|row| row.json(0)).collect::<Result<Vec<_>, _>>()?;
        Ok(format!(r#"{{"rows":[{}],"count":{count}}}"#, rows.join(",")))
    }
}

impl<'a> Sql<'a> {
    fn of(text: &'a str, parameters: &str, noted: bool, rows_max: u32) -> Result<Self, DatabaseError> {
        let word = first_word(text).to_ascii_lowercase();
        if !ALLOWED.contains(&word.as_str()) {
            let words = format!("`{word}` is no statement that a function may send: {}", ALLOWED.join(", "));
            return Err(DatabaseError::Refused(Failure::function(Code::Forbidden, words)));
        }
        let parameters: Vec<Value> = serde_json::from_str(parameters)
            .map_err(|error| invalid(format!("the parameters are not a JSON array: {error}")))?;
        if text.contains('\0') || parameters.iter().any(has_nul) {
            return Err(invalid("the statement or a parameter has the character \\u0000, which Postgres cannot have"));
        }
        let parameters = parameters.into_iter().map(JsonParameter).collect();
        Ok(Self { text, word, parameters, noted, rows_max })
    }

    /// Prepared for this call only: nobody knows how many such statements there are.
    async fn run(&self, client: &Object, budget: &mut Budget) -> Result<Ran, Fault> {
        let Self { text, parameters, rows_max, .. } = self;
        let prepared = client.prepare(text).await?;
        if prepared.params().len() != parameters.len() {
            return Ok(Ran::Parameters { wanted: prepared.params().len(), given: parameters.len() });
        }
        let plan = if self.noted {
            let explain = client.prepare(&format!("explain (format json, verbose, costs off) {text}")).await?;
            let rows = budget.collect(client.query_raw(&explain, parameters).await?).await?;
            let json = rows.rows().first().map_or(Ok("null"), |row| row.json(0)).map_err(Fault::Ours)?;
            let mut plan = Plan::parse(json);
            if let Some(question) = plan.question() {
                let known = client.prepared(&question.text).await?;
                let rows = client.query_raw(&known, question.parameters.iter().map(Bound)).await?;
                plan.answer(&budget.collect(rows).await?).map_err(Fault::Ours)?;
            }
            Some(plan)
        } else {
            None
        };
        if prepared.columns().is_empty() {
            let bound: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|value| value as _).collect();
            let count = client.execute(&prepared, &bound).await?;
            return Ok(Ran::Rows { plan, rows: Rows::default(), count });
        }
        let wrapped = match self.word.as_str() {
            "insert" | "update" | "delete" | "merge" => format!("with q as (\n{text}\n) select to_json(q) from q"),
            _ => format!("select to_json(q) from (\n{text}\n) as q limit {}", u64::from(*rows_max) + 1),
        };
        let wrapped = client.prepare(&wrapped).await?;
        let rows = budget.collect(client.query_raw(&wrapped, parameters).await?).await?;
        let count = rows.rows().len() as u64;
        Ok(Ran::Rows { plan, rows, count })
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
        plan: Option<Plan>,
        rows: Rows,
        count: u64,
    },
    /// It was not run: there are not as many values as parameters.
    Parameters {
        wanted: usize,
        given: usize,
    },
}

/// The first word of a statement, behind white space, comments and parentheses, as Postgres' scanner finds it: comments nest,
/// and a carriage return ends a line too.
fn first_word(statement: &str) -> &str {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c', '(']);
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.trim_start_matches(|c| c != '\n' && c != '\r');
        } else if rest.starts_with("/*") {
            rest = behind_comment(rest);
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return &rest[..end];
        }
    }
}

/// What is behind the comment that a text begins with; nothing where it does not end.
fn behind_comment(text: &str) -> &str {
    let (mut rest, mut depth) = (text, 0_u32);
    loop {
        let Some(next) = rest.find(['/', '*']) else { return "" };
        rest = &rest[next..];
        if let Some(inner) = rest.strip_prefix("/*") {
            (rest, depth) = (inner, depth + 1);
        } else if let Some(behind) = rest.strip_prefix("*/") {
            (rest, depth) = (behind, depth - 1);
            if depth == 0 {
                return rest;
            }
        } else {
            rest = &rest[1..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_found_behind_comments() {
        for (statement, word) in [
            ("select 1", "select"),
            ("  -- a\n /* b */ ((SELECT 1))", "SELECT"),
            ("commit", "commit"),
            ("/* never closed", ""),
            ("/* /* */ select */ commit", "commit"),
            ("/* a */ /**/ /*/* **/ */ commit", "commit"),
            ("/*/ select */ commit", "commit"),
            ("-- select\r commit", "commit"),
            ("-- a\n-- b", ""),
            ("\u{a0}select 1", ""),
            ("", ""),
            ("set role x", "set"),
        ] {
            assert_eq!(first_word(statement), word, "{statement}");
        }
    }
}
