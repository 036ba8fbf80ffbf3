//! One snapshot that several runs read, one after another.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use convoke_model::{Code, DatabaseError, Failure};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::Store;
use crate::pipeline::Connection;

/// A snapshot of the database that the runs who are given it share. The first read takes it; it ends with the last clone,
/// or when a run breaks it: by a statement that Postgres refuses, or by not coming to an end. Who comes after that is told of
/// a conflict, and runs in a snapshot of his own.
#[derive(Debug, Clone, Default)]
pub struct SharedSnapshot {
    held: Arc<Mutex<Held>>,
}

/// The transaction behind a shared snapshot, while no run has it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    connection: Option<Connection>,
    /// None before the first read.
    taken: Option<Taken>,
    /// Tables that were found whole when they had been read. They are locked since, and stay it.
    intact: HashSet<String>,
}

/// When a snapshot was taken.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// `pg_current_snapshot()` as text.
    pub(crate) snapshot: String,
    /// A position of the log behind all that it contains.
    pub(crate) lsn: u64,
}

/// A run's turn with a shared snapshot.
#[derive(Debug)]
pub(crate) struct Turn {
    held: OwnedMutexGuard<Held>,
}

impl SharedSnapshot {
    /// A snapshot that is yet to be taken.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for the run before, and gives the connection; a new one where nothing was read yet.
    pub(crate) async fn turn(&self, store: &Store, deadline: Instant) -> Result<(Connection, Turn), DatabaseError> {
        let turn = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.held).lock_owned()).await;
        let Ok(mut held) = turn else {
            let words = "the run before in the same snapshot took too long";
            return Err(Failure::new(Code::DeadlineExceeded, words).into());
        };
        let connection = match (held.connection.take(), &held.taken) {
            (Some(connection), _) => connection.with_deadline(deadline),
            (None, None) => Connection::open(store, deadline).await?,
            // The run before did not give it back.
            (None, Some(_)) => return Err(DatabaseError::Conflict),
        };
        Ok((connection, Turn { held }))
    }
}

impl Turn {
    pub(crate) fn taken(&self) -> Option<&Taken> {
        self.held.taken.as_ref()
    }

    pub(crate) fn take(&mut self, taken: Taken) {
        self.held.taken = Some(taken);
    }

    pub(crate) fn is_intact(&self, table: &str) -> bool {
        self.held.intact.contains(table)
    }

    pub(crate) fn found_intact(&mut self, table: &str) {
        self.held.intact.insert(table.to_owned());
    }

    /// Leaves the transaction to the next run, if it is as it was.
    pub(crate) fn give_back(mut self, connection: Connection) {
        if connection.transaction_open() {
            connection.restore_session();
            self.held.connection = Some(connection);
        }
    }
}
