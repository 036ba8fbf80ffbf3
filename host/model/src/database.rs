//! The face of the database that a running function sees.

use std::any::Any;

use futures_util::future::BoxFuture;

use crate::failure::Failure;
use crate::read_set::ReadSet;

/// Why a database call did not return.
#[derive(Debug, Clone, PartialEq)]
pub enum DatabaseError {
    /// The function's own fault: it gets this as a value and may go on.
    Refused(Failure),
    /// The call ends here, whatever the function would do.
    Failed(Failure),
    /// The transaction lost against another one: run the call again with a new snapshot.
    Conflict,
    /// A query turned out to need a snapshot over several statements: run it again with one.
    NeedsSnapshot,
}

impl From<Failure> for DatabaseError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What a call observed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    pub reads: ReadSet,
    /// `pg_current_snapshot()` of the transaction, as text; none where nothing was read.
    pub snapshot: Option<String>,
    /// Where the call's page ended, for the next run of the same query.
    pub journal: Option<String>,
    /// A position of Postgres' log: what the snapshot contains was committed before it; after a commit, so was this.
    pub lsn: Option<u64>,
    /// Whether the same call may give another result though nothing was written.
    pub volatile: bool,
}

/// An answer that is still to come.
pub type Pending<'a, T> = BoxFuture<'a, Result<T, DatabaseError>>;

/// What a call may do with the project's tables. A guest sees this, never a connection or a transaction; so commits can
/// be batched behind the same face. Documents are JSON text.
///
/// Whoever made it takes it back as what it is, to commit it: hence [`Any`].
pub trait Database: Any + Send {
    /// The document with this id, or none.
    fn get<'a>(&'a mut self, table: &'a str, id: &'a str) -> Pending<'a, Option<String>>;

    /// A JSON array with a document or null for each id.
    fn get_many<'a>(&'a mut self, table: &'a str, ids: &'a [String]) -> Pending<'a, String>;

    /// A JSON array of the documents that a plan selects.
    fn query<'a>(&'a mut self, plan: &'a str) -> Pending<'a, String>;

    /// Adds a document; returns its id.
    fn insert<'a>(&'a mut self, table: &'a str, document: &'a str) -> Pending<'a, String>;

    /// Sets top-level fields of a document.
    fn patch<'a>(&'a mut self, table: &'a str, id: &'a str, fields: &'a str) -> Pending<'a, ()>;

    /// Puts a new document in the place of one.
    fn replace<'a>(&'a mut self, table: &'a str, id: &'a str, document: &'a str) -> Pending<'a, ()>;

    /// Removes a document.
    fn delete<'a>(&'a mut self, table: &'a str, id: &'a str) -> Pending<'a, ()>;

    /// Adds the documents of a JSON array; returns a JSON array of their ids.
    fn insert_many<'a>(&'a mut self, table: &'a str, documents: &'a str) -> Pending<'a, String>;

    /// Changes fields by operations (`inc`, `append`, `max`, `min`), without reading them.
    fn update<'a>(&'a mut self, table: &'a str, id: &'a str, operations: &'a str) -> Pending<'a, ()>;

    /// Patches what a plan selects; returns the number of documents.
    fn patch_where<'a>(&'a mut self, plan: &'a str, fields: &'a str) -> Pending<'a, u64>;

    /// Removes what a plan selects; returns the number of documents.
    fn delete_where<'a>(&'a mut self, plan: &'a str) -> Pending<'a, u64>;

    /// Begins a transaction within the transaction; returns its number.
    fn savepoint(&mut self) -> Pending<'_, u32>;

    /// Ends the innermost transaction and keeps its writes.
    fn release(&mut self, savepoint: u32) -> Pending<'_, ()>;

    /// Ends a transaction with those within it and undoes their writes.
    fn rollback_to(&mut self, savepoint: u32) -> Pending<'_, ()>;

    /// Runs one statement of SQL; parameters are a JSON array. Returns `{"rows", "count"}`.
    fn sql<'a>(&'a mut self, statement: &'a str, parameters: &'a str) -> Pending<'a, String>;
}

/// Turns a document of an older form into one of the newest: a rule of the project's own.
pub trait Upcast: Send + Sync {
    /// `function` is `module:function`; the document is JSON text without system fields.
    fn upcast<'a>(&'a self, function: &'a str, document: &'a str, from: u32) -> BoxFuture<'a, Result<String, Failure>>;
}
