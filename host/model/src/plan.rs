//! What a query over a table asks for.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::schema::{BY_CREATION_TIME, Index, IndexField, Table};

/// A query over one table, as a guest writes it in JSON (docs/reference/plan.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Plan {
    pub table: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// Conditions on the fields of the index, in its order.
    #[serde(default, rename = "where")]
    pub conditions: Vec<Condition>,
    /// A condition on any field, looked at row by row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    #[serde(default)]
    pub order: Order,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Page>,
    /// The top-level fields of the documents that are wanted; none for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aggregate: Vec<Aggregate>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_by: Vec<String>,
}

/// One comparison of a field with a value. A value `{"$undefined": null}` stands for a missing field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub field: String,
    pub op: Operator,
    pub value: Value,
}

/// How a condition compares. `in` takes an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    Eq,
    Ne,
    In,
    Lt,
    Lte,
    Gt,
    Gte,
}

/// A condition on any fields. A field may be a path: `author.name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Filter {
    And { and: Vec<Filter> },
    Or { or: Vec<Filter> },
    Not { not: Box<Filter> },
    Compare(Condition),
}

/// One page of a longer result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Where the page begins: null, or the `continueCursor` of the page before.
    pub cursor: Option<String>,
    /// Where it ends, where that is fixed already; then the limit does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

/// One value computed over the documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    pub op: AggregateOperator,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// `count` counts documents; the others look at a field, and leave out documents where it is no number (`sum`, `avg`)
/// or missing (`min`, `max`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AggregateOperator {
    Count,
    Sum,
    Min,
    Max,
    Avg,
}

/// The direction of the index, or of the creation time where no index is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    #[default]
    Asc,
    Desc,
}

/// The column behind `_creationTime`, which every index ends with.
pub const CREATION_TIME: &str = "_creationTime";
/// How deep a filter may nest, and how many comparisons it may have.
const FILTER_DEPTH_MAX: usize = 32;
const FILTER_COMPARISONS_MAX: usize = 256;
/// Each is a column of a statement, beside those of the index and the filter; Postgres returns at most 1,664.
const FIELDS_MAX: usize = 256;

/// Why a plan cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    #[error("the plan is not valid: {0}")]
    Malformed(String),
    #[error("table `{table}` has no index `{index}`; it has: {known}")]
    UnknownIndex { table: String, index: String, known: String },
    #[error(
        "index `{index}` is on ({fields}): conditions must be equalities on its first fields and a range on the next one, `{field}` does not fit; use a filter"
    )]
    OutsideIndex { index: String, fields: String, field: String },
    #[error("the operator `in` takes an array, for field `{field}`")]
    InTakesArray { field: String },
    #[error("`_creationTime` is compared with a number")]
    CreationTime,
    #[error("a condition on `{field}` needs an index that begins with it, or a filter")]
    NeedsIndex { field: String },
    #[error("field `{field}` holds ids of table `{table}`: {found}")]
    Id { field: String, table: String, found: String },
    #[error("field `{field}` is compared with text that has the character \\u0000, which no stored text has")]
    Nul { field: String },
    #[error("`{field}` is not the path of a field")]
    Field { field: String },
    #[error("a filter has at most {FILTER_COMPARISONS_MAX} comparisons, {FILTER_DEPTH_MAX} deep")]
    FilterSize,
    #[error("`{0}` needs a field")]
    AggregateField(&'static str),
    #[error("`fields` names the fields to return: leave it out for whole documents")]
    NoFields,
    #[error("`fields` takes names of top-level fields, `{field}` is none")]
    NoTopLevelField { field: String },
    #[error("`fields` names `{field}` twice")]
    FieldTwice { field: String },
    #[error("`fields` names at most {FIELDS_MAX} fields")]
    TooManyFields,
    #[error("`groupBy` takes the first fields of the index that no equality fixes, `{field}` does not fit")]
    GroupBy { field: String },
    #[error("{0} do not go together")]
    Together(&'static str),
}

impl Plan {
    /// Reads the JSON that a guest sent.
    pub fn parse(json: &str) -> Result<Self, PlanError> {
        serde_json::from_str(json).map_err(|error| PlanError::Malformed(error.to_string()))
    }

    /// Checks the plan against its table; gives the index along which it goes.
    pub fn check(&self, table: &Table) -> Result<Index, PlanError> {
        for condition in &self.conditions {
            if condition.op == Operator::In && !condition.value.is_array() {
                return Err(PlanError::InTakesArray { field: condition.field.clone() });
            }
            if condition.field == CREATION_TIME && !condition.value.is_number() {
                return Err(PlanError::CreationTime);
            }
        }
        if let Some(filter) = &self.filter {
            filter.check(0, &mut 0)?;
        }
        self.check_shape()?;
        self.check_fields()?;
        let index = match (&self.index, self.conditions.first()) {
            (None, Some(condition)) if condition.field != CREATION_TIME => {
                return Err(PlanError::NeedsIndex { field: condition.field.clone() });
            }
            (None, _) => table.index(BY_CREATION_TIME),
            (Some(name), _) => table.index(name),
        };
        let index = index.ok_or_else(|| PlanError::UnknownIndex {
            table: table.name.clone(),
            index: self.index.clone().unwrap_or_default(),
            known: known_indexes(table),
        })?;
        self.check_prefix(&index)?;
        self.check_groups(&index)?;
        Ok(index)
    }

    /// How many of the index's fields equalities fix.
    pub fn fixed_fields(&self) -> usize {
        self.conditions.iter().take_while(|condition| condition.op == Operator::Eq).count()
    }

    /// Checks which fields are wanted; the table need not be known.
    pub fn check_fields(&self) -> Result<(), PlanError> {
        let Some(fields) = &self.fields else { return Ok(()) };
        if !self.aggregate.is_empty() {
            return Err(PlanError::Together("`fields` and `aggregate`"));
        }
        if fields.is_empty() {
            return Err(PlanError::NoFields);
        }
        if fields.len() > FIELDS_MAX {
            return Err(PlanError::TooManyFields);
        }
        for (position, field) in fields.iter().enumerate() {
            if field.is_empty() || field.contains(['.', '\0']) {
                return Err(PlanError::NoTopLevelField { field: field.clone() });
            }
            if fields[..position].contains(field) {
                return Err(PlanError::FieldTwice { field: field.clone() });
            }
        }
        Ok(())
    }

    fn check_shape(&self) -> Result<(), PlanError> {
        let aggregates = !self.aggregate.is_empty();
        if self.page.is_some() && (aggregates || self.offset.is_some()) {
            return Err(PlanError::Together("`page` and `offset` or `aggregate`"));
        }
        if aggregates && (self.limit.is_some() || self.offset.is_some()) && self.group_by.is_empty() {
            return Err(PlanError::Together("`aggregate` and `limit` or `offset`"));
        }
        if !self.group_by.is_empty() && !aggregates {
            return Err(PlanError::Together("`groupBy` without `aggregate`"));
        }
        self.aggregate.iter().try_for_each(Aggregate::check)
    }

    /// Conditions come in the order of the index: equalities on a prefix, then a range on the next field.
    fn check_prefix(&self, index: &Index) -> Result<(), PlanError> {
        let outside = |field: &str| PlanError::OutsideIndex {
            index: index.name.clone(),
            fields: fields_of(index),
            field: field.to_owned(),
        };
        let mut position = 0;
        let mut ranged = false;
        for condition in &self.conditions {
            let expected = index.fields.get(position).map(|field| field.name.as_str());
            if expected.unwrap_or(CREATION_TIME) != condition.field || position > index.fields.len() {
                return Err(outside(&condition.field));
            }
            match condition.op {
                Operator::Eq | Operator::In if !ranged => position += 1,
                Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => ranged = true,
                Operator::Eq | Operator::In | Operator::Ne => return Err(outside(&condition.field)),
            }
        }
        let mixes = self.conditions.iter().any(|condition| condition.op == Operator::In);
        if mixes && self.page.is_some() {
            return Err(PlanError::Together("`page` and `in`"));
        }
        Ok(())
    }

    fn check_groups(&self, index: &Index) -> Result<(), PlanError> {
        let mut free = index.fields.iter().skip(self.fixed_fields());
        for field in &self.group_by {
            if free.next().is_none_or(|free| free.name != *field) {
                return Err(PlanError::GroupBy { field: field.clone() });
            }
        }
        Ok(())
    }
}

impl Filter {
    fn check(&self, depth: usize, comparisons: &mut usize) -> Result<(), PlanError> {
        if depth > FILTER_DEPTH_MAX {
            return Err(PlanError::FilterSize);
        }
        match self {
            Self::And { and: parts } | Self::Or { or: parts } => {
                parts.iter().try_for_each(|part| part.check(depth + 1, comparisons))
            }
            Self::Not { not } => not.check(depth + 1, comparisons),
            Self::Compare(condition) => {
                *comparisons += 1;
                if *comparisons > FILTER_COMPARISONS_MAX {
                    return Err(PlanError::FilterSize);
                }
                check_path(&condition.field)?;
                if condition.op == Operator::In && !condition.value.is_array() {
                    return Err(PlanError::InTakesArray { field: condition.field.clone() });
                }
                if condition.field == CREATION_TIME && !condition.value.is_number() {
                    return Err(PlanError::CreationTime);
                }
                // A filter compares in Postgres, which has no such text; an index compares keys, which may have it.
                if has_nul(&condition.value) {
                    return Err(PlanError::Nul { field: condition.field.clone() });
                }
                Ok(())
            }
        }
    }
}

impl Aggregate {
    fn check(&self) -> Result<(), PlanError> {
        match (&self.field, self.op) {
            (None, AggregateOperator::Count) => Ok(()),
            (Some(field), _) => check_path(field),
            (None, AggregateOperator::Sum) => Err(PlanError::AggregateField("sum")),
            (None, AggregateOperator::Min) => Err(PlanError::AggregateField("min")),
            (None, AggregateOperator::Max) => Err(PlanError::AggregateField("max")),
            (None, AggregateOperator::Avg) => Err(PlanError::AggregateField("avg")),
        }
    }
}

/// Whether a condition's value means a missing field.
pub fn is_undefined(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.len() == 1 && fields.get("$undefined").is_some_and(Value::is_null))
}

/// Whether a text in it has the character that Postgres' texts cannot have.
pub fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn check_path(field: &str) -> Result<(), PlanError> {
    if field.split('.').any(str::is_empty) || field.contains('\0') {
        Err(PlanError::Field { field: field.to_owned() })
    } else {
        Ok(())
    }
}

fn known_indexes(table: &Table) -> String {
    let own = table.indexes.iter().map(|index| index.name.as_str());
    own.chain([BY_CREATION_TIME]).collect::<Vec<_>>().join(", ")
}

fn fields_of(index: &Index) -> String {
    let own = index.fields.iter().map(|field: &IndexField| field.name.as_str());
    own.chain([CREATION_TIME]).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, TableManifest};

    fn table() -> Table {
        let manifest = Manifest::parse(
            r#"{"version":1,"functions":[{"name":"a","kind":"query"}],"tables":[{"name":"messages","indexes":[
                {"name":"by_channel","fields":["channel",{"field":"author","order":"desc"}]}]}]}"#,
        );
        let tables: Vec<TableManifest> = manifest.expect("a manifest").tables;
        Table::declared(&tables[0], "messages")
    }

    fn check(json: &str) -> Result<(), String> {
        let plan = Plan::parse(json).map_err(|error| error.to_string())?;
        plan.check(&table()).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn takes_prefixes_and_one_range() {
        for json in [
            r#"{"table":"messages"}"#,
            r#"{"table":"messages","order":"desc","limit":0,"offset":3}"#,
            r#"{"table":"messages","where":[{"field":"_creationTime","op":"gt","value":5}]}"#,
            r#"{"table":"messages","index":"by_channel"}"#,
            r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"eq","value":"a"}]}"#,
            r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"in","value":["a"]}]}"#,
            r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"eq","value":"a"},{"field":"author","op":"gte","value":"b"},{"field":"author","op":"lt","value":"c"}]}"#,
            r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"eq","value":"a"},{"field":"author","op":"eq","value":"b"},{"field":"_creationTime","op":"lt","value":7.5}]}"#,
            r#"{"table":"messages","filter":{"or":[{"field":"author.name","op":"ne","value":1},{"not":{"and":[]}}]}}"#,
            r#"{"table":"messages","aggregate":[{"op":"count"},{"op":"sum","field":"n"}]}"#,
            r#"{"table":"messages","index":"by_channel","aggregate":[{"op":"count"}],"groupBy":["channel"]}"#,
            r#"{"table":"messages","page":{"cursor":null},"limit":5}"#,
            r#"{"table":"messages","fields":["author","nobody knows","_id","_creationTime"],"page":{"cursor":null}}"#,
        ] {
            assert_eq!(check(json), Ok(()), "{json}");
        }
    }

    #[test]
    fn says_why_a_plan_does_not_fit() {
        for (json, words) in [
            (r#"{"table":"messages","index":"by_chanel"}"#, "it has: by_channel, by_creation_time"),
            (
                r#"{"table":"messages","index":"by_channel","where":[{"field":"author","op":"eq","value":"a"}]}"#,
                "`author` does not fit",
            ),
            (
                r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"gt","value":"a"},{"field":"author","op":"eq","value":"a"}]}"#,
                "`author` does not fit",
            ),
            (
                r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"ne","value":"a"}]}"#,
                "`channel` does not fit",
            ),
            (r#"{"table":"messages","where":[{"field":"author","op":"eq","value":"a"}]}"#, "needs an index"),
            (
                r#"{"table":"messages","where":[{"field":"_creationTime","op":"eq","value":1},{"field":"_creationTime","op":"eq","value":1}]}"#,
                "does not fit",
            ),
            (r#"{"table":"messages","where":[{"field":"_creationTime","op":"lt","value":"a"}]}"#, "with a number"),
            (
                r#"{"table":"messages","index":"by_channel","where":[{"field":"channel","op":"in","value":"a"}]}"#,
                "takes an array",
            ),
            (r#"{"table":"messages","limit":-1}"#, "not valid"),
            (r#"{"table":"messages","limits":1}"#, "unknown field `limits`"),
            (r#"{"table":"messages","filter":{"field":"a..b","op":"eq","value":1}}"#, "`a..b` is not the path"),
            (r#"{"table":"messages","filter":{"xor":[]}}"#, "not valid"),
            (r#"{"table":"messages","aggregate":[{"op":"sum"}]}"#, "`sum` needs a field"),
            (r#"{"table":"messages","aggregate":[{"op":"count"}],"groupBy":["channel"]}"#, "`groupBy` takes"),
            (r#"{"table":"messages","page":{"cursor":null},"offset":5}"#, "do not go together"),
            (r#"{"table":"messages","fields":[]}"#, "leave it out"),
            (r#"{"table":"messages","fields":["a","b","a"]}"#, "`a` twice"),
            (r#"{"table":"messages","fields":["a.b"]}"#, "`a.b` is none"),
            (r#"{"table":"messages","fields":[""]}"#, "`` is none"),
            (r#"{"table":"messages","fields":["a"],"aggregate":[{"op":"count"}]}"#, "`fields` and `aggregate`"),
        ] {
            let error = check(json).expect_err(json);
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
