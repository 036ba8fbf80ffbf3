//! Whether a connection is one session of Postgres, as a lock that is held from one transaction to the next needs it.

use std::time::Duration;

use convoke_postgres::Config;
use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::SyncError;

/// A pooler of one connection lets the second of ours wait for the first.
const SECOND_MAX: Duration = Duration::from_secs(2);

/// Refuses a pooler that hands out connections by transaction, such as PgBouncer.
///
/// Two transactions at a time need two connections of the pooler's. It then has both to give to whoever comes next, and
/// takes the one that came back last or the one that came back first: of two further statements, one at least runs
/// elsewhere than before.
pub(crate) async fn check(client: &Client, admin: &Config) -> Result<(), SyncError> {
    let failed = || SyncError::statement("tell which of its processes it is");
    let (other, connection) = admin.connect().await.map_err(SyncError::Unreachable)?;
    let connection = tokio::spawn(connection);
    let first = process(client, "begin; select pg_backend_pid()").await.map_err(failed())?;
    let second = timeout(SECOND_MAX, process(&other, "begin; select pg_backend_pid()")).await;
    client.batch_execute("commit").await.map_err(failed())?;
    if let Ok(second) = second {
        second.map_err(failed())?;
        other.batch_execute("commit").await.map_err(failed())?;
    }
    let mut kept = true;
    for _ in 0..2 {
        kept &= process(client, "select pg_backend_pid()").await.map_err(failed())? == first;
    }
    connection.abort();
    if kept { Ok(()) } else { Err(SyncError::Pooler(None)) }
}

/// Without preparing: a prepared statement belongs to a session too.
async fn process(client: &Client, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}
