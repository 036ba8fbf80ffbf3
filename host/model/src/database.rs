//! The face of the database that a running function sees.

use futures_util::future::BoxFuture;

use crate::failure::Failure;

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

/// An answer that is still to come.
pub type Pending<'a, T> = BoxFuture<'a, Result<T, DatabaseError>>;

/// What a call may do with the project's tables. A guest sees this, never a connection or a transaction; so commits can
/// be batched behind the same face. Documents are JSON text.
pub trait Database: Send {
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

    /// Makes the writes happen, all of them or none; ends the transaction.
    fn commit(&mut self) -> Pending<'_, ()>;
}
