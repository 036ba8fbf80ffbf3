//! Bringing stored documents to the newest form, a few at a time.

use convoke_model::{DocumentId, Failure, Table, Upcast};
use convoke_sql::Statement;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use crate::parameters::{Bound, optional_json_column};
use crate::{Store, StoreError};

/// The backfill of one table. It goes over the table in passes: within a pass by the order of ids, as often as rows of an
/// older form are found. Rows may come or change behind a pass, by hosts of an older deployment; others are held by a
/// transaction. So it ends only with one look at the whole table, in one snapshot, that finds none.
#[derive(Debug)]
pub struct Backfill {
    table: Table,
    after: Option<Uuid>,
    pass: Pass,
}

/// What became of the rows of an older form that one pass has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pass {
    pub changed: u64,
    /// Rows that others held.
    pub held: u64,
    /// Documents whose upcast failed. They stay as they are.
    pub failed: u64,
}

/// How far a backfill is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The pass goes on.
    Batch,
    /// The pass is over. There may be more to do.
    Pass(Pass),
    /// No document was of an older form at the moment of the last statement.
    Done,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Batch {
    pub progress: Progress,
    /// The first document of the batch whose upcast failed, and why.
    pub failure: Option<(DocumentId, Failure)>,
}

impl Backfill {
    /// Of a table with an upcast.
    pub fn new(table: Table) -> Self {
        Self { table, after: None, pass: Pass::default() }
    }

    /// Takes the next rows of an older form and writes them in the newest, in a transaction of its own. After an error it
    /// may be called again.
    ///
    /// # Errors
    /// When Postgres refuses or cannot be reached; then the batch is undone.
    pub async fn batch(&mut self, store: &Store, upcast: &dyn Upcast, rows_max: u32) -> Result<Batch, StoreError> {
        let failed =
            |source| StoreError::Statement { statement: "bring documents to the newest form".to_owned(), source };
        let mut client = store.connection().await?;
        // To find no row is to look at all of them.
        let transaction = client.begin_work().await.map_err(failed)?;
        let project = &store.inner.project.name;
        let select = convoke_sql::outdated(project, &self.table, self.after, rows_max);
        let rows = run(&transaction, &select).await.map_err(failed)?;
        let (mut pass, mut failure) = (self.pass, None);
        let (mut ids, mut documents) = (Vec::new(), Vec::new());
        let function = self.table.upcast.as_deref().unwrap_or_default();
        for row in &rows {
            let id: Uuid = row.try_get(1).map_err(failed)?;
            let version: Option<i32> = row.try_get(2).map_err(failed)?;
            let (Some(data), Some(version)) = (optional_json_column(row, 0).map_err(failed)?, version) else {
                pass.held += 1;
                continue;
            };
            match upcast.upcast(function, data, version.unsigned_abs()).await {
                Ok(document) => {
                    ids.push(id);
                    documents.push(document);
                }
                Err(error) => {
                    pass.failed += 1;
                    failure.get_or_insert((DocumentId { table: self.table.number, uuid: id }, error));
                }
            }
        }
        pass.changed += ids.len() as u64;
        if !ids.is_empty() {
            run(&transaction, &convoke_sql::renew(project, &self.table, ids, documents)).await.map_err(failed)?;
        }
        let last = rows.last().map(|row| row.try_get(1)).transpose().map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        let whole = self.after.is_none();
        let progress = match last {
            None if whole => Progress::Done,
            Some(last) if rows.len() as u64 >= u64::from(rows_max) => {
                (self.after, self.pass) = (Some(last), pass);
                Progress::Batch
            }
            _ => {
                (self.after, self.pass) = (None, Pass::default());
                Progress::Pass(pass)
            }
        };
        Ok(Batch { progress, failure })
    }
}

async fn run(transaction: &Transaction<'_>, statement: &Statement) -> Result<Vec<Row>, tokio_postgres::Error> {
    let bound: Vec<Bound<'_>> = statement.parameters.iter().map(Bound).collect();
    let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    transaction.query(&statement.text, &bound).await
}
