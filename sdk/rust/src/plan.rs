//! The JSON of a query's plan; docs/reference/plan.md describes it.

use std::borrow::Cow;

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::error::{Error, Result};
use crate::table::Unset;

/// The name of a field as it is stored, or in a filter the path to one.
pub(crate) type FieldName = Cow<'static, str>;

/// Which documents of a table, in which order, and what of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plan {
    pub(crate) table: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<Cow<'static, str>>,
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) filter: Option<Filter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<Order>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) page: Option<Page>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fields: Option<&'static [&'static str]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) aggregate: Vec<Aggregate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) group_by: Vec<FieldName>,
}

/// One comparison of a field with a value.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Condition {
    pub(crate) field: FieldName,
    #[serde(rename = "op")]
    pub(crate) operator: Operator,
    pub(crate) value: Operand,
}

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operator {
    Eq,
    Ne,
    In,
    Lt,
    Lte,
    Gt,
    Gte,
}

/// A condition on any fields.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Filter {
    And { and: Vec<Filter> },
    Or { or: Vec<Filter> },
    Not { not: Box<Filter> },
    Compare(Condition),
}

/// Where a page begins, and where it ends if that is fixed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Page {
    pub(crate) cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<String>,
}

/// One value computed over the documents.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Aggregate {
    #[serde(rename = "op")]
    pub(crate) operator: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<FieldName>,
}

/// The direction along the index.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    Asc,
    Desc,
}

impl Plan {
    /// All documents of a table.
    pub(crate) fn of(table: &'static str) -> Self {
        Self {
            table,
            index: None,
            conditions: Vec::new(),
            filter: None,
            order: None,
            limit: None,
            offset: None,
            page: None,
            fields: None,
            aggregate: Vec::new(),
            group_by: Vec::new(),
        }
    }
}

impl Condition {
    /// A comparison in which no value (`None`, null) means a missing field, because `None` is stored as one. Only for
    /// ranges a null stays a null: they are about what is there.
    pub(crate) fn compare(field: FieldName, operator: Operator, value: &impl Serialize) -> Self {
        let value = match operator {
            Operator::Eq | Operator::Ne => Operand::of(value).or_missing(),
            Operator::In | Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => Operand::of(value),
        };
        Self { field, operator, value }
    }

    /// A comparison with several values; a null among them means a missing field.
    pub(crate) fn is_in<V: Serialize>(field: FieldName, values: impl IntoIterator<Item = V>) -> Self {
        let values: Vec<Operand> = values.into_iter().map(|value| Operand::of(&value).or_missing()).collect();
        Self { field, operator: Operator::In, value: Operand::of(&values) }
    }

    /// An equality with a stored null.
    pub(crate) fn null(field: FieldName, operator: Operator) -> Self {
        Self { field, operator, value: Operand::of(&()) }
    }

    /// An equality with a field that is not there.
    pub(crate) fn missing(field: FieldName, operator: Operator) -> Self {
        Self { field, operator, value: Operand::of(&Unset) }
    }
}

/// A value as JSON text. One that JSON can't hold is told when the whole is written, so that a builder needs no `?` in
/// between.
#[derive(Clone, Debug)]
pub(crate) struct Operand(Result<Box<RawValue>>);

impl Operand {
    pub(crate) fn of(value: &impl Serialize) -> Self {
        Self(to_raw_value(value).map_err(Error::from))
    }

    fn or_missing(self) -> Self {
        match &self.0 {
            Ok(value) if value.get() == "null" => Self::of(&Unset),
            _ => self,
        }
    }
}

impl Serialize for Operand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(value) => value.serialize(serializer),
            Err(error) => Err(S::Error::custom(error.message())),
        }
    }
}
