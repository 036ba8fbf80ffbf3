//! The connections of a host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_model::{Limits, Schema};
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{Config, NoTls};

use crate::StoreError;
use crate::call::{CallDatabase, Isolation};
use crate::error::chain;

/// How a store connects.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub postgres: Config,
    /// The project, and so the Postgres schema of its tables.
    pub project: String,
    pub connections_max: usize,
    pub limits: Limits,
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
}

impl Store {
    /// Connects and prepares the schema `convoke`.
    ///
    /// # Errors
    /// When Postgres cannot be reached, is older than 15, or refuses.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let reserved = options.project == "convoke"
            || options.project == "information_schema"
            || options.project.starts_with("pg_");
        if reserved {
            return Err(StoreError::ReservedSchema(options.project));
        }
        let StoreOptions { mut postgres, project, connections_max, limits } = options;
        if postgres.get_application_name().is_none() {
            postgres.application_name("convoke");
        }
        let manager = Manager::from_config(postgres, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let settings = session_settings(&limits);
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
        let store = Self { inner: Arc::new(Inner { pool, project, limits }) };
        store.bootstrap().await?;
        Ok(store)
    }

    /// The database as one run of a function sees it. Nothing is asked of Postgres until the function asks.
    pub fn call(&self, schema: Arc<Schema>, isolation: Isolation, deadline: Instant) -> CallDatabase {
        CallDatabase::new(self.clone(), schema, isolation, deadline)
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

    pub(crate) async fn connection(&self) -> Result<Object, StoreError> {
        self.inner.pool.get().await.map_err(StoreError::Unreachable)
    }
}

/// A statement must not outlive its call for long, nor a lost transaction hold its locks. `jit` costs milliseconds
/// on a plan that runs for microseconds.
fn session_settings(limits: &Limits) -> String {
    let milliseconds = limits.call_ms_max;
    format!(
        "set statement_timeout = {milliseconds}; set idle_in_transaction_session_timeout = {}; set jit = off",
        milliseconds * 2
    )
}
