//! Deleting what mutations returned to clients that will not ask any more.

use tokio_postgres::IsolationLevel;
use tokio_postgres::types::ToSql;

use crate::parameters::Bound;
use crate::{Store, StoreError};

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// So many rows; fewer than were allowed where no more are old enough.
    Rows(u64),
    /// Another host is at it.
    Busy,
}

impl Store {
    /// Deletes the oldest receipts that are older than any client may ask for, so many at most.
    ///
    /// # Errors
    /// When Postgres refuses or cannot be reached.
    pub async fn expire_receipts(&self, rows_max: u16) -> Result<Expired, StoreError> {
        let mut client = self.connection().await?;
        let statement = convoke_sql::expire_receipts(rows_max.into());
        let failed = |source| StoreError::Statement { statement: statement.text.clone(), source };
        let bound: Vec<Bound<'_>> = statement.parameters.iter().map(Bound).collect();
        let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .read_only(self.is_read_only())
            .start()
            .await;
        let transaction = transaction.map_err(failed)?;
        let row = transaction.query_one(&statement.text, &bound).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        let rows: Option<i64> = row.try_get(0).map_err(failed)?;
        Ok(rows.map_or(Expired::Busy, |rows| Expired::Rows(rows.unsigned_abs())))
    }
}
