//! What Postgres says, in the words of a call.

use convoke_model::{Code, DatabaseError, Failure};
use serde_json::json;
use thiserror::Error;
use tokio_postgres::error::SqlState;

/// Why the store could not be opened or brought to a schema.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("cannot reach Postgres")]
    Unreachable(#[source] deadpool_postgres::PoolError),
    #[error("cannot build the connection pool")]
    Pool(#[from] deadpool_postgres::BuildError),
    #[error("Postgres {found} is too old: Convoke needs 15 or newer")]
    Version { found: String },
    #[error("`{0}` cannot be a project's name: it belongs to Postgres or to Convoke")]
    ReservedSchema(String),
    #[error("Postgres refused `{statement}`")]
    Statement {
        statement: String,
        #[source]
        source: tokio_postgres::Error,
    },
}

/// Whether a failed statement may be run again by running the whole call again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is committed yet.
    BeforeCommit,
    /// The commit was on its way: what happened is unknown if the connection broke.
    Commit,
}

/// Turns an error of Postgres into what the call does next.
pub(crate) fn explain(error: &tokio_postgres::Error, phase: Phase) -> DatabaseError {
    let Some(server) = error.as_db_error() else {
        let failure =
            Failure::new(Code::Overloaded, "the database cannot be reached at the moment").with_internal(chain(error));
        return match phase {
            Phase::BeforeCommit if error.is_closed() => DatabaseError::Conflict,
            _ => DatabaseError::Failed(failure),
        };
    };
    let code = server.code();
    let failure = if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED {
        return DatabaseError::Conflict;
    } else if *code == SqlState::NO_DATA_FOUND {
        let table = server.table().unwrap_or_default();
        Failure::new(Code::NotFound, format!("a document of table `{table}` that was to be changed does not exist"))
            .with_data(json!({ "table": table }))
    } else if *code == SqlState::UNIQUE_VIOLATION {
        Failure::new(Code::Conflict, "a document with this unique value exists already")
            .with_data(json!({ "constraint": server.constraint() }))
    } else if *code == SqlState::QUERY_CANCELED || *code == SqlState::LOCK_NOT_AVAILABLE {
        Failure::new(Code::DeadlineExceeded, "the database took too long")
    } else if *code == SqlState::UNTRANSLATABLE_CHARACTER {
        Failure::new(Code::InvalidArgs, "Postgres cannot store the character \\u0000 in a text")
    } else if *code == SqlState::PROGRAM_LIMIT_EXCEEDED {
        Failure::new(Code::InvalidArgs, "an indexed field is too large: an index entry holds about 2,700 bytes")
    } else if code.code().starts_with("57P") || code.code().starts_with("08") || code.code().starts_with("53") {
        Failure::new(Code::Overloaded, "the database cannot serve at the moment")
    } else {
        return DatabaseError::Failed(Failure::internal(chain(error)));
    };
    DatabaseError::Failed(failure.with_internal(chain(error)))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
