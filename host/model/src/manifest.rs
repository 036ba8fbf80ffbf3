//! What a component says about itself (docs/manifest.md).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::path::FunctionPath;
use crate::plan::Order;

/// The newest manifest version that this host reads.
const VERSION: u32 = 1;

/// What a function may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Query,
    Mutation,
    Action,
    Rule,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Query, Self::Mutation, Self::Action, Self::Rule];

    /// The name of the kind and of its WIT world.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Action => "action",
            Self::Rule => "rule",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A component's functions and tables.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Manifest {
    pub version: u32,
    #[serde(default)]
    pub functions: Vec<FunctionManifest>,
    #[serde(default)]
    pub tables: Vec<TableManifest>,
}

/// One function; `args` and `returns` are JSON Schema.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FunctionManifest {
    pub name: String,
    pub kind: Kind,
    #[serde(default)]
    pub args: Value,
    #[serde(default)]
    pub returns: Value,
}

/// One table; `schema` is JSON Schema of a document without its system fields.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TableManifest {
    pub name: String,
    #[serde(default)]
    pub schema: Value,
    #[serde(default)]
    pub indexes: Vec<IndexManifest>,
    /// The version of the documents' form.
    #[serde(default = "first_version")]
    pub version: u32,
    /// The rule of the same component that turns a document of an older version into one of this.
    #[serde(default)]
    pub upcast: Option<String>,
    #[serde(default)]
    pub unknown: UnknownFields,
    /// Whether Postgres checks the types of top-level fields too.
    #[serde(default)]
    pub check: bool,
    #[serde(default)]
    pub unmanaged: Option<UnmanagedManifest>,
}

/// What happens to a field that the table's schema does not name, when a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFields {
    /// The write is refused.
    #[default]
    Refuse,
    /// It is stored as it is.
    Keep,
    /// It is left out.
    Strip,
}

/// A table that is somebody else's: declared to be read and written, never altered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UnmanagedManifest {
    /// The column that identifies a row.
    pub key: String,
}

/// One index over fields of a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IndexManifest {
    pub name: String,
    pub fields: Vec<IndexFieldManifest>,
    #[serde(default)]
    pub unique: bool,
}

/// A field of an index: its name, or `{"field", "order"}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "IndexFieldForm")]
pub struct IndexFieldManifest {
    pub name: String,
    pub order: Order,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IndexFieldForm {
    Name(String),
    Ordered { field: String, order: Order },
}

impl From<IndexFieldForm> for IndexFieldManifest {
    fn from(form: IndexFieldForm) -> Self {
        match form {
            IndexFieldForm::Name(name) => Self { name, order: Order::Asc },
            IndexFieldForm::Ordered { field, order } => Self { name: field, order },
        }
    }
}

fn first_version() -> u32 {
    1
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    #[error("the manifest is not valid: {0}")]
    Malformed(String),
    #[error("the manifest has version {0}, this host reads up to {VERSION}: use a newer host")]
    Version(u32),
    #[error("the component has no functions")]
    Empty,
    #[error("`{0}` is not a name: ASCII letters, digits and underscores, at most 64, not beginning with a digit")]
    Name(String),
    #[error("function `{0}` is declared twice")]
    FunctionTwice(String),
    #[error("table `{0}` is declared twice")]
    TableTwice(String),
    #[error("index `{index}` of table `{table}` is declared twice or has no fields")]
    Index { table: String, index: String },
    #[error("the names of table `{table}` and index `{index}` are too long together: at most 58 characters")]
    IndexNameLength { table: String, index: String },
    #[error("table `{table}`: {problem}")]
    Table { table: String, problem: String },
}

/// Postgres cuts an identifier at 63 bytes; `{table}_{index}` and a suffix must fit.
const INDEX_NAME_BYTES_MAX: usize = 58;

impl Manifest {
    /// Reads and checks the JSON that a component returned.
    pub fn parse(json: &str) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_str(json).map_err(|error| ManifestError::Malformed(error.to_string()))?;
        if manifest.version > VERSION {
            return Err(ManifestError::Version(manifest.version));
        }
        manifest.check_functions()?;
        manifest.check_tables()?;
        Ok(manifest)
    }

    /// The function with this name.
    pub fn function(&self, name: &str) -> Option<&FunctionManifest> {
        self.functions.iter().find(|function| function.name == name)
    }

    fn check_functions(&self) -> Result<(), ManifestError> {
        if self.functions.is_empty() {
            return Err(ManifestError::Empty);
        }
        let mut names = BTreeSet::new();
        for function in &self.functions {
            check_name(&function.name)?;
            if !names.insert(&function.name) {
                return Err(ManifestError::FunctionTwice(function.name.clone()));
            }
        }
        Ok(())
    }

    fn check_tables(&self) -> Result<(), ManifestError> {
        let mut names = BTreeSet::new();
        for table in &self.tables {
            check_name(&table.name)?;
            if !names.insert(&table.name) {
                return Err(ManifestError::TableTwice(table.name.clone()));
            }
            self.check_table(table)?;
            let mut indexes = BTreeSet::new();
            for index in &table.indexes {
                check_name(&index.name)?;
                index.fields.iter().try_for_each(|field| check_name(&field.name))?;
                if !indexes.insert(&index.name) || index.fields.is_empty() {
                    return Err(ManifestError::Index { table: table.name.clone(), index: index.name.clone() });
                }
                if table.name.len() + index.name.len() > INDEX_NAME_BYTES_MAX {
                    return Err(ManifestError::IndexNameLength {
                        table: table.name.clone(),
                        index: index.name.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn check_table(&self, table: &TableManifest) -> Result<(), ManifestError> {
        let problem = |problem: String| Err(ManifestError::Table { table: table.name.clone(), problem });
        if table.version == 0 {
            return problem("versions count from 1".to_owned());
        }
        if let Some(unmanaged) = &table.unmanaged {
            check_name(&unmanaged.key)?;
            if !table.indexes.is_empty() || table.check || table.version != 1 || table.upcast.is_some() {
                return problem("an unmanaged table has no indexes, checks or versions of ours".to_owned());
            }
        }
        let Some(upcast) = &table.upcast else { return Ok(()) };
        match self.function(upcast) {
            Some(function) if function.kind == Kind::Rule => Ok(()),
            _ => problem(format!("its upcast `{upcast}` is not a rule of the component")),
        }
    }
}

fn check_name(name: &str) -> Result<(), ManifestError> {
    if FunctionPath::is_identifier(name) { Ok(()) } else { Err(ManifestError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_fields_it_does_not_know() {
        let manifest = Manifest::parse(
            r#"{"version":1,"made":"later","functions":[{"name":"list","kind":"query","visibility":"public"}]}"#,
        );
        assert_eq!(manifest.expect("readable").functions[0].kind, Kind::Query);
    }

    #[test]
    fn refuses_what_it_cannot_serve() {
        let function = r#"{"name":"a","kind":"query"}"#;
        for (json, words) in [
            (r#"{"version":2,"functions":[]}"#.to_owned(), "version 2"),
            (r#"{"version":1,"functions":[]}"#.to_owned(), "no functions"),
            (format!(r#"{{"version":1,"functions":[{function},{function}]}}"#), "twice"),
            (r#"{"version":1,"functions":[{"name":"a b","kind":"query"}]}"#.to_owned(), "`a b` is not a name"),
            (r#"{"version":1,"functions":[{"name":"a","kind":"cron"}]}"#.to_owned(), "unknown variant `cron`"),
            (
                format!(
                    r#"{{"version":1,"functions":[{function}],"tables":[{{"name":"t","indexes":[{{"name":"i","fields":["x\"; drop"]}}]}}]}}"#
                ),
                "is not a name",
            ),
        ] {
            let error = Manifest::parse(&json).expect_err(&json).to_string();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
