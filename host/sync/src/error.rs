//! Why a sync could not be done.

use std::time::Duration;

use convoke_postgres::{ConnectError, Pooler};
use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::plan::Plan;
use crate::problem::Problem;

/// A sync that did not happen, or not to its end. What was applied before stays, and the next run goes on from there.
#[derive(Debug, Error)]
pub enum SyncError {
    #[error("cannot reach Postgres")]
    Unreachable(#[source] ConnectError),
    #[error("Postgres {found} is too old: Convoke needs 15 or newer")]
    PostgresTooOld { found: String },
    #[error("the connection leads to a pooler that hands out connections by transaction: a sync needs one of its own")]
    Pooler(Option<Pooler>),
    #[error("`{0}` cannot be a project's name: it belongs to Postgres or to Convoke")]
    Reserved(String),
    #[error("the schema `convoke` of this database cannot be made or changed by the user `{user}`")]
    Bootstrap {
        user: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("the database is read-only: {0}")]
    ReadOnly(ReadOnly),
    #[error(
        "the schema `convoke` of this database is newer than this program: it has migration {found}, applied by {by}, \
         and this program knows {known}"
    )]
    Newer { found: i32, by: String, known: usize },
    #[error(
        "the schema `convoke` of this database went another way than this program's: migration {number} is `{found}`, \
         applied by {by}, and this program's is `{known}`{}",
        if found == known { " with other content" } else { "" }
    )]
    OtherMigration { number: i32, found: String, known: &'static str, by: String },
    #[error("the schema `convoke` of this database has migration {later}, and not the earlier one `{missing}`")]
    MissingMigration { missing: &'static str, later: i32 },
    #[error("migration `{file}` of the schema `convoke` failed and was undone")]
    Migration {
        file: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("`convoke.keys` lacks a key, or one has not 32 bytes")]
    Key,
    #[error("Postgres refused to {what}")]
    Statement {
        what: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("{}", first_problem(.0))]
    Problems(Box<Plan>),
    #[error("the plan needs a decision: {}", .0.first_decision())]
    Decision(Box<Plan>),
    #[error(
        "the database is not as it was when the plan was made: the plan is for {}, the database is at {}",
        short(base),
        short(live)
    )]
    Stale { base: String, live: String },
    #[error("the plan is for another schema than the one that is given")]
    OtherSchema,
    #[error(
        "table `{table}` is held by others: {} tries for its lock failed, no longer than {} ms each, while:\n  {}\nthe statement was: {sql}",
        tries, wait.as_millis(), holders.join("\n  ")
    )]
    Locked { table: String, sql: String, tries: u32, wait: Duration, holders: Vec<String> },
    #[error("step {position} of {total} failed: {problem}")]
    Step {
        position: usize,
        total: usize,
        problem: Box<Problem>,
        #[source]
        source: Option<tokio_postgres::Error>,
    },
    #[error("the sync was stopped after {done} of {total} steps")]
    Stopped { done: usize, total: usize },
}

/// Why a database takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadOnly {
    #[error("the server is a standby, which follows another one")]
    Standby,
    #[error("`default_transaction_read_only` is on")]
    Setting,
}

impl SyncError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreachable(error) if error.hint().is_some() => return error.hint(),
            Self::Unreachable(_) => "start the server, and check host, port, user and password",
            Self::Pooler(Some(pooler)) => pooler.advice(),
            Self::Pooler(None) => "name the address of Postgres itself, not the pooler's",
            Self::PostgresTooOld { .. } => "use a newer server",
            Self::Reserved(_) => "give the project another name in `convoke.toml`",
            Self::Bootstrap { .. } => {
                "connect as the database's owner, or as the role that owns the schema `convoke`; a new database needs \
                 `grant create on database … to …`"
            }
            Self::Decision(_) => "look at it with `convoke sync --dry-run`, then run `convoke sync` with what it needs",
            Self::Stale { .. } | Self::OtherSchema => {
                "plan again: run `convoke sync --dry-run` and look at what is new"
            }
            Self::Locked { .. } => {
                "wait until they are done, or end them with `select pg_terminate_backend(PID)`, then run the sync again"
            }
            Self::ReadOnly(ReadOnly::Standby) => "name the address of the primary",
            Self::ReadOnly(ReadOnly::Setting) => {
                "set it to `off` for the database, the user or the server; some providers turn it on while the disk is full"
            }
            Self::Newer { .. } => "use the program that moved it on, or a newer one",
            Self::OtherMigration { .. } => {
                "use the program that applied it; a migration is never changed, so this one or that one was not released"
            }
            Self::MissingMigration { .. } => "restore the table `convoke.migrations` from a backup",
            Self::Migration { source, .. } if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                "others hold what it changes for long: wait until they are done, then start again"
            }
            Self::Key => "restore the table `convoke.keys` from a backup",
            Self::Stopped { .. } => "run the sync again: it goes on where it stopped",
            Self::Statement { .. } | Self::Problems(_) | Self::Step { .. } | Self::Migration { .. } => return None,
        };
        Some(hint.to_owned())
    }

    /// The plan that could not be applied.
    pub fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Problems(plan) | Self::Decision(plan) => Some(plan),
            _ => None,
        }
    }

    pub(crate) fn statement(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let what = what.into();
        move |source| Self::Statement { what, source }
    }
}

fn first_problem(plan: &Plan) -> String {
    let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
    problems.join("\n")
}

/// Enough of a digest to tell two apart.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
