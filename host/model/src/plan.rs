//! What a query over a table asks for.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::schema::{Index, Table};

/// A query over one table, as a guest writes it in JSON (`database-read.query`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub table: String,
    #[serde(default)]
    pub index: Option<String>,
    #[serde(default, rename = "where")]
    pub conditions: Vec<Condition>,
    #[serde(default)]
    pub order: Order,
    #[serde(default)]
    pub limit: Option<u32>,
}

/// One comparison of a field with a value.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub field: String,
    pub op: Operator,
    pub value: Value,
}

/// How a condition compares. `in` takes an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    Eq,
    In,
    Lt,
    Lte,
    Gt,
    Gte,
}

/// The direction of the index, or of the creation time where no index is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    #[default]
    Asc,
    Desc,
}

/// Why a plan cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    #[error("the plan is not valid: {0}")]
    Malformed(String),
    #[error("table `{table}` has no index `{index}`; it has: {known}")]
    UnknownIndex { table: String, index: String, known: String },
    #[error(
        "index `{index}` is on ({fields}): conditions must be equalities on its first fields and a range on the next one, `{field}` does not fit"
    )]
    OutsideIndex { index: String, fields: String, field: String },
    #[error("the operator `in` takes an array, for field `{field}`")]
    InTakesArray { field: String },
    #[error("a condition on `{field}` needs an index that begins with it")]
    NeedsIndex { field: String },
}

impl Plan {
    /// Reads the JSON that a guest sent.
    pub fn parse(json: &str) -> Result<Self, PlanError> {
        serde_json::from_str(json).map_err(|error| PlanError::Malformed(error.to_string()))
    }

    /// Checks the plan against its table; gives the index that it names.
    pub fn check<'a>(&self, table: &'a Table) -> Result<Option<&'a Index>, PlanError> {
        for condition in &self.conditions {
            if condition.op == Operator::In && !condition.value.is_array() {
                return Err(PlanError::InTakesArray { field: condition.field.clone() });
            }
        }
        let Some(name) = &self.index else {
            return match self.conditions.first() {
                Some(condition) => Err(PlanError::NeedsIndex { field: condition.field.clone() }),
                None => Ok(None),
            };
        };
        let index = table.indexes.iter().find(|index| index.name == *name).ok_or_else(|| PlanError::UnknownIndex {
            table: table.name.clone(),
            index: name.clone(),
            known: table.indexes.iter().map(|index| index.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        self.check_prefix(index)?;
        Ok(Some(index))
    }

    /// Conditions come in the order of the index: equalities on a prefix, then a range on the next field.
    fn check_prefix(&self, index: &Index) -> Result<(), PlanError> {
        let mut position = 0;
        let mut ranged = false;
        for condition in &self.conditions {
            let expected = index.fields.get(position);
            if expected != Some(&condition.field) {
                return Err(PlanError::OutsideIndex {
                    index: index.name.clone(),
                    fields: index.fields.join(", "),
                    field: condition.field.clone(),
                });
            }
            match condition.op {
                Operator::Eq | Operator::In if !ranged => position += 1,
                Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => ranged = true,
                Operator::Eq | Operator::In => {
                    return Err(PlanError::OutsideIndex {
                        index: index.name.clone(),
                        fields: index.fields.join(", "),
                        field: condition.field.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            name: "messages".to_owned(),
            number: 1,
            indexes: vec![Index {
                name: "by_channel".to_owned(),
                fields: vec!["channel".to_owned(), "author".to_owned()],
            }],
            document: Value::Null,
        }
    }

    fn check(json: &str) -> Result<(), String> {
        let plan = Plan::parse(json).map_err(|error| error.to_string())?;
        plan.check(&table()).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn takes_prefixes_and_one_range() {
        for json in [
            r#"{"table":"messages"}"#,
            r#"{"table":"messages","order":"desc","limit":0}"#,
            r#"{"table":"messages","index":"by_channel"}"#,
            r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"eq","value":"a"}]}"#,
            r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"in","value":["a"]}]}"#,
            r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"eq","value":"a"},{"field":"author","op":"gte","value":"b"},{"field":"author","op":"lt","value":"c"}]}"#,
        ] {
            assert_eq!(check(json), Ok(()), "{json}");
        }
    }

    #[test]
    fn says_why_a_plan_does_not_fit() {
        for (json, words) in [
            (r#"{"table":"messages","index":"by_chanel"}"#, "it has: by_channel"),
            (
                r#"{"table":"messages","index":"by_channel","where":[{"field":"author","op":"eq","value":"a"}]}"#,
                "`author` does not fit",
            ),
            (
                r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"gt","value":"a"},{"field":"author","op":"eq","value":"a"}]}"#,
                "`author` does not fit",
            ),
            (r#"{"table":"messages","where":[{"field":"author","op":"eq","value":"a"}]}"#, "needs an index"),
            (
                r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"in","value":"a"}]}"#,
                "takes an array",
            ),
            (r#"{"table":"messages","limit":-1}"#, "not valid"),
            (r#"{"table":"messages","limits":1}"#, "unknown field `limits`"),
        ] {
            let error = check(json).expect_err(json);
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
