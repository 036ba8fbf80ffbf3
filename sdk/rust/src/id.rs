//! Ids of documents, typed by their table.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::table::Table;

/// The id of a document of the table `T`. To clients it is a string.
///
/// The type is a promise of the code, not a check: whether a string names a document of this table is found out when
/// the host looks it up.
pub struct Id<T> {
    text: String,
    // Not `T` itself: an id is `Send` and `Sync` whatever the document is.
    table: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// The id as clients see it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<T> From<String> for Id<T> {
    fn from(text: String) -> Self {
        Self { text, table: PhantomData }
    }
}

impl<T> From<&str> for Id<T> {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl<T> From<Id<T>> for String {
    fn from(id: Id<T>) -> Self {
        id.text
    }
}

impl<T> AsRef<str> for Id<T> {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

// By hand, because derives would ask the same of `T`.

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        Self::from(self.text.clone())
    }
}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Id({:?})", self.text)
    }
}

impl<T> fmt::Display for Id<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<T> Eq for Id<T> {}

impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl<T> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, T> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl<T: Table> JsonSchema for Id<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Id_of_{}", T::NAME))
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-convoke-id": T::NAME })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::table::tests::Note;

    #[test]
    fn an_id_is_its_string_in_json_and_in_text() {
        let id: Id<Note> = serde_json::from_str("\"j57x\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"j57x\"");
        assert_eq!(id.to_string(), "j57x");
        assert_eq!(id, Id::from("j57x"));
        assert!(serde_json::from_str::<Id<Note>>("5").is_err());
    }

    #[test]
    fn ids_sort_as_their_strings() {
        let ids: BTreeSet<Id<Note>> = ["b", "a"].map(Id::from).into();
        assert_eq!(ids.iter().map(Id::as_str).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn the_schema_names_the_table() {
        let schema = schemars::schema_for!(Id<Note>);
        assert_eq!(schema.get("type").unwrap(), "string");
        assert_eq!(schema.get("x-convoke-id").unwrap(), "notes");
    }
}
