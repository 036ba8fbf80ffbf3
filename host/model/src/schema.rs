//! A project's tables, merged over its components.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::manifest::{IndexManifest, TableManifest, UnknownFields};
use crate::plan::Order;

/// A table as the host knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub name: String,
    /// The number that the table's ids carry; the database gives it, zero until then.
    pub number: u32,
    pub indexes: Vec<Index>,
    /// JSON Schema of a document without its system fields; null where any object will do.
    pub document: Value,
    /// The version of the documents' form, from 1; older rows go through `upcast`.
    pub version: u32,
    /// The rule that turns a document of an older version into one of this: `module:function`.
    pub upcast: Option<String>,
    pub unknown: UnknownFields,
    /// Whether Postgres itself checks the types of top-level fields, so that hand-written SQL is held to them too.
    pub check: bool,
    pub kind: TableKind,
    /// The component that declared it first.
    pub component: String,
}

/// Who owns a table's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableKind {
    /// Convoke: `_id`, `_creation_time`, `data`.
    Managed,
    /// Somebody else: columns as they are, rows known by this one column. Never altered.
    Unmanaged { key: String },
}

/// An index over fields of a table; the creation time and the id are appended to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub name: String,
    pub fields: Vec<IndexField>,
    /// Whether two documents that have all the fields may not have the same values.
    pub unique: bool,
}

/// One field of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexField {
    pub name: String,
    /// Against the index's direction where it is `Desc`.
    pub order: Order,
}

impl IndexField {
    pub fn ascending(name: impl Into<String>) -> Self {
        Self { name: name.into(), order: Order::Asc }
    }
}

/// The index that every table has: creation time, then id.
pub const BY_CREATION_TIME: &str = "by_creation_time";

/// A project's tables by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    pub tables: BTreeMap<String, Table>,
}

/// Two components that disagree about a table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaConflict {
    #[error("table `{table}` is declared with different {what} by component `{first}` and component `{second}`")]
    Table { table: String, what: &'static str, first: String, second: String },
    #[error(
        "index `{index}` of table `{table}` is declared with different fields by component `{first}` and component `{second}`"
    )]
    Index { table: String, index: String, first: String, second: String },
}

impl Table {
    /// A table as one component declares it.
    pub fn declared(manifest: &TableManifest, component: &str) -> Self {
        Self {
            name: manifest.name.clone(),
            number: 0,
            indexes: manifest.indexes.iter().map(Index::from).collect(),
            document: manifest.schema.clone(),
            version: manifest.version,
            upcast: manifest.upcast.as_ref().map(|function| format!("{component}:{function}")),
            unknown: manifest.unknown,
            check: manifest.check,
            kind: match &manifest.unmanaged {
                None => TableKind::Managed,
                Some(unmanaged) => TableKind::Unmanaged { key: unmanaged.key.clone() },
            },
            component: component.to_owned(),
        }
    }

    /// The index of this name, one of those that every table has included.
    pub fn index(&self, name: &str) -> Option<Index> {
        match name {
            BY_CREATION_TIME => Some(Index { name: name.to_owned(), fields: Vec::new(), unique: false }),
            _ => self.indexes.iter().find(|index| index.name == name).cloned(),
        }
    }

    pub fn is_managed(&self) -> bool {
        self.kind == TableKind::Managed
    }

    /// What of the two declarations differs, if anything that must not.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.document != other.document {
            Some("fields")
        } else if self.kind != other.kind {
            Some("keys")
        } else if self.version != other.version {
            Some("versions")
        } else if self.unknown != other.unknown {
            Some("treatment of unknown fields")
        } else if self.check != other.check {
            Some("checks")
        } else {
            None
        }
    }
}

impl From<&IndexManifest> for Index {
    fn from(manifest: &IndexManifest) -> Self {
        let fields = manifest.fields.iter().map(|field| IndexField { name: field.name.clone(), order: field.order });
        Self { name: manifest.name.clone(), fields: fields.collect(), unique: manifest.unique }
    }
}

impl Schema {
    /// Merges the tables that components declare, given with each component's name.
    pub fn merge<'a>(
        declared: impl IntoIterator<Item = (&'a str, &'a [TableManifest])>,
    ) -> Result<Self, SchemaConflict> {
        let mut tables: BTreeMap<String, Table> = BTreeMap::new();
        for (component, manifests) in declared {
            for manifest in manifests {
                let declared = Table::declared(manifest, component);
                match tables.get_mut(&manifest.name) {
                    None => {
                        tables.insert(manifest.name.clone(), declared);
                    }
                    Some(table) => join(table, declared)?,
                }
            }
        }
        Ok(Self { tables })
    }
}

fn join(table: &mut Table, declared: Table) -> Result<(), SchemaConflict> {
    if let Some(what) = table.difference(&declared) {
        return Err(SchemaConflict::Table {
            table: table.name.clone(),
            what,
            first: table.component.clone(),
            second: declared.component,
        });
    }
    table.upcast = table.upcast.take().or(declared.upcast);
    for index in declared.indexes {
        match table.indexes.iter().find(|known| known.name == index.name) {
            None => table.indexes.push(index),
            Some(known) if *known == index => {}
            Some(_) => {
                return Err(SchemaConflict::Index {
                    table: table.name.clone(),
                    index: index.name,
                    first: table.component.clone(),
                    second: declared.component,
                });
            }
        }
    }
    Ok(())
}
