//! Conditions on any field: `field("age").gte(18).and(field("name").eq("Ada"))`.

use std::ops::Not;

use serde::Serialize;

use crate::plan::{self, Condition, FieldName, Operator};

/// Names a field in a [`Filter`]: a stored name, or the path to a field within, such as `author.name` or `tags.0`.
///
/// ```
/// use convoke::{Filter, field};
///
/// let adult: Filter = field("age").gte(18).and(field("tags.0").exists());
/// ```
pub fn field(path: impl Into<FieldName>) -> Field {
    Field(path.into())
}

/// A field, to be compared. [`field`] makes it.
#[derive(Clone, Debug)]
#[must_use = "a field alone is no condition; compare it"]
pub struct Field(FieldName);

/// A condition that a query looks at document by document. It saves the transport of documents, not their reading: what
/// an index can decide belongs into the conditions of the query.
#[derive(Clone, Debug)]
#[must_use = "a filter does nothing until it is given to a query"]
pub struct Filter(plan::Filter);

impl Field {
    /// The field equals the value; `None` means that it is missing.
    pub fn eq(self, value: impl Serialize) -> Filter {
        self.compare(Operator::Eq, &value)
    }

    /// The field is something else than the value, or missing; `None` means that it is there.
    pub fn ne(self, value: impl Serialize) -> Filter {
        self.compare(Operator::Ne, &value)
    }

    /// The field equals one of the values; a `None` among them means that it is missing.
    pub fn is_in<V: Serialize>(self, values: impl IntoIterator<Item = V>) -> Filter {
        Filter(plan::Filter::Compare(Condition::is_in(self.0, values)))
    }

    /// The field is below the value.
    pub fn lt(self, value: impl Serialize) -> Filter {
        self.compare(Operator::Lt, &value)
    }

    /// The field is the value or below.
    pub fn lte(self, value: impl Serialize) -> Filter {
        self.compare(Operator::Lte, &value)
    }

    /// The field is above the value.
    pub fn gt(self, value: impl Serialize) -> Filter {
        self.compare(Operator::Gt, &value)
    }

    /// The field is the value or above.
    pub fn gte(self, value: impl Serialize) -> Filter {
        self.compare(Operator::Gte, &value)
    }

    /// The field is there and null.
    pub fn eq_null(self) -> Filter {
        Filter(plan::Filter::Compare(Condition::null(self.0, Operator::Eq)))
    }

    /// The field is missing, or something else than null.
    pub fn ne_null(self) -> Filter {
        Filter(plan::Filter::Compare(Condition::null(self.0, Operator::Ne)))
    }

    /// The field is there, if only as a null.
    pub fn exists(self) -> Filter {
        Filter(plan::Filter::Compare(Condition::missing(self.0, Operator::Ne)))
    }

    /// The field is not there.
    pub fn is_missing(self) -> Filter {
        Filter(plan::Filter::Compare(Condition::missing(self.0, Operator::Eq)))
    }

    fn compare(self, operator: Operator, value: &impl Serialize) -> Filter {
        Filter(plan::Filter::Compare(Condition::compare(self.0, operator, value)))
    }
}

impl Filter {
    /// Both hold.
    pub fn and(self, other: Self) -> Self {
        Self::all([self, other])
    }

    /// One of the two holds, or both.
    pub fn or(self, other: Self) -> Self {
        Self::any([self, other])
    }

    /// It does not hold. `!filter` is the same.
    #[expect(clippy::should_implement_trait, reason = "it is implemented too; a method needs no import")]
    pub fn not(self) -> Self {
        match self.0 {
            plan::Filter::Not { not } => Self(*not),
            filter => Self(plan::Filter::Not { not: Box::new(filter) }),
        }
    }

    /// All of them hold; of none, always.
    pub fn all(filters: impl IntoIterator<Item = Self>) -> Self {
        let mut and = Vec::new();
        for filter in filters {
            // Flat, because the host bounds how deep a filter nests.
            match filter.0 {
                plan::Filter::And { and: parts } => and.extend(parts),
                other => and.push(other),
            }
        }
        Self(plan::Filter::And { and })
    }

    /// At least one of them holds; of none, never.
    pub fn any(filters: impl IntoIterator<Item = Self>) -> Self {
        let mut or = Vec::new();
        for filter in filters {
            match filter.0 {
                plan::Filter::Or { or: parts } => or.extend(parts),
                other => or.push(other),
            }
        }
        Self(plan::Filter::Or { or })
    }

    pub(crate) fn into_plan(self) -> plan::Filter {
        self.0
    }

    pub(crate) fn from_plan(filter: plan::Filter) -> Self {
        Self(filter)
    }
}

impl Not for Filter {
    type Output = Self;

    fn not(self) -> Self {
        Self::not(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(filter: Filter) -> String {
        serde_json::to_string(&filter.into_plan()).unwrap()
    }

    #[test]
    fn every_comparison_has_its_form() {
        let undefined = r#"{"$undefined":null}"#;
        for (filter, operator, value) in [
            (field("a").eq(1), "eq", "1"),
            (field("a").eq(None::<i64>), "eq", undefined),
            (field("a").ne("x"), "ne", r#""x""#),
            (field("a").ne(()), "ne", undefined),
            (field("a").is_in([Some(1), None]), "in", r#"[1,{"$undefined":null}]"#),
            (field("a").lt(1.5), "lt", "1.5"),
            (field("a").lte(i64::MAX), "lte", "9223372036854775807"),
            (field("a").gt(None::<i64>), "gt", "null"),
            (field("a").gte([1, 2]), "gte", "[1,2]"),
            (field("a").eq_null(), "eq", "null"),
            (field("a").ne_null(), "ne", "null"),
            (field("a").exists(), "ne", undefined),
            (field("a").is_missing(), "eq", undefined),
        ] {
            assert_eq!(json(filter), format!(r#"{{"field":"a","op":"{operator}","value":{value}}}"#));
        }
    }

    #[test]
    fn conditions_combine_without_nesting_more_than_they_must() {
        let of = |name: &'static str| field(name).eq(1);
        assert_eq!(
            json(of("a").and(of("b")).and(of("c")).or(!of("d"))),
            r#"{"or":[{"and":[{"field":"a","op":"eq","value":1},{"field":"b","op":"eq","value":1},{"field":"c","op":"eq","value":1}]},{"not":{"field":"d","op":"eq","value":1}}]}"#
        );
        assert_eq!(json(of("a").not().not()), r#"{"field":"a","op":"eq","value":1}"#);
        assert_eq!(json(Filter::all([])), r#"{"and":[]}"#);
        assert_eq!(json(Filter::any([])), r#"{"or":[]}"#);
    }
}
