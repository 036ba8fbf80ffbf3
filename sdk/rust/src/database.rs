//! The database as functions see it: typed by the tables, JSON underneath.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::to_raw_value;

use crate::bindings::convoke::runtime::{database_read, database_write};
use crate::document::Doc;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::plan::{Condition, Order, Plan};
use crate::table::Table;

/// Reads from the tables, in the snapshot of the call.
#[derive(Debug)]
pub struct Reader(());

/// Reads and writes, in the transaction of the call. It is a [`Reader`] too.
#[derive(Debug)]
pub struct Writer(Reader);

impl Reader {
    pub(crate) const fn new() -> Self {
        Self(())
    }

    /// The document with this id, if there is one.
    pub fn get<T: Table>(&self, id: &Id<T>) -> Result<Option<Doc<T>>> {
        match database_read::get(T::NAME, id.as_str())? {
            Some(text) => parse::<T, _>(&text).map(Some),
            None => Ok(None),
        }
    }

    /// The documents with these ids, in their order, with a `None` for each that isn't there.
    pub fn get_many<'a, T: Table>(&self, ids: impl IntoIterator<Item = &'a Id<T>>) -> Result<Vec<Option<Doc<T>>>> {
        let ids: Vec<String> = ids.into_iter().map(|id| id.as_str().to_owned()).collect();
        parse::<T, _>(&database_read::get_many(T::NAME, &ids)?)
    }

    /// The documents of a table; the methods of [`Query`] say which.
    pub fn query<T: Table>(&self) -> Query<T> {
        Query { plan: Plan::of(T::NAME), failure: None, table: PhantomData }
    }
}

impl Writer {
    pub(crate) const fn new() -> Self {
        Self(Reader::new())
    }

    /// Adds a document and returns its id.
    pub fn insert<T: Table>(&self, document: &T) -> Result<Id<T>> {
        let id = database_write::insert(T::NAME, &serde_json::to_string(document)?)?;
        Ok(Id::from(id))
    }

    /// Sets the given fields of a document and leaves the others: `patch(&id, json!({ "body": body }))`.
    ///
    /// A field that is [`Unset`](crate::Unset) is removed.
    pub fn patch<T: Table>(&self, id: &Id<T>, fields: impl Serialize) -> Result<()> {
        Ok(database_write::patch(T::NAME, id.as_str(), &serde_json::to_string(&fields)?)?)
    }

    /// Puts a whole new document in the place of one, under the same id and creation time.
    pub fn replace<T: Table>(&self, id: &Id<T>, document: &T) -> Result<()> {
        Ok(database_write::replace(T::NAME, id.as_str(), &serde_json::to_string(document)?)?)
    }

    /// Removes a document.
    pub fn delete<T: Table>(&self, id: &Id<T>) -> Result<()> {
        Ok(database_write::delete(T::NAME, id.as_str())?)
    }
}

impl Deref for Writer {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.0
    }
}

/// A query under construction; `collect`, `take`, `first` and `unique` run it.
///
/// Fields are named as they are stored. With an index, conditions are equalities on its first fields, and then a range
/// on the next one.
#[derive(Clone, Debug)]
#[must_use = "a query runs at `collect`, `take`, `first` or `unique`"]
pub struct Query<T> {
    plan: Plan,
    /// A value that JSON can't hold; told when the query runs, so that the builder needs no `?` in between.
    failure: Option<Error>,
    table: PhantomData<fn() -> T>,
}

impl<T: Table> Query<T> {
    /// Goes along this index: it decides the order, and the conditions are on its fields.
    pub fn index(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.plan.index = Some(name.into());
        self
    }

    /// Only documents whose field equals the value.
    pub fn eq(self, field: impl Into<Cow<'static, str>>, value: impl Serialize) -> Self {
        self.condition(field.into(), "eq", &value)
    }

    /// Only documents whose field equals one of the values.
    pub fn is_in<V: Serialize>(self, field: impl Into<Cow<'static, str>>, values: impl IntoIterator<Item = V>) -> Self {
        self.condition(field.into(), "in", &values.into_iter().collect::<Vec<_>>())
    }

    /// Only documents whose field is below the value.
    pub fn lt(self, field: impl Into<Cow<'static, str>>, value: impl Serialize) -> Self {
        self.condition(field.into(), "lt", &value)
    }

    /// Only documents whose field is the value or below.
    pub fn lte(self, field: impl Into<Cow<'static, str>>, value: impl Serialize) -> Self {
        self.condition(field.into(), "lte", &value)
    }

    /// Only documents whose field is above the value.
    pub fn gt(self, field: impl Into<Cow<'static, str>>, value: impl Serialize) -> Self {
        self.condition(field.into(), "gt", &value)
    }

    /// Only documents whose field is the value or above.
    pub fn gte(self, field: impl Into<Cow<'static, str>>, value: impl Serialize) -> Self {
        self.condition(field.into(), "gte", &value)
    }

    /// In the order of the index, or of creation without one. This is the default.
    pub fn asc(mut self) -> Self {
        self.plan.order = Some(Order::Asc);
        self
    }

    /// Against the order of the index, or of creation without one.
    pub fn desc(mut self) -> Self {
        self.plan.order = Some(Order::Desc);
        self
    }

    /// All the documents.
    pub fn collect(self) -> Result<Vec<Doc<T>>> {
        parse::<T, _>(&database_read::query(&self.into_json()?)?)
    }

    /// At most this many documents, the first ones.
    pub fn take(mut self, count: u32) -> Result<Vec<Doc<T>>> {
        self.plan.limit = Some(count);
        self.collect()
    }

    /// The first document, if there is any.
    pub fn first(self) -> Result<Option<Doc<T>>> {
        Ok(self.take(1)?.pop())
    }

    /// The only document, if there is any. Two are an error with the code `NOT_UNIQUE`.
    pub fn unique(self) -> Result<Option<Doc<T>>> {
        only(self.take(2)?)
    }

    fn condition(mut self, field: Cow<'static, str>, operator: &'static str, value: &impl Serialize) -> Self {
        match to_raw_value(value) {
            Ok(value) => self.plan.conditions.push(Condition { field, operator, value }),
            Err(error) => self.failure = self.failure.or(Some(error.into())),
        }
        self
    }

    /// The plan as it crosses to the host.
    fn into_json(self) -> Result<String> {
        match self.failure {
            Some(error) => Err(error),
            None => Ok(serde_json::to_string(&self.plan)?),
        }
    }
}

fn only<T: Table>(mut documents: Vec<Doc<T>>) -> Result<Option<Doc<T>>> {
    if documents.len() > 1 {
        let message = format!("more than one document of `{}` fits the query", T::NAME);
        return Err(Error::new("NOT_UNIQUE", message));
    }
    Ok(documents.pop())
}

/// Reads what the host returned: it fails where stored documents don't have the form that this component gives them.
fn parse<T: Table, V: DeserializeOwned>(text: &str) -> Result<V> {
    serde_json::from_str(text).map_err(|_| invalid_document::<V>(T::NAME, text))
}

/// Reads the text once more to say where it doesn't fit: keeping track of the path slows every other reading.
#[cold]
fn invalid_document<V: DeserializeOwned>(table: &str, text: &str) -> Error {
    let reason = match serde_path_to_error::deserialize::<_, V>(&mut serde_json::Deserializer::from_str(text)) {
        Ok(_) => "it ends too late".to_owned(),
        Err(error) => format!("{} at `{}`", error.inner(), error.path()),
    };
    Error::new("INVALID_DOCUMENT", format!("a document of `{table}` doesn't have the form of this component: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::Note;

    fn query() -> Query<Note> {
        Reader::new().query()
    }

    #[test]
    fn a_plan_says_only_what_was_asked() {
        assert_eq!(query().into_json().unwrap(), r#"{"table":"notes"}"#);
    }

    #[test]
    fn a_plan_keeps_the_order_of_its_conditions() {
        let title = String::from("a\"b");
        let plan = query().index("by_title").eq("title", &title).gte("rank", 1).lt("rank", 2.5).desc();
        assert_eq!(
            plan.into_json().unwrap(),
            r#"{"table":"notes","index":"by_title","where":[{"field":"title","op":"eq","value":"a\"b"},{"field":"rank","op":"gte","value":1},{"field":"rank","op":"lt","value":2.5}],"order":"desc"}"#
        );
    }

    #[test]
    fn every_operator_has_its_name() {
        let plan = query().is_in("rank", [1, 2]).lte("rank", 3).gt("rank", None::<i64>).asc();
        assert_eq!(
            plan.into_json().unwrap(),
            r#"{"table":"notes","where":[{"field":"rank","op":"in","value":[1,2]},{"field":"rank","op":"lte","value":3},{"field":"rank","op":"gt","value":null}],"order":"asc"}"#
        );
    }

    #[test]
    fn a_value_that_json_cannot_hold_fails_when_the_query_runs() {
        let unfit = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert_eq!(query().eq("title", unfit).into_json().unwrap_err().code(), "INVALID_JSON");
    }

    #[test]
    fn two_documents_are_not_unique() {
        let note = |id: &str| Doc::new(Id::from(id), 0.0, Note { title: String::new(), rank: None });
        assert_eq!(only::<Note>(vec![]).unwrap(), None);
        assert_eq!(only(vec![note("a")]).unwrap(), Some(note("a")));
        assert_eq!(only(vec![note("a"), note("b")]).unwrap_err().code(), "NOT_UNIQUE");
    }

    #[test]
    fn a_document_of_another_form_is_told_with_its_place() {
        let text = r#"[{"_id":"a","_creationTime":1,"title":"x"},{"_id":"b","_creationTime":1,"title":7}]"#;
        let error = parse::<Note, Vec<Doc<Note>>>(text).unwrap_err();
        assert_eq!(error.code(), "INVALID_DOCUMENT");
        assert!(error.message().contains("at `[1].title`"), "{error}");
    }
}
