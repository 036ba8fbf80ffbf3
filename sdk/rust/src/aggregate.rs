//! Values computed over documents in the database.

use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bindings::convoke::runtime::database_read;
use crate::database::parse;
use crate::error::{Error, Result};
use crate::float::Float;
use crate::plan::{self, FieldName, Plan};
use crate::table::Table;

/// One value over all documents of a query, or over each of its groups.
///
/// ```no_run
/// # use convoke::{prelude::*, Aggregate};
/// # #[table("books", index(by_genre = [genre]))]
/// # struct Book { genre: String, price: f64 }
/// # fn example(ctx: &QueryCtx) -> Result<()> {
/// let (books, value): (u64, f64) =
///     ctx.db().query::<Book>().aggregate([Aggregate::count(), Aggregate::sum("price")])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Aggregate(plan::Aggregate);

impl Aggregate {
    /// How many documents there are.
    pub fn count() -> Self {
        Self(plan::Aggregate { operator: "count", field: None })
    }

    /// The sum of a field, 0 over nothing. A document where it is no number is left out.
    pub fn sum(field: impl Into<FieldName>) -> Self {
        Self::over("sum", field.into())
    }

    /// The mean of a field, null over nothing. A document where it is no number is left out.
    pub fn avg(field: impl Into<FieldName>) -> Self {
        Self::over("avg", field.into())
    }

    /// The lowest value of a field, null over nothing. A document without the field is left out.
    pub fn min(field: impl Into<FieldName>) -> Self {
        Self::over("min", field.into())
    }

    /// The highest value of a field, null over nothing. A document without the field is left out.
    pub fn max(field: impl Into<FieldName>) -> Self {
        Self::over("max", field.into())
    }

    fn over(operator: &'static str, field: FieldName) -> Self {
        Self(plan::Aggregate { operator, field: Some(field) })
    }
}

/// Runs the plan for the values of these aggregates.
pub(crate) fn values<T: Table, V: DeserializeOwned>(
    plan: Plan,
    aggregates: impl IntoIterator<Item = Aggregate>,
) -> Result<V> {
    parse::<V>(T::NAME, &database_read::query(&text(plan, aggregates)?)?)
}

/// The plan with its aggregates, as it crosses to the host.
fn text(mut plan: Plan, aggregates: impl IntoIterator<Item = Aggregate>) -> Result<String> {
    plan.aggregate = aggregates.into_iter().map(|aggregate| aggregate.0).collect();
    if plan.aggregate.is_empty() {
        // The host would take it for a query of documents.
        return Err(Error::new("INVALID_ARGS", "an aggregation needs at least one aggregate"));
    }
    Ok(serde_json::to_string(&plan)?)
}

/// A query whose documents are put together where fields are equal. [`Query::group_by`](crate::Query::group_by) makes it.
///
/// Each method gives a row a group, in the order of the index: its key and its value. The key of one field is that
/// field's value, the key of several is a tuple. A field that is missing or null reads as `None`.
#[derive(Clone, Debug)]
#[must_use = "a grouped query runs at `count`, `sum` and so on, or at `aggregate`"]
pub struct Grouped<T> {
    plan: Plan,
    table: PhantomData<fn() -> T>,
}

impl<T: Table> Grouped<T> {
    pub(crate) fn of(plan: Plan) -> Self {
        Self { plan, table: PhantomData }
    }

    /// How many documents each group has.
    pub fn count<K: DeserializeOwned>(self) -> Result<Vec<(K, u64)>> {
        self.single(Aggregate::count())
    }

    /// The sum of a field in each group.
    pub fn sum<K: DeserializeOwned>(self, field: impl Into<FieldName>) -> Result<Vec<(K, f64)>> {
        let rows = self.single::<K, Float>(Aggregate::sum(field))?;
        Ok(rows.into_iter().map(|(key, sum)| (key, sum.0)).collect())
    }

    /// The mean of a field in each group.
    pub fn avg<K: DeserializeOwned>(self, field: impl Into<FieldName>) -> Result<Vec<(K, Option<f64>)>> {
        let rows = self.single::<K, Option<Float>>(Aggregate::avg(field))?;
        Ok(rows.into_iter().map(|(key, mean)| (key, mean.map(f64::from))).collect())
    }

    /// The lowest value of a field in each group.
    pub fn min<K: DeserializeOwned, V: DeserializeOwned>(
        self,
        field: impl Into<FieldName>,
    ) -> Result<Vec<(K, Option<V>)>> {
        self.single(Aggregate::min(field))
    }

    /// The highest value of a field in each group.
    pub fn max<K: DeserializeOwned, V: DeserializeOwned>(
        self,
        field: impl Into<FieldName>,
    ) -> Result<Vec<(K, Option<V>)>> {
        self.single(Aggregate::max(field))
    }

    /// Several values of each group at once: `Vec<(String, (u64, f64))>` for a count and a sum by a text.
    pub fn aggregate<K: DeserializeOwned, V: DeserializeOwned>(
        self,
        aggregates: impl IntoIterator<Item = Aggregate>,
    ) -> Result<Vec<(K, V)>> {
        if self.plan.group_by.is_empty() {
            return Err(Error::new("INVALID_ARGS", "`group_by` needs at least one field"));
        }
        rows(T::NAME, &database_read::query(&text(self.plan, aggregates)?)?)
    }

    fn single<K: DeserializeOwned, V: DeserializeOwned>(self, aggregate: Aggregate) -> Result<Vec<(K, V)>> {
        let rows = self.aggregate::<K, (V,)>([aggregate])?;
        Ok(rows.into_iter().map(|(key, (value,))| (key, value)).collect())
    }
}

#[derive(Deserialize)]
struct Row<V> {
    key: Vec<Value>,
    values: V,
}

fn rows<K: DeserializeOwned, V: DeserializeOwned>(table: &'static str, text: &str) -> Result<Vec<(K, V)>> {
    let rows: Vec<Row<V>> = parse(table, text)?;
    rows.into_iter().map(|row| Ok((key(table, row.key)?, row.values))).collect()
}

fn key<K: DeserializeOwned>(table: &str, mut fields: Vec<Value>) -> Result<K> {
    let key = match fields.pop() {
        Some(only) if fields.is_empty() => only,
        Some(last) => {
            fields.push(last);
            Value::Array(fields)
        }
        None => Value::Null,
    };
    serde_json::from_value(key)
        .map_err(|error| Error::new("INVALID_DOCUMENT", format!("a group of `{table}` has another key: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::of("notes")
    }

    #[test]
    fn every_aggregate_has_its_form() {
        let all = [
            Aggregate::count(),
            Aggregate::sum("n"),
            Aggregate::avg("n"),
            Aggregate::min("a.b"),
            Aggregate::max(String::from("n")),
        ];
        assert_eq!(
            text(plan(), all).unwrap(),
            r#"{"table":"notes","aggregate":[{"op":"count"},{"op":"sum","field":"n"},{"op":"avg","field":"n"},{"op":"min","field":"a.b"},{"op":"max","field":"n"}]}"#
        );
        assert_eq!(text(plan(), []).unwrap_err().code(), "INVALID_ARGS");
    }

    #[test]
    fn groups_say_their_fields() {
        let mut plan = plan();
        plan.group_by = vec!["genre".into(), "year".into()];
        assert_eq!(
            text(plan, [Aggregate::count()]).unwrap(),
            r#"{"table":"notes","aggregate":[{"op":"count"}],"groupBy":["genre","year"]}"#
        );
    }

    #[test]
    fn a_key_of_one_field_is_its_value_and_of_several_a_tuple() {
        let text = r#"[{"key":["a"],"values":[2,1.5]},{"key":[null],"values":[1,null]}]"#;
        let read = rows::<Option<String>, (u64, Option<f64>)>("notes", text).unwrap();
        assert_eq!(read, [(Some("a".to_owned()), (2, Some(1.5))), (None, (1, None))]);

        let read: Vec<((String, i64), (u64,))> =
            rows("notes", r#"[{"key":["a",9007199254740993],"values":[2]}]"#).unwrap();
        assert_eq!(read, [(("a".to_owned(), 9_007_199_254_740_993), (2,))]);
    }

    #[test]
    fn a_key_of_another_type_is_told() {
        let error = rows::<i64, (u64,)>("notes", r#"[{"key":["a"],"values":[2]}]"#).unwrap_err();
        assert_eq!(error.code(), "INVALID_DOCUMENT");
        assert!(error.message().contains("a group of `notes`"), "{error}");
    }
}
