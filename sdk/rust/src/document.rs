//! A stored document: what the author's struct says, with its id and its time.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use crate::id::Id;
use crate::table::Table;

/// A document of the table `T`, as a query returns it. Its fields are those of `T`: `message.author`.
///
/// Where a query [selected](crate::Query::select) some fields, it has those of the projection `F` alone, and is of the
/// table `T` all the same: its id is an `Id<T>`.
///
/// In JSON it is one object, with `_id` and `_creationTime` beside the fields.
#[derive(Clone, Debug)]
pub struct Doc<T, F = T> {
    id: Id<T>,
    creation_time: f64,
    fields: F,
}

impl<T> Doc<T> {
    /// A document of these parts, for tests: those of the database come from a query.
    pub fn new(id: Id<T>, creation_time: f64, fields: T) -> Self {
        Self { id, creation_time, fields }
    }
}

impl<T, F> Doc<T, F> {
    /// A document of which these fields were selected, for tests: those of the database come from a query.
    pub fn in_part(id: Id<T>, creation_time: f64, fields: F) -> Self {
        Self { id, creation_time, fields }
    }

    /// The document's id.
    pub fn id(&self) -> &Id<T> {
        &self.id
    }

    /// When the document was inserted, in milliseconds since 1970.
    pub fn creation_time(&self) -> f64 {
        self.creation_time
    }

    /// The fields alone: to change them and [`replace`](crate::Writer::replace) the document.
    pub fn into_fields(self) -> F {
        self.fields
    }
}

impl<T, F: PartialEq> PartialEq for Doc<T, F> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.creation_time == other.creation_time && self.fields == other.fields
    }
}

impl<T, F> Deref for Doc<T, F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.fields
    }
}

impl<T, F: Serialize> Serialize for Doc<T, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Whole<'a, F> {
            #[serde(rename = "_id")]
            id: &'a str,
            #[serde(rename = "_creationTime")]
            creation_time: f64,
            #[serde(flatten)]
            fields: &'a F,
        }
        Whole { id: self.id.as_str(), creation_time: self.creation_time, fields: &self.fields }.serialize(serializer)
    }
}

// Not by `#[serde(flatten)]`: that would build a tree of every document before it reads the fields out of it.
impl<'de, T, F: Deserialize<'de>> Deserialize<'de> for Doc<T, F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocVisitor(PhantomData))
    }
}

struct DocVisitor<T, F>(PhantomData<(T, F)>);

impl<'de, T, F: Deserialize<'de>> Visitor<'de> for DocVisitor<T, F> {
    type Value = Doc<T, F>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Doc<T, F>, A::Error> {
        let (mut id, mut creation_time) = (None, None);
        let fields = Fields { map, id: &mut id, creation_time: &mut creation_time };
        let fields = F::deserialize(MapAccessDeserializer::new(fields))?;
        let id = Id::from(id.ok_or_else(|| A::Error::missing_field("_id"))?);
        let creation_time = creation_time.ok_or_else(|| A::Error::missing_field("_creationTime"))?;
        Ok(Doc { id, creation_time, fields })
    }
}

/// The entries of a document's object as its fields see them: it keeps the system's fields for itself.
struct Fields<'a, A> {
    map: A,
    id: &'a mut Option<String>,
    creation_time: &'a mut Option<f64>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let mut seed = seed;
        loop {
            match self.map.next_key_seed(KeySeed(seed))? {
                None => return Ok(None),
                Some(Key::Field(field)) => return Ok(Some(field)),
                Some(Key::Id(unused)) => {
                    *self.id = Some(self.map.next_value()?);
                    seed = unused;
                }
                Some(Key::CreationTime(unused)) => {
                    *self.creation_time = Some(self.map.next_value()?);
                    seed = unused;
                }
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads a key for the fields, or gives the seed back at a key of the system's.
struct KeySeed<K>(K);

enum Key<K, V> {
    Field(V),
    Id(K),
    CreationTime(K),
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for KeySeed<K> {
    type Value = Key<K, K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for KeySeed<K> {
    type Value = Key<K, K::Value>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        match name {
            "_id" => Ok(Key::Id(self.0)),
            "_creationTime" => Ok(Key::CreationTime(self.0)),
            name => self.0.deserialize(StrDeserializer::new(name)).map(Key::Field),
        }
    }
}

impl<T: Table, F: JsonSchema> JsonSchema for Doc<T, F> {
    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("{}Doc", F::schema_name()))
    }

    fn schema_id() -> Cow<'static, str> {
        Cow::Owned(format!("convoke::Doc<{}, {}>", T::schema_id(), F::schema_id()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = F::json_schema(generator);
        let id = Id::<T>::json_schema(generator);
        if let Some(properties) = schema.ensure_object().entry("properties").or_insert(json!({})).as_object_mut() {
            properties.insert("_id".to_owned(), id.into());
            properties.insert("_creationTime".to_owned(), json!({ "type": "number" }));
        }
        if let Some(required) = schema.ensure_object().entry("required").or_insert(json!([])).as_array_mut() {
            required.extend([json!("_id"), json!("_creationTime")]);
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{Heading, Note};

    fn note() -> Doc<Note> {
        Doc::new(Id::from("n1"), 1_700_000_000_000.5, Note { title: "a".to_owned(), rank: None })
    }

    #[test]
    fn a_document_is_one_object() {
        let text = serde_json::to_string(&note()).unwrap();
        assert_eq!(text, r#"{"_id":"n1","_creationTime":1700000000000.5,"title":"a"}"#);
        assert_eq!(serde_json::from_str::<Doc<Note>>(&text).unwrap(), note());
    }

    #[test]
    fn the_order_of_the_fields_and_escapes_in_names_do_not_matter() {
        let text = r#"{"rank":null,"\u0074itle":"a","_creationTime":1700000000000.5,"other":[{"_id":1}],"_id":"n1"}"#;
        let read: Doc<Note> = serde_json::from_str(text).unwrap();
        assert_eq!(read, note());
        assert_eq!((read.title.as_str(), read.id().as_str()), ("a", "n1"));
        assert_eq!(read.into_fields().rank, None);
    }

    #[test]
    fn a_missing_field_is_named() {
        let missing = |text: &str| serde_json::from_str::<Doc<Note>>(text).unwrap_err().to_string();
        assert!(missing(r#"{"_id":"n1","title":"a"}"#).starts_with("missing field `_creationTime`"));
        assert!(missing(r#"{"_creationTime":1,"title":"a"}"#).starts_with("missing field `_id`"));
        assert!(missing(r#"{"_creationTime":1,"_id":"n1"}"#).starts_with("missing field `title`"));
    }

    #[test]
    fn the_schema_has_the_fields_of_both() {
        let schema = schemars::schema_for!(Doc<Note>).to_value();
        assert_eq!(schema["properties"]["_id"], json!({ "type": "string", "x-convoke-id": "notes" }));
        assert_eq!(schema["properties"]["title"]["type"], "string");
        assert_eq!(schema["required"], json!(["title", "_id", "_creationTime"]));
        let part = schemars::schema_for!(Doc<Note, Heading>).to_value();
        assert_eq!(part["title"], "HeadingDoc");
        assert_eq!((&part["properties"]["_id"], part["properties"].get("rank")), (&schema["properties"]["_id"], None));
    }
}
