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

    /// The table's indexes, besides those that every table has.
    const INDEXES: &'static [Index] = &[];
}

/// An index of a table. The creation time and the id follow its fields by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Index {
    /// Unique within the table.
    pub name: &'static str,
    /// The stored names of the fields.
    pub fields: &'static [&'static str],
}

/// Removes a field in a patch: `ctx.db().patch(&id, json!({ "nickname": Unset }))`.
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
        const INDEXES: &'static [Index] = &[Index { name: "by_title", fields: &["title"] }];
    }

    #[test]
    fn unset_is_the_marker_of_the_wit() {
        assert_eq!(serde_json::json!({ "rank": Unset }).to_string(), r#"{"rank":{"$undefined":null}}"#);
    }
}
