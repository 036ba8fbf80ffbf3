//! Connections of the owner, each for one task.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use convoke_postgres::{Config, Tls};
use tokio_postgres::Client;

use crate::SyncError;
use crate::error::ReadOnly;

/// The oldest Postgres that the host takes, as Postgres counts.
const VERSION_NUMBER_MIN: u32 = 150_000;

/// One connection. Dropped in the middle of a statement, it has Postgres cancel it: nobody waits for the result.
pub(crate) struct Session {
    client: Client,
    tls: Tls,
    busy: AtomicBool,
}

impl Session {
    /// Connects, with names that mean the same whatever the role's settings are.
    pub(crate) async fn open(config: &Config) -> Result<Self, SyncError> {
        if let Some(pooler) = config.pooler().filter(|pooler| !pooler.keeps_sessions()) {
            return Err(SyncError::Pooler(Some(pooler)));
        }
        let mut config = config.clone();
        config.application_name("convoke-sync");
        let (client, connection) = config.connect().await.map_err(SyncError::Unreachable)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of a sync ended");
            }
        });
        let session = Self { client, tls: config.tls(), busy: AtomicBool::new(false) };
        session
            .client
            .batch_execute(
                "set search_path to ''; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; \
                 set client_min_messages = error; set jit = off; set extra_float_digits = 3",
            )
            .await
            .map_err(SyncError::statement("prepare a session"))?;
        session.check_version().await?;
        Ok(session)
    }

    async fn check_version(&self) -> Result<(), SyncError> {
        let row = self
            .client
            .query_one("select current_setting('server_version_num'), current_setting('server_version')", &[]);
        let row = row.await.map_err(SyncError::statement("tell its version"))?;
        let (number, found): (String, String) = (row.get(0), row.get(1));
        match number.parse::<u32>() {
            Ok(number) if number < VERSION_NUMBER_MIN => Err(SyncError::PostgresTooOld { found }),
            _ => Ok(()),
        }
    }

    /// Refuses a server that takes no writes. Somebody has decided that it should not, so it is not overridden.
    pub(crate) async fn check_writable(&self) -> Result<(), SyncError> {
        const READ_ONLY: &str = "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
        let row = self.client.query_one(READ_ONLY, &[]).await;
        let row = row.map_err(SyncError::statement("tell whether it takes writes"))?;
        match (row.get(0), row.get(1)) {
            (true, _) => Err(SyncError::ReadOnly(ReadOnly::Standby)),
            (false, true) => Err(SyncError::ReadOnly(ReadOnly::Setting)),
            (false, false) => Ok(()),
        }
    }

    /// Runs one statement as it is written; a batch would be a transaction, where some statements may not be.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.busy.store(true, Ordering::Relaxed);
        let result = self.client.batch_execute(sql).await;
        self.busy.store(false, Ordering::Relaxed);
        result
    }

    /// The user that is connected.
    pub(crate) async fn user(&self) -> Result<String, SyncError> {
        let row = self.client.query_one("select session_user::text", &[]).await;
        row.map(|row| row.get(0)).map_err(SyncError::statement("tell the user"))
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if *self.busy.get_mut()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (token, tls) = (self.client.cancel_token(), self.tls.clone());
            runtime.spawn(async move { token.cancel_query(tls).await });
        }
    }
}
