//! The schema `convoke`, which all projects of a database share, moved from form to form by numbered migrations.
//!
//! Each file in `migrations/` is one step, applied once a database, in the order of the numbers, each in a transaction
//! with its record in `convoke.migrations`. A run that is killed anywhere is taken up by the next. What belongs to one
//! project (its tables, its role) is not here: plans bring that about.
//!
//! A file is never changed once it has landed; `migrations/tests/digests` holds it to that. Hosts of the version before
//! go on running while a migration is applied, so it only adds, or changes what they do not notice.

use std::time::Duration;

use convoke_sql::quote_literal;
use tokio_postgres::error::SqlState;

use crate::SyncError;
use crate::connect::Session;
use crate::hash::sha256;

/// One step of the schema `convoke`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    /// The file's name, without its ending: the number in four digits, and what it is about.
    pub(crate) file: &'static str,
    pub(crate) sql: &'static str,
}

macro_rules! migrations {
    ($($file:literal),* $(,)?) => {
        &[$(Migration { file: $file, sql: include_str!(concat!("migrations/", $file, ".sql")) }),*]
    };
}

/// All that there are. The first has number 1, and none is left out.
pub(crate) const ALL: &[Migration] =
    migrations!["0001_system_schema", "0002_results_of_changes", "0003_receipts", "0004_bytes_of_receipts"];

impl Migration {
    pub(crate) fn digest(&self) -> String {
        sha256(self.sql.as_bytes())
    }
}

/// What a database says of one that was applied to it.
#[derive(Debug)]
struct Applied {
    number: i32,
    file: String,
    digest: String,
    by: String,
}

/// The number of a migration, from where it stands in the list.
fn number(at: usize) -> i32 {
    i32::try_from(at + 1).unwrap_or(i32::MAX)
}

/// What of a list the database lacks: its end, or nothing.
///
/// # Errors
/// When the database has one that the list has not, or another one of the same number.
pub(crate) async fn pending<'a>(session: &Session, all: &'a [Migration]) -> Result<&'a [Migration], SyncError> {
    let applied = applied(session).await?;
    let Some(last) = applied.last() else { return Ok(all) };
    if number(all.len()) <= last.number {
        return Err(SyncError::Newer { found: last.number, by: last.by.clone(), known: all.len() });
    }
    for (at, migration) in all.iter().enumerate().take_while(|(at, _)| number(*at) <= last.number) {
        let Some(found) = applied.iter().find(|found| found.number == number(at)) else {
            return Err(SyncError::MissingMigration { missing: migration.file, later: last.number });
        };
        if found.file != migration.file || found.digest != migration.digest() {
            let Applied { number, file, by, .. } = found;
            let (found, by) = (file.clone(), by.clone());
            return Err(SyncError::OtherMigration { number: *number, found, known: migration.file, by });
        }
    }
    Ok(all.get(usize::try_from(last.number).unwrap_or(0)..).unwrap_or_default())
}

async fn applied(session: &Session) -> Result<Vec<Applied>, SyncError> {
    let failed = || SyncError::statement("read which migrations the schema `convoke` has");
    let known = session.query_one("select to_regclass('convoke.migrations') is not null", &[]);
    if !known.await.map_err(failed())?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = session.query("select number, file, digest, applied_by from convoke.migrations order by number", &[]);
    let rows = rows.await.map_err(failed())?;
    let applied = |row: &tokio_postgres::Row| Applied {
        number: row.get(0),
        file: row.get(1),
        digest: row.get(2),
        by: row.get(3),
    };
    Ok(rows.iter().map(applied).collect())
}

/// Applies what the database lacks of a list. Whoever calls has the turn of the database. Gives how many were applied.
///
/// # Errors
/// As [`pending`]; when Postgres refuses one, which is then undone, and those before it stay.
pub(crate) async fn migrate(session: &Session, user: &str, all: &[Migration]) -> Result<usize, SyncError> {
    let pending = pending(session, all).await?;
    for (at, migration) in pending.iter().enumerate() {
        let number = number(all.len() - pending.len() + at);
        apply(session, number, migration).await.map_err(|source| match source.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                SyncError::Bootstrap { user: user.to_owned(), source }
            }
            _ => SyncError::Migration { file: migration.file, source },
        })?;
        tracing::info!(migration = migration.file, "the schema `convoke` was moved on");
    }
    Ok(pending.len())
}

/// Calls of the hosts that run stand behind a migration that waits for a table's lock: it does so for a short time, steps
/// aside, and tries again.
async fn apply(session: &Session, number: i32, migration: &Migration) -> Result<(), tokio_postgres::Error> {
    const LOCK_WAIT_MS: u32 = 1_000;
    const TRIES: u32 = 30;
    const PAUSE: Duration = Duration::from_millis(500);
    let sql = statements(number, migration);
    session.run(&format!("set lock_timeout = {LOCK_WAIT_MS}")).await?;
    let mut tries = 1;
    while let Err(error) = session.run(&sql).await {
        let again = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
        if tries == TRIES || !error.code().is_some_and(|code| again.contains(code)) {
            return Err(error);
        }
        tries += 1;
        tokio::time::sleep(PAUSE).await;
    }
    session.run("set lock_timeout = 0").await
}

/// The migration with its record. Sent as one batch, it is one transaction.
fn statements(number: i32, migration: &Migration) -> String {
    let Migration { file, sql } = migration;
    let digest = migration.digest();
    let by = quote_literal(concat!("convoke ", env!("CARGO_PKG_VERSION")));
    format!(
        "create schema if not exists convoke;
create table if not exists convoke.migrations (
  number integer primary key,
  file text not null,
  digest text not null,
  applied_at timestamptz not null default clock_timestamp(),
  applied_by text not null
);
{sql}
;
insert into convoke.migrations (number, file, digest, applied_by) values ({number}, '{file}', '{digest}', {by})"
    )
}

#[cfg(test)]
mod tests;
