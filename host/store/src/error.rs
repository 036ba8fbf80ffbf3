//! What Postgres says, in the words of a call.

use convoke_model::{Code, DatabaseError, Failure, Origin, Outcome, chain};
use serde_json::json;
use thiserror::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

/// Why the store could not be opened, or asked about itself.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("cannot build the connection pool")]
    Pool(#[from] deadpool_postgres::BuildError),
    #[error("cannot reach Postgres")]
    Unreachable(#[source] deadpool_postgres::PoolError),
    #[error("Postgres refused `{statement}`")]
    Statement {
        statement: String,
        #[source]
        source: tokio_postgres::Error,
    },
}

/// Whether the call that sent a statement may write at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    Allowed,
    Refused,
}

/// Why a statement gave no rows.
#[derive(Debug)]
pub(crate) enum Fault {
    Postgres(tokio_postgres::Error),
    /// The host takes no more of them.
    Ours(DatabaseError),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Turns an error of Postgres into what the call does next. What the function is at fault for is refused: it may go on where a
/// savepoint leads back.
///
/// Of a statement whose transaction is not committed.
pub(crate) fn explain(error: &tokio_postgres::Error) -> DatabaseError {
    let Some(server) = error.as_db_error() else {
        if !is_of_the_connection(error) {
            // A statement that could not be sent, or a row that could not be read.
            return DatabaseError::Failed(Failure::trap(chain(error)));
        }
        let failure = Failure::system(Code::Overloaded, "the database cannot be reached at the moment")
            .with_internal(chain(error));
        return if error.is_closed() { DatabaseError::Conflict } else { DatabaseError::Failed(failure) };
    };
    let code = server.code();
    let failure = if *code == SqlState::T_R_SERIALIZATION_FAILURE
        || *code == SqlState::T_R_DEADLOCK_DETECTED
        || is_second_receipt(server)
        || has_ended_session(server)
    {
        return DatabaseError::Conflict;
    } else if *code == SqlState::NO_DATA_FOUND {
        let table = server.table().unwrap_or_default();
        Failure::function(
            Code::NotFound,
            format!("a document of table `{table}` that was to be changed does not exist"),
        )
        .with_data(json!({ "table": table }))
    } else if *code == SqlState::UNIQUE_VIOLATION {
        unique_violation(server.table().unwrap_or_default(), server.constraint().unwrap_or_default())
    } else if *code == SqlState::CHECK_VIOLATION || *code == SqlState::DATATYPE_MISMATCH {
        Failure::function(Code::InvalidArgs, server.message()).with_data(match server.column() {
            // What `convoke.apply` and `convoke.bounded` found.
            Some(field) => {
                json!({ "table": server.table(), "field": field, "expected": server.hint(), "found": server.detail() })
            }
            None => json!({ "table": server.table(), "constraint": server.constraint() }),
        })
    } else if *code == SqlState::NUMERIC_VALUE_OUT_OF_RANGE {
        Failure::function(Code::InvalidArgs, "a number of an indexed field is beyond what a 64-bit float holds")
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        read_only()
    } else if *code == SqlState::QUERY_CANCELED || *code == SqlState::LOCK_NOT_AVAILABLE {
        Failure::system(Code::DeadlineExceeded, "the database took too long")
    } else if *code == SqlState::UNTRANSLATABLE_CHARACTER {
        Failure::function(Code::InvalidArgs, "Postgres cannot store the character \\u0000 in a text")
    } else if *code == SqlState::PROGRAM_LIMIT_EXCEEDED {
        Failure::function(Code::InvalidArgs, "an indexed field is too large: an index entry holds about 2,700 bytes")
    } else if code.code().starts_with("57P") || code.code().starts_with("08") || code.code().starts_with("53") {
        Failure::system(Code::Overloaded, "the database cannot serve at the moment")
    } else {
        return DatabaseError::Failed(Failure::trap(chain(error)));
    };
    let failure = failure.with_internal(chain(error));
    match failure.origin {
        Origin::Function | Origin::Caller => DatabaseError::Refused(failure),
        Origin::System => DatabaseError::Failed(failure),
    }
}

/// Whether the connection broke; else the client found something wrong before it sent or after it received.
fn is_of_the_connection(error: &tokio_postgres::Error) -> bool {
    let io = || std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    // What cannot be encoded is an input error to the standard library too.
    error.is_closed() || io().is_some_and(|error| error.kind() != std::io::ErrorKind::InvalidInput)
}

/// Writes that meet a standby, or a database that somebody has closed to them.
fn read_only() -> Failure {
    Failure::system(Code::Overloaded, "the database is read-only at the moment: it takes no writes")
}

/// The same where a commit was on its way. What Postgres has refused is rolled back; where it ended the session, or the
/// connection is lost, nobody can tell.
pub(crate) fn explain_commit(error: &tokio_postgres::Error) -> DatabaseError {
    match error.as_db_error().map(DbError::parsed_severity) {
        Some(Some(Severity::Error)) => explain(error),
        _ => unknown_outcome(&chain(error)),
    }
}

/// A commit that may have happened. `detail` is for the log.
pub(crate) fn unknown_outcome(detail: &str) -> DatabaseError {
    let words = "the database did not answer the commit: whether anything was written is not known";
    let failure = Failure::system(Code::UnknownOutcome, words).with_outcome(Outcome::Unknown);
    DatabaseError::Failed(failure.with_internal(detail))
}

/// Whether this mutation, sent before, has left its receipt meanwhile.
fn is_second_receipt(server: &DbError) -> bool {
    *server.code() == SqlState::UNIQUE_VIOLATION
        && (server.schema(), server.table()) == (Some("convoke"), Some("receipts"))
}

/// Whether Postgres has ended the session, and with it the transaction.
fn has_ended_session(server: &DbError) -> bool {
    matches!(server.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
        && ["57P", "08"].iter().any(|class| server.code().code().starts_with(class))
}

/// Names the declared index behind a constraint: `{table}_{index}_key`.
fn unique_violation(table: &str, constraint: &str) -> Failure {
    let index = constraint.strip_prefix(table).and_then(|rest| rest.strip_prefix('_'));
    let index = index.and_then(|rest| rest.strip_suffix("_key")).unwrap_or(constraint);
    let words = format!("table `{table}` has a document with this value of the unique index `{index}` already");
    Failure::function(Code::Conflict, words).with_data(json!({ "table": table, "index": index }))
}

/// The same for a statement that the function wrote itself: what Postgres says is for its author.
pub(crate) fn explain_sql(error: &tokio_postgres::Error, writes: Writes) -> DatabaseError {
    let Some(server) = error.as_db_error() else { return explain(error) };
    let code = server.code();
    if *code == SqlState::T_R_SERIALIZATION_FAILURE
        || *code == SqlState::T_R_DEADLOCK_DETECTED
        || *code == SqlState::QUERY_CANCELED
        || ["57P", "08", "53"].iter().any(|class| code.code().starts_with(class))
    {
        return explain(error);
    }
    let failure = if *code == SqlState::READ_ONLY_SQL_TRANSACTION && writes == Writes::Allowed {
        return DatabaseError::Failed(read_only().with_internal(chain(error)));
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        Failure::function(Code::Forbidden, "READ_ONLY: a query cannot write, write in a mutation")
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        Failure::function(Code::Forbidden, format!("the project's role may not do that: {}", server.message()))
    } else {
        Failure::function(Code::Application("SQL_ERROR".to_owned()), server.message())
    };
    // Postgres' detail may carry rows that the caller may not see (`Failing row contains …`): it is for the log.
    DatabaseError::Refused(failure.with_data(json!({ "sqlstate": code.code() })).with_internal(chain(error)))
}
