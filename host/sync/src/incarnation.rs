//! From when a database counts.

use convoke_postgres::Config;
use tokio_postgres::types::PgLsn;

use crate::SyncError;
use crate::connect::Session;

/// From when this database counts the timestamps that clients see: nanoseconds since 1970, and the position of the log at
/// that moment. `system` names the cluster and its timeline; another one than before counts anew, from now.
///
/// # Errors
/// When Postgres cannot be reached or refuses.
pub async fn incarnation(admin: &Config, system: &str) -> Result<(u64, u64), SyncError> {
    let session = Session::open(admin).await?;
    let failed = || SyncError::statement("tell from when it counts");
    let statement = "select nanoseconds, lsn from convoke.count_from($1)";
    let row = session.query_one(statement, &[&system]).await.map_err(failed())?;
    let nanoseconds: i64 = row.try_get(0).map_err(failed())?;
    let lsn: PgLsn = row.try_get(1).map_err(failed())?;
    Ok((nanoseconds.unsigned_abs(), lsn.into()))
}
