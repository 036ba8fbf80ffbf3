//! Deleting what mutations returned to clients that will not ask any more.

use convoke_sql::Statement;
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

/// Up to which moment a project's receipts are beyond their bytes: what a round of deletion begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptsHorizon(Option<i64>);

impl Store {
    /// Looks at all receipts of the project, where there are many.
    ///
    /// # Errors
    /// When Postgres refuses or cannot be reached.
    pub async fn receipts_horizon(&self, bytes_max: u64) -> Result<ReceiptsHorizon, StoreError> {
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let statement = convoke_sql::receipts_horizon(&self.inner.project.name, bytes_max);
        self.one_number(&statement).await.map(ReceiptsHorizon)
    }

    /// Deletes the oldest of the receipts that are older than any client may ask for, or beyond the horizon; so many at
    /// most.
    ///
    /// # Errors
    /// When Postgres refuses or cannot be reached.
    pub async fn expire_receipts(&self, horizon: ReceiptsHorizon, rows_max: u16) -> Result<Expired, StoreError> {
        let statement = convoke_sql::expire_receipts(&self.inner.project.name, horizon.0, rows_max.into());
        let rows = self.one_number(&statement).await?;
        Ok(rows.map_or(Expired::Busy, |rows| Expired::Rows(rows.unsigned_abs())))
    }

    async fn one_number(&self, statement: &Statement) -> Result<Option<i64>, StoreError> {
        let failed = |source| StoreError::Statement { statement: statement.text.clone(), source };
        let mut client = self.connection().await?;
        // To look at all receipts may take longer than a call.
        let transaction = client.begin_work().await.map_err(failed)?;
        let bound: Vec<Bound<'_>> = statement.parameters.iter().map(Bound).collect();
        let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let row = transaction.query_one(&statement.text, &bound).await.map_err(failed)?;
        let number = row.try_get(0).map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(number)
    }
}
