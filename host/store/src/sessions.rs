//! Sessions of Postgres in a pool, each with the statements that were prepared in it.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::{ClientWrapper, Transaction};
use tokio_postgres::{Error, IsolationLevel, Statement};

pub(crate) type Pool = managed::Pool<Sessions>;
pub(crate) type Object = managed::Object<Sessions>;
pub(crate) type PoolError = managed::PoolError<Error>;
pub(crate) type Hook = managed::Hook<Sessions>;
pub(crate) type HookError = managed::HookError<Error>;

/// Statements that a session keeps prepared. Each takes some 10 to 100 KB of the server's memory, plan and all.
const STATEMENTS_MAX: usize = 256;

/// How long a session is used that took no writes when it began: the server may be a primary by now, or open to them.
const READ_ONLY_AGE_MAX: Duration = Duration::from_secs(1);

/// Opens sessions.
#[derive(Debug)]
pub(crate) struct Sessions(pub(crate) deadpool_postgres::Manager);

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    client: ClientWrapper,
    statements: Mutex<Prepared<Statement>>,
    /// Whether its server took no writes when it began: a standby, or a database that is closed to them.
    is_read_only: bool,
}

/// What was prepared, by text; of many, those that were used last. Dropping a statement closes it in the session too.
#[derive(Debug)]
struct Prepared<T> {
    by_text: HashMap<Arc<str>, (T, u64)>,
    uses: u64,
}

impl managed::Manager for Sessions {
    type Type = Session;
    type Error = Error;

    async fn create(&self) -> Result<Session, Error> {
        Ok(Session { client: self.0.create().await?, statements: Mutex::default(), is_read_only: false })
    }

    async fn recycle(&self, session: &mut Session, metrics: &Metrics) -> RecycleResult<Error> {
        if session.is_read_only && metrics.age() > READ_ONLY_AGE_MAX {
            return Err(RecycleError::message("the database may take writes again"));
        }
        self.0.recycle(&mut session.client, metrics).await
    }

    fn detach(&self, session: &mut Session) {
        self.0.detach(&mut session.client);
    }
}

impl Session {
    /// The statement of this text, prepared now or before.
    pub(crate) async fn prepared(&self, text: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements().get(text) {
            return Ok(statement);
        }
        let statement = self.client.prepare(text).await?;
        self.statements().insert(text, statement.clone());
        Ok(statement)
    }

    /// Drops a prepared statement, whose parameters may be of types that the tables no longer have.
    pub(crate) fn unprepare(&self, text: &str) {
        self.statements().by_text.remove(text);
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Begins a transaction of the host's own work, which may take longer than a call.
    pub(crate) async fn begin_work(&mut self) -> Result<Transaction<'_>, Error> {
        let is_read_only = self.is_read_only;
        let begun = self.client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
        let transaction = begun.read_only(is_read_only).start().await?;
        transaction.batch_execute("set local statement_timeout = 0").await?;
        Ok(transaction)
    }

    pub(crate) fn set_read_only(&mut self, is_read_only: bool) {
        self.is_read_only = is_read_only;
    }

    fn statements(&self) -> std::sync::MutexGuard<'_, Prepared<Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Prepared<T> {
    fn get(&mut self, text: &str) -> Option<T> {
        self.uses += 1;
        let (statement, used) = self.by_text.get_mut(text)?;
        *used = self.uses;
        Some(statement.clone())
    }

    fn insert(&mut self, text: &str, statement: T) {
        if self.by_text.len() >= STATEMENTS_MAX {
            let oldest = self.by_text.iter().min_by_key(|(_, (_, used))| *used).map(|(text, _)| Arc::clone(text));
            oldest.and_then(|text| self.by_text.remove(&text));
        }
        self.by_text.insert(text.into(), (statement, self.uses));
    }
}

impl<T> Default for Prepared<T> {
    fn default() -> Self {
        Self { by_text: HashMap::new(), uses: 0 }
    }
}

impl Deref for Session {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_were_not_used_for_long_go_first() {
        let mut prepared = Prepared::default();
        for number in 0..STATEMENTS_MAX * 3 {
            assert_eq!(prepared.get("often").is_some(), number > 0);
            if number == 0 {
                prepared.insert("often", 0);
            }
            let text = number.to_string();
            assert_eq!(prepared.get(&text), None);
            prepared.insert(&text, number);
            assert!(prepared.by_text.len() <= STATEMENTS_MAX);
        }
        assert_eq!(prepared.get("often"), Some(0));
        assert_eq!(prepared.get("700"), Some(700));
        assert_eq!(prepared.get("3"), None);
    }
}
