//! What a transaction changed, as the feed hands it on.

use std::sync::Arc;

use bytes::Bytes;

/// One committed transaction: its row changes in the order in which they were made. What a savepoint took back is not
/// in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The id of the top-level transaction, without its epoch: [`crate::widen`] gives it back. Ids of
    /// subtransactions never appear.
    pub xid: u32,
    /// Where the commit record begins in the log, in bytes from the log's beginning.
    pub commit_lsn: u64,
    /// Where the commit record ends: the feed's position after this transaction.
    pub end_lsn: u64,
    /// When it was committed, by the database's clock, in microseconds since 1970-01-01 UTC.
    pub commit_time_us: i64,
    pub changes: Vec<Change>,
    /// What it sent by `pg_logical_emit_message(true, …)`.
    pub messages: Vec<LogicalMessage>,
}

/// What happened to one row, or to a whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table as it was at the time of the change.
    pub relation: Arc<Relation>,
    pub kind: ChangeKind,
}

/// Rows are given column by column, in the order of [`Relation::columns`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    Insert {
        new: Tuple,
    },
    Update {
        /// With the default replica identity only where the key changed.
        old: Option<OldRow>,
        new: Tuple,
    },
    Delete {
        old: OldRow,
    },
    /// Every row is gone.
    Truncate,
    /// Rows of this table changed, but more than [`crate::FeedOptions::transaction_bytes_max`] lets the feed keep: any
    /// row may be among them. It stands for all changes of its transaction to the table, whatever their place.
    Unlisted,
}

/// As much of a row before the change as the table's replica identity gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldRow {
    /// The columns of the key; all others are [`Value::Null`].
    Key(Tuple),
    /// The whole row.
    Full(Tuple),
}

/// The values of a row.
pub type Tuple = Vec<Value>;

/// The value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    /// A value stored out of line (TOAST) that this update left alone; the log does not hold it.
    Unchanged,
    /// As Postgres writes the type as text, in UTF-8.
    Text(Bytes),
}

/// A table as the log describes it. An `alter table` makes a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub identity: ReplicaIdentity,
    pub columns: Vec<Column>,
}

/// Which old values an update or a delete carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// Those of the primary key.
    Default,
    /// None; Postgres then refuses updates and deletes of a published table.
    Nothing,
    /// All.
    Full,
    /// Those of a unique index.
    Index,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Whether it belongs to the replica identity.
    pub key: bool,
    pub type_oid: u32,
    /// -1 for a type without a modifier.
    pub type_modifier: i32,
}

/// A message that a transaction wrote into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    pub prefix: String,
    pub content: Bytes,
}
