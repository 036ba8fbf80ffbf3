//! A project's tables, merged over its components.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::manifest::TableManifest;

/// A table as the host knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub name: String,
    /// The number that the table's ids carry; the database gives it, zero until then.
    pub number: u32,
    pub indexes: Vec<Index>,
    /// JSON Schema of a document.
    pub document: Value,
}

/// An index over fields of a table; the creation time and the id are appended to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub name: String,
    pub fields: Vec<String>,
}

/// A project's tables by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    pub tables: BTreeMap<String, Table>,
}

/// Two components that disagree about a table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaConflict {
    #[error("table `{table}` is declared with different fields by component `{first}` and component `{second}`")]
    Document { table: String, first: String, second: String },
    #[error(
        "index `{index}` of table `{table}` is declared with different fields by component `{first}` and component `{second}`"
    )]
    Index { table: String, index: String, first: String, second: String },
}

impl Schema {
    /// Merges the tables that components declare, given with each component's name.
    pub fn merge<'a>(
        declared: impl IntoIterator<Item = (&'a str, &'a [TableManifest])>,
    ) -> Result<Self, SchemaConflict> {
        let mut tables: BTreeMap<String, Table> = BTreeMap::new();
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        for (component, manifests) in declared {
            for manifest in manifests {
                let first = *owners.entry(manifest.name.clone()).or_insert(component);
                let table = tables.entry(manifest.name.clone()).or_insert_with(|| Table {
                    name: manifest.name.clone(),
                    number: 0,
                    indexes: Vec::new(),
                    document: manifest.schema.clone(),
                });
                if table.document != manifest.schema {
                    return Err(SchemaConflict::Document {
                        table: manifest.name.clone(),
                        first: first.to_owned(),
                        second: component.to_owned(),
                    });
                }
                merge_indexes(table, manifest, first, component)?;
            }
        }
        Ok(Self { tables })
    }
}

fn merge_indexes(table: &mut Table, manifest: &TableManifest, first: &str, second: &str) -> Result<(), SchemaConflict> {
    for index in &manifest.indexes {
        match table.indexes.iter().find(|known| known.name == index.name) {
            None => table.indexes.push(Index { name: index.name.clone(), fields: index.fields.clone() }),
            Some(known) if known.fields == index.fields => {}
            Some(_) => {
                return Err(SchemaConflict::Index {
                    table: table.name.clone(),
                    index: index.name.clone(),
                    first: first.to_owned(),
                    second: second.to_owned(),
                });
            }
        }
    }
    Ok(())
}
