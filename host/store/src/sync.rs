//! Bringing the database to what the components declare. Additive: nothing is altered or dropped.

use convoke_model::{CursorKey, Schema};
use deadpool_postgres::{Pool, Transaction};

use crate::{Store, StoreError};

/// Two hosts that start at once take turns; the number is Convoke's alone ("convoke" in ASCII).
const LOCK: &str = "select pg_advisory_xact_lock(27991469889448805)";

impl Store {
    /// Creates tables and indexes that are missing and fills in the numbers that the database has given the tables.
    ///
    /// # Errors
    /// When Postgres refuses a statement; then nothing is changed.
    #[expect(clippy::disallowed_methods, reason = "a sync runs once a deploy, with nothing to pipeline")]
    pub async fn sync(&self, schema: &mut Schema) -> Result<(), StoreError> {
        let mut client = self.connection().await?;
        let transaction = client.transaction().await.map_err(|source| failed("begin", source))?;
        execute(&transaction, LOCK).await?;
        let project = &self.inner.project;
        execute(&transaction, &convoke_sql::create_schema(project)).await?;
        for table in schema.tables.values_mut().filter(|table| table.is_managed()) {
            let statement = convoke_sql::register_table();
            let row = transaction
                .query_one(statement, &[project, &table.name])
                .await
                .map_err(|source| failed(statement, source))?;
            let number: i32 = row.try_get(0).map_err(|source| failed(statement, source))?;
            table.number = number.unsigned_abs();
            execute(&transaction, &convoke_sql::create_table(project, &table.name)).await?;
            execute(&transaction, &convoke_sql::create_creation_time_index(project, &table.name)).await?;
            for index in &table.indexes {
                execute(&transaction, &convoke_sql::create_index(project, &table.name, index)).await?;
            }
        }
        transaction.commit().await.map_err(|source| failed("commit", source))
    }
}

/// Prepares the schema `convoke`; gives the key that signs cursors.
#[expect(clippy::disallowed_methods, reason = "runs once a host, with nothing to pipeline")]
pub(crate) async fn bootstrap(pool: &Pool) -> Result<CursorKey, StoreError> {
    let mut client = pool.get().await.map_err(StoreError::Unreachable)?;
    let found: String = client
        .query_one("show server_version_num", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(|source| failed("show server_version_num", source))?;
    if found.parse::<u32>().is_ok_and(|version| version < 150_000) {
        return Err(StoreError::Version { found });
    }
    let transaction = client.transaction().await.map_err(|source| failed("begin", source))?;
    execute(&transaction, LOCK).await?;
    execute(&transaction, convoke_sql::bootstrap()).await?;
    let statement = "select key from convoke.keys where name = 'cursor'";
    let row = transaction.query_one(statement, &[]).await.map_err(|source| failed(statement, source))?;
    let key: &[u8] = row.try_get(0).map_err(|source| failed(statement, source))?;
    let key = CursorKey::new(key.try_into().map_err(|_| StoreError::Key)?);
    drop(row);
    transaction.commit().await.map_err(|source| failed("commit", source))?;
    Ok(key)
}

async fn execute(transaction: &Transaction<'_>, statement: &str) -> Result<(), StoreError> {
    transaction.batch_execute(statement).await.map_err(|source| failed(statement, source))
}

fn failed(statement: &str, source: tokio_postgres::Error) -> StoreError {
    let first_line = statement.trim_start().lines().next().unwrap_or_default();
    StoreError::Statement { statement: first_line.to_owned(), source }
}
