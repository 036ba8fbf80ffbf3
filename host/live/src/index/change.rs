//! A write as the index is told of it, and why it concerned somebody.

use std::fmt;
use std::sync::Arc;

use convoke_model::Index;
use serde_json::{Map, Value};
use uuid::Uuid;

/// One write. A write to a table of documents comes as itself and, for those who read the table by SQL, once more as
/// [`RowChange::Relation`].
#[derive(Debug, Clone, Copy)]
pub enum RowChange<'a> {
    /// A row that was not there.
    Insert { table: u32, row: Row<'a> },
    /// A row that was there, as it is now.
    Update {
        table: u32,
        /// The id before, where it is another one.
        old_id: Option<Uuid>,
        row: Row<'a>,
    },
    /// A row that is gone.
    Delete { table: u32, id: Uuid },
    /// All rows of a table are gone.
    Truncate { table: u32 },
    /// Something was written to a relation.
    Relation { schema: &'a str, name: &'a str },
    /// What was written cannot be told: the feed has a gap. It concerns every subscription, whatever it read.
    Everything,
}

/// A row as it was written.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub id: Uuid,
    pub creation_time: f64,
    /// The document without its system fields; none where the log leaves it out because the update did not touch it
    /// (`TOAST`). Its place in an index with fields is then unknown.
    pub data: Option<&'a Map<String, Value>>,
}

impl RowChange<'_> {
    pub(super) fn table(&self) -> Option<u32> {
        match self {
            Self::Insert { table, .. }
            | Self::Update { table, .. }
            | Self::Delete { table, .. }
            | Self::Truncate { table } => Some(*table),
            Self::Relation { .. } | Self::Everything => None,
        }
    }
}

/// Why a change concerns a subscription, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It read this document, or looked for it.
    Document { table: u32, id: Uuid },
    /// The row lies in a range that it read.
    Entered { table: u32, index: Arc<Index>, id: Uuid },
    /// The log does not say where the row lies, and it read a range of this index.
    MayHaveEntered { table: u32, index: Arc<Index>, id: Uuid },
    /// A range read gave it this row.
    HandedOut { table: u32, id: Uuid },
    /// It read a range without being given the rows, and this may have been one.
    MayBeCounted { table: u32, id: Uuid },
    /// It read something of a table that was emptied.
    Truncated { table: u32 },
    /// It read this relation by SQL.
    Relation { schema: String, name: String },
    /// What it read could not be told.
    ReadsEverything,
    /// What was written could not be told.
    Gap,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document { table, id } => write!(formatter, "read document {id} of table {table}"),
            Self::Entered { table, index, id } => {
                write!(formatter, "row {id} lies in a range read of index `{}` of table {table}", index.name)
            }
            Self::MayHaveEntered { table, index, id } => {
                write!(formatter, "row {id} may lie in a range read of index `{}` of table {table}", index.name)
            }
            Self::HandedOut { table, id } => write!(formatter, "was given row {id} of table {table}"),
            Self::MayBeCounted { table, id } => write!(formatter, "may have counted in row {id} of table {table}"),
            Self::Truncated { table } => write!(formatter, "read table {table}, which was truncated"),
            Self::Relation { schema, name } => write!(formatter, "read relation `{schema}.{name}`"),
            Self::ReadsEverything => formatter.write_str("may have read anything"),
            Self::Gap => formatter.write_str("anything may have been written"),
        }
    }
}
