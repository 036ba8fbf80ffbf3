//! A write as the index takes it, and why it concerned somebody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use convoke_model::{Fields, Index};
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
    /// What was written is not known: the feed has a gap. It concerns every subscription, whatever it read.
    Everything,
}

/// A row as it was written.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub id: Uuid,
    pub creation_time: f64,
    /// Whether the document is of the newest form of its table; another one is given as an upcast makes it.
    pub is_newest: bool,
    /// The document without its system fields; none where the log leaves it out because the update did not touch it
    /// (`TOAST`). Its place in an index with fields is then unknown.
    pub data: Option<&'a Fields>,
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

/// Whom changes concern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hits<Id> {
    /// Whose result they may have changed, each with the first reason found for it.
    pub changed: BTreeMap<Id, Reason>,
    /// Who looks at a row that was written, in which there is what he saw. To a result that does not contain the write, the
    /// write means nothing; one that contains it may show it, and is true from there on only.
    pub as_seen: BTreeSet<Id>,
}

impl<Id> Default for Hits<Id> {
    fn default() -> Self {
        Self { changed: BTreeMap::new(), as_seen: BTreeSet::new() }
    }
}

impl<Id> Hits<Id> {
    /// Whether nobody is concerned who does not contain the changes.
    pub fn change_nothing(&self) -> bool {
        self.changed.is_empty()
    }

    /// Whether nobody is concerned at all.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.as_seen.is_empty()
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
    /// What it read is not known.
    ReadsEverything,
    /// What was written is not known.
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
