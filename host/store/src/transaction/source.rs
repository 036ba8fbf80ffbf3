//! The transaction as documents see it: a source of rows.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use convoke_documents::{Birth, Packet, Source, Unmanaged};
use convoke_model::{DatabaseError, Table};
use convoke_sql::Statement;
use uuid::Uuid;

use super::{Direction, State, Transaction, aborted};
use crate::parameters::JsonParameter;
use crate::pipeline::End;
use crate::rows::{Budget, Rows};
use crate::sessions::Object;

impl Source for Transaction {
    type Rows = Rows;

    /// Refuses everything but a way back, once Postgres has refused a statement.
    fn check_usable(&self) -> Result<(), DatabaseError> {
        if matches!(self.state, State::Aborted { .. }) { Err(aborted()) } else { Ok(()) }
    }

    async fn write(&mut self, packet: Packet) -> Result<(), DatabaseError> {
        if packet.statements.is_empty() {
            return Ok(());
        }
        self.send(&packet, End::Open, Direction::On).await.map(drop)
    }

    async fn read(&mut self, mut packet: Packet, read: Statement) -> Result<Rows, DatabaseError> {
        packet.statements.push(read);
        Ok(self.send(&packet, End::Open, Direction::On).await?.pop().unwrap_or_default())
    }

    async fn read_kept(&mut self, table: &Table, read: Statement) -> Result<Rows, DatabaseError> {
        self.read_intact(&table.name, read).await
    }

    async fn run_unmanaged(
        &mut self,
        table: &Table,
        packet: Packet,
        statement: Unmanaged,
    ) -> Result<Vec<String>, DatabaseError> {
        let restore = Arc::clone(&self.store.inner.restore);
        let writes = self.writes();
        let mut lent = self.open(packet).await?;
        let ran = lent
            .run(&restore, writes, async move |client: &Object, budget: &mut Budget| {
                let prepared = client.prepared(&statement.text).await?;
                let ran = async {
                    let rows = client.query_raw(&prepared, statement.parameters.into_iter().map(JsonParameter)).await?;
                    budget.collect(rows).await
                };
                // Its parameters may be of types that the columns have no longer.
                ran.await.inspect_err(|_| client.unprepare(&statement.text))
            })
            .await;
        let rows = self.settle(lent, ran)?;
        let project = Arc::clone(&self.store.inner.project);
        self.check_intact(&[(&project.name, &table.name)]).await?;
        rows.texts()
    }

    fn scans(&self, table: &Table) {
        self.store.warn_of_scan(table);
    }

    fn birth(&mut self) -> Birth {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Birth { id: Uuid::now_v7(), now_ms: since.map_or(0.0, |since| since.as_secs_f64() * 1000.0) }
    }
}
