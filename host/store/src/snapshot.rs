//! One snapshot that several runs read, one after another.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use convoke_model::{Code, DatabaseError, Failure};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_postgres::types::PgLsn;

use crate::Store;
use crate::pipeline::{Around, Broken, Connection};

/// A snapshot of the database that the runs who are given it share. The first read takes it; it ends with the last clone,
/// or when a run breaks it: by a statement that Postgres refuses, or by not coming to an end. Who comes after that is told of
/// a conflict, and runs in a snapshot of his own.
#[derive(Debug, Clone, Default)]
pub struct SharedSnapshot {
    held: Arc<Mutex<Held>>,
}

/// A snapshot that waits for its readers, and the moment that it shows.
#[derive(Debug, Clone)]
pub struct HeldSnapshot {
    pub shared: SharedSnapshot,
    /// `pg_current_snapshot()` as text.
    pub snapshot: String,
    /// A position of the log, in bytes from its beginning: all that was acknowledged before it was written is contained.
    pub lsn: u64,
}

/// The transaction behind a shared snapshot, while no run has it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    connection: Option<Connection>,
    /// None before the first read.
    taken: Option<Taken>,
    /// Tables that were found whole when they had been read. They are locked since, and stay it.
    intact: HashSet<String>,
    /// Settings that the transaction keeps when the session gets its own back.
    settings: Option<&'static str>,
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

/// A snapshot that nobody reads for a while is no leak, as other idle transactions would be. Deferrable: it is taken at a moment
/// from which on reading it concerns no other transaction, however long it is held. That waits for mutations that are running.
const BEGIN_HELD: &str =
    "begin isolation level serializable read only deferrable; set local idle_in_transaction_session_timeout = '2min'";
const HELD_SETTINGS: &str = "set local idle_in_transaction_session_timeout = '2min'";

impl Store {
    /// Takes a snapshot for readers that are still to come; it is theirs until the last clone is dropped. Few are to be
    /// had at a time, apart from the connections of calls.
    ///
    /// # Errors
    /// Where there are too many, or Postgres cannot be reached.
    pub async fn hold_snapshot(&self, deadline: Instant) -> Result<HeldSnapshot, DatabaseError> {
        let nothing = || DatabaseError::from(Failure::internal("a statement that always gives a row gave none"));
        let failed = |broken: Broken| broken.error;
        let mut connection = Connection::open_held(self, deadline).await?;
        // The position comes first: whatever committed before it is in the snapshot.
        let mut rows = connection.round_trip(&[convoke_sql::position()], Around::default()).await.map_err(failed)?.rows;
        let row = rows.pop().unwrap_or_default();
        let lsn = row.first().ok_or_else(nothing)?.get::<PgLsn>(0)?.into();
        let begin = Around { begin: Some(BEGIN_HELD), ..Around::default() };
        let mut rows = connection.round_trip(&[convoke_sql::snapshot()], begin).await.map_err(failed)?.rows;
        let row = rows.pop().unwrap_or_default();
        let snapshot: String = row.first().ok_or_else(nothing)?.get(0)?;
        let taken = Taken { snapshot: snapshot.clone(), lsn };
        let settings = Some(HELD_SETTINGS);
        let held = Held { connection: Some(connection), taken: Some(taken), intact: HashSet::new(), settings };
        Ok(HeldSnapshot { shared: SharedSnapshot { held: Arc::new(Mutex::new(held)) }, snapshot, lsn })
    }
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
            return Err(Failure::system(Code::DeadlineExceeded, words).into());
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

    /// Leaves the transaction to the next run.
    pub(crate) fn give_back(mut self, connection: Connection) {
        if connection.restore_session()
            && let Some(settings) = self.held.settings
        {
            connection.send_unwatched(settings);
        }
        self.held.connection = Some(connection);
    }
}

impl Drop for Held {
    /// Committed, though it has written nothing: of a transaction that is rolled back Postgres no longer knows what it read, and
    /// a mutation that runs meanwhile could contradict what the readers were given.
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.end_unwatched("commit");
        }
    }
}
