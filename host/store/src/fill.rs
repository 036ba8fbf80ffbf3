//! Bringing stored documents to the newest form, a few at a time.

use convoke_model::{DocumentId, Failure, Table, Upcast};
use convoke_sql::{DocumentBytes, Existence, Rows, Target};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::document::{Bound, json_column};
use crate::{Store, StoreError};

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Filled {
    /// The last row that was looked at; none when there was none left.
    pub last: Option<Uuid>,
    pub changed: u64,
    /// Documents that could not be brought to the newest form; they stay as they are.
    pub failed: Vec<(DocumentId, Failure)>,
}

impl Store {
    /// Takes the next rows of an older form behind `after`, in the order of their ids, and writes them in the newest, in a
    /// transaction of its own. Rows that others hold are left for later.
    ///
    /// # Errors
    /// When Postgres refuses or cannot be reached; then the batch is undone.
    #[expect(clippy::disallowed_methods, reason = "works in the background, with nothing to pipeline")]
    pub async fn fill(
        &self,
        table: &Table,
        after: Option<Uuid>,
        upcast: &dyn Upcast,
        rows_max: u32,
    ) -> Result<Filled, StoreError> {
        let function = table.upcast.as_deref().unwrap_or_default();
        let mut client = self.connection().await?;
        let project = &self.inner.project;
        let select = convoke_sql::outdated(project, table, after.unwrap_or_default(), rows_max);
        let failed =
            |source| StoreError::Statement { statement: "bring documents to the newest form".to_owned(), source };
        let transaction = client.transaction().await.map_err(failed)?;
        let bound: Vec<Bound<'_>> = select.parameters.iter().map(Bound).collect();
        let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let rows = transaction.query(&select.text, &bound).await.map_err(failed)?;
        let mut filled = Filled::default();
        let (mut ids, mut documents) = (Vec::new(), Vec::new());
        for row in &rows {
            let data = json_column(row).map_err(failed)?;
            let id: Uuid = row.try_get(1).map_err(failed)?;
            let version: i32 = row.try_get(2).map_err(failed)?;
            filled.last = Some(id);
            match upcast.upcast(function, data, version.unsigned_abs()).await {
                Ok(document) => {
                    ids.push(id);
                    documents.push(document);
                }
                Err(failure) => filled.failed.push((DocumentId { table: table.number, uuid: id }, failure)),
            }
        }
        filled.changed = ids.len() as u64;
        if !ids.is_empty() {
            let bytes_max = DocumentBytes(self.inner.limits.document_bytes_max);
            let target = Target { schema: project, table: &table.name, versioned: true, bytes_max };
            let update = convoke_sql::update(target, Rows::Replace, ids, documents, Existence::Known);
            let bound: Vec<Bound<'_>> = update.parameters.iter().map(Bound).collect();
            let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
            transaction.execute(&update.text, &bound).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(filled)
    }
}
