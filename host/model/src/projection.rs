//! Documents in part: what a read looks at where its plan names `fields`, and whether a row is still as it was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::plan::{CREATION_TIME, Filter, Plan};
use crate::schema::Index;

/// The field of every document that no field of its own may be called.
const ID: &str = "_id";

/// One for the process, in which digests are made and compared; it never leaves it.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A document's own fields, each as the JSON text that Postgres makes of it.
///
/// Texts and not values: a number of Postgres has more digits than a float, and a function is given them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields(BTreeMap<String, Box<str>>);

impl Fields {
    /// Takes a JSON object apart at its top level.
    ///
    /// # Errors
    /// For a text that is no JSON object.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json)?;
        Ok(Self(fields.into_iter().map(|(name, value)| (name, value.into())).collect()))
    }

    /// The text of a field, or none where it is missing.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|text| &**text)
    }

    /// Memory that they take, roughly.
    pub fn bytes(&self) -> usize {
        // A map's node is half empty at the worst.
        let entry = 2 * (size_of::<String>() + size_of::<Box<str>>());
        self.0.iter().map(|(name, text)| name.len() + text.len() + entry).sum()
    }
}

/// What a read with `fields` looks at: these, those of its index and those of its filter; in the order of their names,
/// each once. Besides, it looks at the id and the creation time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    fields: Vec<String>,
}

/// What a read saw of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Apart from the digest: where the log does not repeat the fields, the time may be another one all the same.
    creation_time: f64,
    /// Of the fields. 64 bits are enough, as their key is random and secret: nobody can look for two texts with the same
    /// digest, and by chance one comparison in 2^64 finds two.
    digest: u64,
}

/// The rows that a read with `fields` was given.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenRows {
    pub projection: Projection,
    pub rows: Vec<(Uuid, Seen)>,
    /// Rows of an older form of their table, of which everything counts: what was given is what an upcast made of all.
    pub whole: Vec<Uuid>,
}

impl Plan {
    /// What the plan looks at of each row along its index; none where that is the whole document.
    pub fn projection(&self, index: &Index) -> Option<Projection> {
        let mut fields: BTreeSet<&str> = self.own_fields()?.collect();
        fields.extend(index.fields.iter().map(|field| field.name.as_str()));
        if let Some(filter) = &self.filter {
            filter.collect_fields(&mut fields);
        }
        Some(Projection { fields: fields.into_iter().map(str::to_owned).collect() })
    }

    /// The fields that the plan names, without those that every document has.
    pub fn own_fields(&self) -> Option<impl Iterator<Item = &str>> {
        let fields = self.fields.as_ref()?;
        Some(fields.iter().map(String::as_str).filter(|name| ![ID, CREATION_TIME].contains(name)))
    }
}

impl Filter {
    /// The top-level fields that it is on.
    fn collect_fields<'a>(&'a self, fields: &mut BTreeSet<&'a str>) {
        match self {
            Self::And { and: parts } | Self::Or { or: parts } => {
                for part in parts {
                    part.collect_fields(fields);
                }
            }
            Self::Not { not } => not.collect_fields(fields),
            Self::Compare(condition) => match condition.field.as_str() {
                ID | CREATION_TIME => {}
                path => fields.extend(path.split('.').next()),
            },
        }
    }
}

impl Projection {
    /// The names, sorted.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// What there is to see of a row, of which `text` gives a field's JSON text, or none where it is missing.
    pub fn seen<'a>(&self, creation_time: f64, text: impl FnMut(&str) -> Option<&'a str>) -> Seen {
        Seen { creation_time, digest: self.digest(text) }
    }

    /// The digest of a row's fields, to be compared with [`Seen::is_as`].
    pub fn digest<'a>(&self, mut text: impl FnMut(&str) -> Option<&'a str>) -> u64 {
        let mut hasher = KEY.build_hasher();
        // The names are the same for all that is compared, and a text says where it ends.
        for name in &self.fields {
            text(name).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Seen {
    /// Whether a row of this creation time and with this digest looks the same; without a digest its fields are those
    /// that it had before.
    pub fn is_as(&self, creation_time: f64, digest: Option<u64>) -> bool {
        let both_nan = self.creation_time.is_nan() && creation_time.is_nan();
        (both_nan || self.creation_time.to_bits() == creation_time.to_bits())
            && digest.is_none_or(|digest| digest == self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::IndexField;

    fn projection(json: &str) -> Option<Projection> {
        let fields = vec![IndexField::ascending("channel")];
        let index = Index { name: "by_channel".to_owned(), fields, unique: false };
        Plan::parse(json).expect("a plan").projection(&index)
    }

    #[test]
    fn a_projection_is_all_that_is_looked_at() {
        assert_eq!(projection(r#"{"table":"t"}"#), None);
        let plan = r#"{"table":"t","fields":["title","_id"],"filter":{"and":[{"field":"author.name","op":"eq","value":1},
            {"not":{"or":[{"field":"_creationTime","op":"lt","value":1},{"field":"tags.0","op":"eq","value":1}]}}]}}"#;
        let projection = projection(plan).expect("a projection");
        assert_eq!(projection.fields(), ["author", "channel", "tags", "title"]);
    }

    #[test]
    fn a_row_is_as_it_was_where_what_was_looked_at_is() {
        let projection = projection(r#"{"table":"t","fields":["a","b"]}"#).expect("a projection");
        let fields = |json: &str| Fields::parse(json).expect("fields");
        let digest = |json: &str| {
            let fields = fields(json);
            projection.digest(|name| fields.text(name))
        };
        let before = fields(r#"{"a": 1.0, "b": {"c": [1, 2]}, "other": 1}"#);
        let seen = projection.seen(5.0, |name| before.text(name));
        assert!(seen.is_as(5.0, Some(digest(r#"{"other": 2, "a": 1.0, "b": {"c": [1, 2]}}"#))));
        assert!(seen.is_as(5.0, None) && !seen.is_as(6.0, None));
        // The log and a row need not have the same not-a-number.
        let nan = projection.seen(f64::NAN, |name| before.text(name));
        assert!(nan.is_as(-f64::NAN, None) && !nan.is_as(5.0, None));
        for changed in [
            r#"{"a": 1.0, "b": {"c": [1, 3]}}"#,
            // The same float, and not the same text.
            r#"{"a": 1.00000000000000000000000001, "b": {"c": [1, 2]}}"#,
            r#"{"a": 1.0}"#,
            r#"{"a": 1.0, "b": null}"#,
            r#"{"b": 1.0, "a": {"c": [1, 2]}}"#,
            r#"{"a": 1.0, "b": {"c": [1, 2]}, "channel": 1}"#,
        ] {
            assert!(!seen.is_as(5.0, Some(digest(changed))), "{changed}");
        }
    }
}
