//! What the SDK knows about a table.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// The documents of one table. [`macro@crate::table`] implements it.
///
/// An implementation by hand reads and writes a table without declaring it, such as one that another component declares.
pub trait Table: Serialize + DeserializeOwned + JsonSchema + 'static {
    /// The table's name.
    const NAME: &'static str;

    /// The fields, each with the name under which it is stored; what a [`Projection`] is held to. It may be left empty.
    const FIELDS: &'static [(&'static str, &'static str)] = &[];

    /// The table's indexes, besides those that every table has.
    const INDEXES: &'static [Index] = &[];

    /// The version of the documents' form, from 1.
    const VERSION: u32 = 1;

    /// The rule of the same component that turns a document of an older version into one of this.
    const UPCAST: Option<&'static str> = None;

    /// What happens to a field that the struct does not have, when a document is written.
    const UNKNOWN: UnknownFields = UnknownFields::Refuse;

    /// Whether Postgres checks the types of top-level fields too, so that hand-written SQL is held to them.
    const CHECK: bool = false;

    /// For a table that is somebody else's: the column that identifies a row. Such a table is never altered.
    const UNMANAGED_KEY: Option<&'static str> = None;
}

/// Some fields of the documents of a table, for [`Query::select`](crate::Query::select).
/// [`macro@crate::projection`] implements it, and checks that the table has the fields.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no projection",
    label = "not some fields of a table",
    note = "put `#[projection(of = …)]` on the struct, with the type of the table's documents"
)]
pub trait Projection: DeserializeOwned + 'static {
    /// The table.
    type Of: Table;

    /// The stored names of the fields.
    const FIELDS: &'static [&'static str];
}

/// An index of a table. The creation time and the id follow its fields by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Index {
    /// Unique within the table.
    pub name: &'static str,
    /// The fields, the most significant first.
    pub fields: &'static [IndexField],
    /// Whether two documents that have all the fields may not have the same values.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
}

impl Index {
    /// An index over these fields.
    pub const fn new(name: &'static str, fields: &'static [IndexField]) -> Self {
        Self { name, fields, unique: false }
    }

    /// An index over these fields that keeps their values unique.
    pub const fn unique(name: &'static str, fields: &'static [IndexField]) -> Self {
        Self { name, fields, unique: true }
    }
}

/// A field of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexField {
    /// The stored name of the field.
    pub name: &'static str,
    /// Whether its values run against the index's direction.
    pub descending: bool,
}

impl IndexField {
    /// A field whose values run along the index.
    pub const fn asc(name: &'static str) -> Self {
        Self { name, descending: false }
    }

    /// A field whose values run against the index.
    pub const fn desc(name: &'static str) -> Self {
        Self { name, descending: true }
    }
}

/// The manifest's form: the name alone, or `{"field", "order"}`.
impl Serialize for IndexField {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.descending {
            return serializer.serialize_str(self.name);
        }
        let mut field = serializer.serialize_map(Some(2))?;
        field.serialize_entry("field", self.name)?;
        field.serialize_entry("order", "desc")?;
        field.end()
    }
}

/// What happens to a field that a table's struct does not have, when a document is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFields {
    /// The write is refused.
    #[default]
    Refuse,
    /// The field is stored as it is.
    Keep,
    /// The field is left out.
    Strip,
}

/// A missing field: it removes the field in a patch, `ctx.db().patch(&id, json!({ "nickname": Unset }))`, and stands
/// for one that is not there in a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unset;

impl Serialize for Unset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut marker = serializer.serialize_map(Some(1))?;
        marker.serialize_entry("$undefined", &())?;
        marker.end()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    /// A table for the tests of this crate, by hand: its macros name the crate from outside.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    pub(crate) struct Note {
        pub(crate) title: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub(crate) rank: Option<i64>,
    }

    impl Table for Note {
        const NAME: &'static str = "notes";
        const INDEXES: &'static [Index] = &[Index::new("by_title", &[IndexField::asc("title")])];
    }

    /// A part of it.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    pub(crate) struct Heading {
        pub(crate) title: String,
    }

    impl Projection for Heading {
        type Of = Note;
        const FIELDS: &'static [&'static str] = &["title"];
    }

    #[test]
    fn unset_is_the_marker_of_the_wit() {
        assert_eq!(serde_json::json!({ "rank": Unset }).to_string(), r#"{"rank":{"$undefined":null}}"#);
    }

    #[test]
    fn an_index_says_only_what_is_not_usual() {
        const BY_RANK: Index = Index::new("by_rank", &[IndexField::asc("group"), IndexField::desc("rank")]);
        const UNIQUE: Index = Index::unique("by_rank", &[IndexField::asc("rank")]);
        assert_eq!(
            serde_json::to_string(&BY_RANK).unwrap(),
            r#"{"name":"by_rank","fields":["group",{"field":"rank","order":"desc"}]}"#
        );
        assert_eq!(serde_json::to_string(&UNIQUE).unwrap(), r#"{"name":"by_rank","fields":["rank"],"unique":true}"#);
    }
}
