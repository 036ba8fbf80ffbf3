//! Where rows come from.

use convoke_model::{DatabaseError, Table};
use convoke_sql::Statement;
use serde_json::Value;
use uuid::Uuid;

use crate::write_set::Packet;

/// One row of an answer. Columns are numbered from 0.
pub trait Row {
    /// # Errors
    /// As all of these: where the column is missing, of another type, or null.
    fn uuid(&self, column: usize) -> Result<Uuid, DatabaseError>;

    /// A `double precision`.
    fn float(&self, column: usize) -> Result<f64, DatabaseError>;

    /// An `integer`.
    fn int(&self, column: usize) -> Result<i32, DatabaseError>;

    /// A `bigint`.
    fn big_int(&self, column: usize) -> Result<i64, DatabaseError>;

    /// The text of a `json` or `jsonb`, or none where it is null.
    fn optional_json(&self, column: usize) -> Result<Option<&str>, DatabaseError>;

    /// The text of a `json` or `jsonb`.
    fn json(&self, column: usize) -> Result<&str, DatabaseError> {
        let missing = || convoke_model::Failure::internal(format!("column {column} of a row is null"));
        Ok(self.optional_json(column)?.ok_or_else(missing)?)
    }
}

/// The rows of an answer. While they live, they count towards what the source may hold.
pub trait Rows: Send {
    type Row: Row + Send + Sync;

    fn rows(&self) -> &[Self::Row];
}

/// The database as one run sees it: a transaction, or one statement outside of any. It has the clock, the connection, the
/// deadline; documents have none of them.
pub trait Source: Send {
    type Rows: Rows;

    /// Refuses everything where a statement was refused and only a savepoint leads back.
    fn check_usable(&self) -> Result<(), DatabaseError>;

    /// Makes writes.
    fn write(&mut self, packet: Packet) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// Makes writes, and then reads, so that the read sees them.
    fn read(
        &mut self,
        packet: Packet,
        read: Statement,
    ) -> impl Future<Output = Result<Self::Rows, DatabaseError>> + Send;

    /// A read of a table whose result somebody keeps until it changes. All of it must be of the snapshot, even where the
    /// table was emptied meanwhile.
    fn read_kept(
        &mut self,
        table: &Table,
        read: Statement,
    ) -> impl Future<Output = Result<Self::Rows, DatabaseError>> + Send;

    /// Makes writes, and then one statement on a table that is somebody else's. Each parameter takes the type that the
    /// statement wants of it. Gives the first column of each row, of type `json` or `jsonb`.
    fn run_unmanaged(
        &mut self,
        table: &Table,
        packet: Packet,
        statement: Unmanaged,
    ) -> impl Future<Output = Result<Vec<String>, DatabaseError>> + Send;

    /// Hears of a filter that looks at each document of a table.
    fn scans(&self, _: &Table) {}

    /// A new document's id, and the time of its making in milliseconds since 1970.
    fn birth(&mut self) -> Birth;
}

/// When and under which id a document is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Birth {
    pub id: Uuid,
    pub now_ms: f64,
}

/// A statement on a table that is somebody else's.
#[derive(Debug, Clone, PartialEq)]
pub struct Unmanaged {
    pub text: String,
    /// JSON values, from `$1`.
    pub parameters: Vec<Value>,
}
