//! The JSON of a query's plan; `database-read.query` in the WIT describes it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

/// Which documents of a table, and in which order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) table: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<Cow<'static, str>>,
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<Order>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u32>,
}

/// One condition on a field.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Condition {
    pub(crate) field: Cow<'static, str>,
    #[serde(rename = "op")]
    pub(crate) operator: &'static str,
    pub(crate) value: Box<RawValue>,
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
        Self { table, index: None, conditions: Vec::new(), order: None, limit: None }
    }
}
