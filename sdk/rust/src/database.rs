//! The database as functions see it: typed by the tables, JSON underneath.

use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::convoke::runtime::{database_read, database_write};
use crate::change::Change;
use crate::document::Doc;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::query::Query;
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
            Some(text) => parse(T::NAME, &text).map(Some),
            None => Ok(None),
        }
    }

    /// The documents with these ids, in their order, with a `None` for each that isn't there.
    pub fn get_many<'a, T: Table>(&self, ids: impl IntoIterator<Item = &'a Id<T>>) -> Result<Vec<Option<Doc<T>>>> {
        let ids: Vec<String> = ids.into_iter().map(|id| id.as_str().to_owned()).collect();
        parse(T::NAME, &database_read::get_many(T::NAME, &ids)?)
    }

    /// The documents of a table; the methods of [`Query`] say which.
    pub fn query<T: Table>(&self) -> Query<T> {
        Query::new()
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

    /// Adds documents, all or none, and returns their ids in their order. One call for many is faster than many calls.
    pub fn insert_many<'a, T: Table>(&self, documents: impl IntoIterator<Item = &'a T>) -> Result<Vec<Id<T>>> {
        let documents: Vec<&T> = documents.into_iter().collect();
        let ids = database_write::insert_many(T::NAME, &serde_json::to_string(&documents)?)?;
        Ok(serde_json::from_str(&ids)?)
    }

    /// Sets the given fields of a document and leaves the others: `patch(&id, json!({ "body": body }))`.
    ///
    /// The top-level fields are merged, and nothing deeper: a nested object is replaced as a whole. A null is stored as
    /// a null; a field that is [`Unset`](crate::Unset) is removed.
    pub fn patch<T: Table>(&self, id: &Id<T>, fields: impl Serialize) -> Result<()> {
        Ok(database_write::patch(T::NAME, id.as_str(), &serde_json::to_string(&fields)?)?)
    }

    /// Changes fields of a document by what is there, without reading it. Mutations that do nothing else with a document
    /// do not conflict over it, so this is how to count.
    pub fn update<T: Table>(&self, id: &Id<T>, change: Change) -> Result<()> {
        Ok(database_write::update(T::NAME, id.as_str(), &change.into_json()?)?)
    }

    /// Puts a whole new document in the place of one, under the same id and creation time.
    pub fn replace<T: Table>(&self, id: &Id<T>, document: &T) -> Result<()> {
        Ok(database_write::replace(T::NAME, id.as_str(), &serde_json::to_string(document)?)?)
    }

    /// Removes a document.
    pub fn delete<T: Table>(&self, id: &Id<T>) -> Result<()> {
        Ok(database_write::delete(T::NAME, id.as_str())?)
    }

    /// [Patches](Self::patch) all documents of a query at once, and returns how many.
    pub fn patch_where<T: Table>(&self, query: Query<T>, fields: impl Serialize) -> Result<u64> {
        Ok(database_write::patch_where(&query.into_json()?, &serde_json::to_string(&fields)?)?)
    }

    /// Removes all documents of a query at once, and returns how many.
    pub fn delete_where<T: Table>(&self, query: Query<T>) -> Result<u64> {
        Ok(database_write::delete_where(&query.into_json()?)?)
    }
}

impl Deref for Writer {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.0
    }
}

/// Reads what the host returned: it fails where stored documents don't have the form that this component gives them.
pub(crate) fn parse<V: DeserializeOwned>(table: &str, text: &str) -> Result<V> {
    serde_json::from_str(text).map_err(|_| misread::<V>(&format!("a document of `{table}`"), text))
}

/// Reads the text once more to say where it doesn't fit: keeping track of the path slows every other reading.
#[cold]
pub(crate) fn misread<V: DeserializeOwned>(what: &str, text: &str) -> Error {
    let reason = match serde_path_to_error::deserialize::<_, V>(&mut serde_json::Deserializer::from_str(text)) {
        Ok(_) => "it ends too late".to_owned(),
        Err(error) => format!("{} at `{}`", error.inner(), error.path()),
    };
    Error::new("INVALID_DOCUMENT", format!("{what} doesn't have the form of this component: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::Note;

    #[test]
    fn a_document_of_another_form_is_told_with_its_place() {
        let text = r#"[{"_id":"a","_creationTime":1,"title":"x"},{"_id":"b","_creationTime":1,"title":7}]"#;
        let error = parse::<Vec<Doc<Note>>>("notes", text).unwrap_err();
        assert_eq!(error.code(), "INVALID_DOCUMENT");
        assert!(error.message().contains("a document of `notes`"), "{error}");
        assert!(error.message().contains("at `[1].title`"), "{error}");
    }

    #[test]
    fn integers_of_64_bits_are_exact() {
        for rank in [i64::MIN, i64::MAX, 9_007_199_254_740_993] {
            let text = format!(r#"{{"_id":"a","_creationTime":1,"title":"x","rank":{rank}}}"#);
            let read: Doc<Note> = parse("notes", &text).unwrap();
            assert_eq!(read.rank, Some(rank));
            let written = serde_json::to_string(&read.into_fields()).unwrap();
            assert_eq!(written, format!(r#"{{"title":"x","rank":{rank}}}"#));
            // By way of `Value` too, as an upcast gets it.
            let value: serde_json::Value = serde_json::from_str(&written).unwrap();
            assert_eq!(serde_json::from_value::<Note>(value).unwrap().rank, Some(rank));
        }
        assert_eq!(parse::<u64>("notes", "18446744073709551615").unwrap(), u64::MAX);
    }
}
