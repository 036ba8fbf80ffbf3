//! The connections of a host.

use std::sync::Arc;
use std::time::Duration;

use convoke_model::{CursorKey, Limits, Table, Tables};
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{Config, NoTls};

use crate::StoreError;
use crate::call::{CallDatabase, CallOptions};
use crate::error::chain;

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
    pub(crate) project: String,
    pub(crate) limits: Limits,
    pub(crate) sql: bool,
    pub(crate) cursor_key: CursorKey,
    /// What makes a session ours again, after SQL of a function's own.
    pub(crate) restore: Arc<str>,
}

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
        let manager = Manager::from_config(app, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let settings = session_settings(&limits, &project);
        let restore = format!("reset all; select pg_advisory_unlock_all(); {settings}").into();
        let pool = Pool::builder(manager)
            .max_size(connections_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_millis(limits.queue_ms_max)))
            .create_timeout(Some(Duration::from_secs(10)))
            .post_create(Hook::async_fn(move |client, _| {
                let settings = settings.clone();
                Box::pin(async move { client.batch_execute(&settings).await.map_err(HookError::Backend) })
            }))
            .build()?;
        Ok(Self { inner: Arc::new(Inner { pool, project, limits, sql, cursor_key, restore }) })
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
        let client = self.inner.pool.get().await.map_err(|error| chain(&error))?;
        client.simple_query("").await.map(|_| ()).map_err(|error| chain(&error))
    }

    /// Closes the idle connections, and the others as they come back.
    pub fn close(&self) {
        self.inner.pool.close();
    }

    /// Tells, once in a while, that a filter goes over all of a large table.
    pub(crate) fn warn_of_scan(&self, table: &Table) {
        tracing::debug!(table = table.name, "a filter without an index");
    }
}

/// A statement must not outlive its call for long, nor a lost transaction hold its locks. `jit` costs milliseconds
/// on a plan that runs for microseconds.
///
/// Plans are made once a connection, for any value: a query names its index, and a plan of its own for each value costs
/// more than it gains.
fn session_settings(limits: &Limits, project: &str) -> String {
    let milliseconds = limits.call_ms_max;
    format!(
        "set statement_timeout = {milliseconds}; set idle_in_transaction_session_timeout = {}; set jit = off; \
         set search_path = {}",
        milliseconds * 2,
        convoke_sql::quote_identifier(project)
    )
}
