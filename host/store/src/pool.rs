//! The connections of a host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use convoke_documents::Project;
use convoke_model::{Code, CursorKey, DatabaseError, Failure, Limits, Table, Tables};
use convoke_postgres::{Config, Tls};
use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod, Runtime};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::PgLsn;

use crate::StoreError;
use crate::call::{CallDatabase, CallOptions};
use crate::error::explain;
use crate::pipeline::unavailable;
use crate::row_locks::Contended;
use crate::rows::Rooms;
use crate::sessions::{Hook, HookError, Object, Pool, Session, Sessions};
use convoke_model::chain;

/// How a store connects.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The project's role, which may read and write its documents and nothing else.
    pub app: Config,
    /// The project, and so the Postgres schema of its tables.
    pub project: String,
    pub connections_max: usize,
    pub limits: Limits,
    /// Whether the project's functions may send SQL of their own.
    pub sql: bool,
    /// Signs where pages end.
    pub cursor_key: CursorKey,
}

/// A project's database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) pool: Pool,
    /// For snapshots that outlive the call that took them: they are not to keep connections from calls.
    pub(crate) held: Pool,
    /// For questions after the log's position, and whether Postgres answers: one connection, which no call can keep from
    /// those who ask.
    pub(crate) positions: Pool,
    /// When it was asked last whether Postgres answers, where it did.
    answered: tokio::sync::Mutex<Option<Instant>>,
    /// How the pool's connections are encrypted, for requests to cancel what they do.
    pub(crate) tls: Tls,
    pub(crate) project: Arc<Project>,
    /// For the rows that calls read.
    pub(crate) rooms: Rooms,
    pub(crate) sql: bool,
    /// Rows that writers queue for.
    pub(crate) contended: Contended,
    /// When a scan of a table was last looked into.
    scans: Mutex<HashMap<String, Instant>>,
    /// What makes a session ours again, after SQL of a function's own.
    pub(crate) restore: Arc<str>,
}

/// Snapshots that may be held at a time, each with a connection.
const SNAPSHOTS_HELD_MAX: usize = 8;
/// A table from which on a scan is worth a word.
const SCAN_ROWS: f32 = 10_000.0;
const SCAN_WARNING_EVERY: Duration = Duration::from_mins(1);

impl Store {
    /// Prepares the pool; the first call connects. The database has been made ready by `convoke_sync`.
    ///
    /// # Errors
    /// When the pool cannot be built.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let StoreOptions { mut app, project, connections_max, limits, sql, cursor_key } = options;
        if app.get_application_name().is_none() {
            app.application_name("convoke");
        }
        let tls = app.tls();
        let recycling = || ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let sessions = || Sessions(Manager::from_config(app.plain(), tls.clone(), recycling()));
        let settings = session_settings(&limits, &project);
        let restore = format!("reset all; select pg_advisory_unlock_all(); {settings}").into();
        let wait = Duration::from_millis(limits.queue_ms_max);
        let settings: Arc<str> = settings.into();
        let pool = build(sessions(), connections_max, wait, &settings)?;
        let held = build(sessions(), SNAPSHOTS_HELD_MAX, Duration::ZERO, &settings)?;
        let positions = build(sessions(), 1, wait, &settings)?;
        let (contended, scans) = (Contended::default(), Mutex::default());
        let rooms = Rooms::new(&limits);
        let project = Arc::new(Project { name: project, limits, cursor_key });
        let answered = tokio::sync::Mutex::default();
        let inner = Inner { pool, held, positions, answered, tls, project, rooms, sql, contended, scans, restore };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The database as one run of a function sees it. Nothing is asked of Postgres until the function asks.
    pub fn call(&self, tables: Arc<Tables>, options: CallOptions) -> CallDatabase {
        CallDatabase::new(self.clone(), tables, options)
    }

    /// Whether Postgres answers.
    ///
    /// # Errors
    /// In words, for the reasons of `/readyz`.
    pub async fn ready(&self) -> Result<(), String> {
        let came = Instant::now();
        // Not by a connection for calls, which may all be at work. One question answers all who had come before it.
        let mut answered = self.inner.answered.lock().await;
        if answered.is_some_and(|asked| asked >= came) {
            return Ok(());
        }
        let asked = Instant::now();
        let client = self.inner.positions.get().await.map_err(|error| chain(&error))?;
        client.simple_query("").await.map_err(|error| chain(&error))?;
        *answered = Some(asked);
        Ok(())
    }

    /// How far the log is, in bytes from its beginning: all that has committed is before it, flushed or not.
    ///
    /// # Errors
    /// Where Postgres does not tell before the deadline.
    pub async fn log_position(&self, deadline: Instant) -> Result<u64, DatabaseError> {
        let asked = async {
            let client = self.inner.positions.get().await.map_err(|error| unavailable(&error))?;
            let failed = |error| explain(&error);
            let statement = client.prepared(&convoke_sql::log_end().text).await.map_err(failed)?;
            let row = client.query_one(&statement, &[]).await.map_err(failed)?;
            row.try_get::<_, PgLsn>(0).map(u64::from).map_err(failed)
        };
        before(deadline, asked).await
    }

    /// Has Postgres write out its log, where that is not beyond the position and there is something to write.
    ///
    /// # Errors
    /// Where Postgres does not, before the deadline.
    pub async fn flush_log(&self, position: u64, deadline: Instant) -> Result<(), DatabaseError> {
        let asked = async {
            let client = self.inner.positions.get().await.map_err(|error| unavailable(&error))?;
            let failed = |error| explain(&error);
            let statement = client.prepared(convoke_sql::flush_log()).await.map_err(failed)?;
            client.execute(&statement, &[&PgLsn::from(position)]).await.map_err(failed)?;
            Ok(())
        };
        before(deadline, asked).await
    }

    /// The room that is taken for rows of calls, in bytes; it is never more than `host_read_bytes_max`.
    pub fn read_bytes_held(&self) -> usize {
        self.inner.rooms.held_bytes()
    }

    /// Closes the idle connections, and the others as they come back.
    pub fn close(&self) {
        self.inner.pool.close();
        self.inner.held.close();
        self.inner.positions.close();
    }

    /// Warns, once in a while, of a filter that goes over all of a large table.
    pub(crate) fn warn_of_scan(&self, table: &Table) {
        let now = Instant::now();
        let mut told = self.inner.scans.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&table.name).is_some_and(|last| now.duration_since(*last) < SCAN_WARNING_EVERY) {
            return;
        }
        told.insert(table.name.clone(), now);
        drop(told);
        let (store, table) = (self.clone(), table.name.clone());
        tokio::spawn(async move {
            match store.estimated_rows(&table).await {
                Ok(rows) if rows >= SCAN_ROWS => tracing::warn!(
                    table,
                    rows,
                    "a filter without an index looks at every document: declare an index for it"
                ),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, table, "could not ask for the size of a table"),
            }
        });
    }

    /// The rows that Postgres believes a table to have.
    async fn estimated_rows(&self, table: &str) -> Result<f32, StoreError> {
        let client = self.connection().await?;
        let statement = "select c.reltuples from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                         where n.nspname = $1 and c.relname = $2";
        let failed = |source| StoreError::Statement { statement: statement.to_owned(), source };
        let row = client.query_one(statement, &[&self.inner.project.name, &table]).await.map_err(failed)?;
        row.try_get(0).map_err(failed)
    }

    pub(crate) async fn connection(&self) -> Result<Object, StoreError> {
        self.inner.pool.get().await.map_err(StoreError::Unreachable)
    }
}

async fn before<T>(
    deadline: Instant,
    asked: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    match tokio::time::timeout_at(deadline.into(), asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::system(Code::DeadlineExceeded, "the database took too long").into()),
    }
}

/// Finds out what a new session is of, and gives it its settings.
async fn begin(session: &mut Session, settings: &str) -> Result<(), tokio_postgres::Error> {
    // Before the settings, which make reading the default.
    let asked = session.simple_query("show default_transaction_read_only; show in_hot_standby").await?;
    let is_on =
        |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on"));
    session.set_read_only(asked.iter().any(is_on));
    session.batch_execute(settings).await
}

fn build(
    sessions: Sessions,
    max: usize,
    wait: Duration,
    settings: &Arc<str>,
) -> Result<Pool, deadpool_postgres::BuildError> {
    let settings = Arc::clone(settings);
    Pool::builder(sessions)
        .max_size(max)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(wait))
        .create_timeout(Some(Duration::from_secs(10)))
        .post_create(Hook::async_fn(move |session, _| {
            let settings = Arc::clone(&settings);
            Box::pin(async move { begin(session, &settings).await.map_err(HookError::Backend) })
        }))
        .build()
}

/// What is sent without a transaction reads, and is one of its own: serialisable, so that a query sees nothing that no serial
/// order of the mutations has. Where no mutation is running that costs nothing.
///
/// A statement must not outlive its call for long, nor a lost transaction hold its locks. `jit` costs milliseconds
/// on a plan that runs for microseconds.
///
/// Plans are made once a connection, for any value: a query names its index, and a plan of its own for each value costs
/// more than it gains.
fn session_settings(limits: &Limits, project: &str) -> String {
    let milliseconds = limits.call_ms_max;
    format!(
        "select set_config('default_transaction_isolation', \
         case when pg_is_in_recovery() then 'repeatable read' else 'serializable' end, false); \
         set default_transaction_read_only = on; set statement_timeout = {milliseconds}; \
         set idle_in_transaction_session_timeout = {}; set jit = off; set extra_float_digits = 1; set search_path = {}",
        milliseconds * 2,
        convoke_sql::quote_identifier(project)
    )
}
