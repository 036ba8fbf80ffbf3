//! Doing what a plan says, one step after the other, so that a run that is killed anywhere is taken up by the next.

use std::time::{Duration, Instant};

use convoke_model::Schema;
use convoke_postgres::Config;
use convoke_sql::quote_identifier;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::catalog::Live;
use crate::connect::Session;
use crate::declared::Kind;
use crate::log::{Log, Outcome};
use crate::plan::{OrphanKind, Plan, Step, Work};
use crate::planner::{self, View};
use crate::problem::{Problem, shown};
use crate::registry::{self, Numbers, Registry};
use crate::{SyncError, error, hash, holders, precheck};

/// The advisory lock of the syncs of a project, whose name is the first parameter.
pub const TURN: &str = "hashtextextended('convoke sync ' || $1, 0)";

/// Who runs a sync, for the log.
#[derive(Debug, Clone, Default)]
pub struct AppliedBy {
    /// The user of the machine.
    pub os_user: Option<String>,
    /// The machine.
    pub host: String,
    /// The program and its version.
    pub tool: String,
}

/// How a plan is applied.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    pub applied_by: AppliedBy,
    /// How long one try may stand in the queue for a table's lock: as long as that, writers wait behind it.
    pub lock_wait: Duration,
    /// Tries, with pauses between them that grow to three seconds.
    pub lock_tries: u32,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self { applied_by: AppliedBy::default(), lock_wait: Duration::from_millis(500), lock_tries: 30 }
    }
}

/// How a run goes, for whoever watches.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Another sync of the project is running.
    Waiting,
    /// A step begins; positions count from one.
    Step { position: usize, total: usize, step: &'a Step },
    /// Somebody holds the table.
    Locked { step: &'a Step, attempt: u32, holders: &'a [String] },
    /// Rows that a step in pages has written so far.
    Rows { step: &'a Step, rows: u64 },
    /// A step is done.
    Done { position: usize, total: usize, elapsed: Duration },
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Steps that were run.
    pub ran: usize,
    /// Whether another sync was waited for.
    pub waited: bool,
    pub numbers: Numbers,
}

/// Told how a run goes.
type Watch<'a> = &'a mut (dyn FnMut(Progress<'_>) + Send);

/// Applies a plan to the database that it was made for. One run a project at a time; a second one waits, and does nothing
/// where the first has done it all.
///
/// # Errors
/// When the plan has problems or is for another state of the database, when a lock cannot be had, when a step fails.
pub async fn apply(
    admin: &Config,
    plan: &Plan,
    schema: &Schema,
    options: &ApplyOptions,
    watch: Watch<'_>,
) -> Result<Applied, SyncError> {
    if hash::target(schema) != plan.target {
        return Err(SyncError::OtherSchema);
    }
    if !plan.problems.is_empty() {
        return Err(SyncError::Problems(Box::new(plan.clone())));
    }
    let session = Session::open(admin).await?;
    session.check_writable().await?;
    let waited = lock(&session, &plan.project, watch).await?;
    let log_session = Session::open(admin).await?;
    let registry = Registry::read(&session, &plan.project).await?;
    let live = Live::read(&session, &plan.project, registry.role.as_deref().unwrap_or_default()).await?;
    let mut plan = plan.clone();
    if live.fingerprint != plan.base {
        let now = planner::make(&session, &plan.project, schema, &plan.allow_drop).await?;
        let is_done = now.steps.is_empty() && now.problems.iter().all(|problem| problem.id == "ALLOW_DROP_UNKNOWN");
        if !is_done {
            return Err(SyncError::Stale { base: plan.base, live: live.fingerprint });
        }
        plan = now;
    }
    let log = Log::start(&log_session, &plan, &options.applied_by).await?;
    let run = Run { session: &session, log: &log, plan: &plan, schema, options };
    let result = run.all(watch).await;
    match &result {
        Ok(()) if plan.steps.is_empty() => log.finish(Outcome::Nothing, None).await?,
        Ok(()) => log.finish(Outcome::Done, None).await?,
        Err(error) => log.finish(Outcome::Failed, Some(&error::chain(error))).await?,
    }
    result?;
    let numbers = Registry::read(&session, &plan.project).await?.numbers;
    Ok(Applied { ran: plan.steps.len(), waited, numbers })
}

/// The project's turn. It is asked for again and again: a session that stood waiting would have a snapshot, and the index
/// build of the other run would wait for that.
async fn lock(session: &Session, project: &str, watch: Watch<'_>) -> Result<bool, SyncError> {
    const POLL: Duration = Duration::from_millis(100);
    let mut waited = false;
    loop {
        let row = session
            .query_one(&format!("select pg_try_advisory_lock({TURN})"), &[&project])
            .await
            .map_err(SyncError::statement("take the project's turn"))?;
        if row.get(0) {
            return Ok(waited);
        }
        if !waited {
            watch(Progress::Waiting);
            waited = true;
        }
        tokio::time::sleep(POLL).await;
    }
}

struct Run<'a> {
    session: &'a Session,
    log: &'a Log<'a>,
    plan: &'a Plan,
    schema: &'a Schema,
    options: &'a ApplyOptions,
}

impl Run<'_> {
    async fn all(&self, watch: Watch<'_>) -> Result<(), SyncError> {
        registry::declare(self.session, &self.plan.project, self.schema).await?;
        let total = self.plan.steps.len();
        for (at, step) in self.plan.steps.iter().enumerate() {
            let position = at + 1;
            watch(Progress::Step { position, total, step });
            let start = Instant::now();
            let result = self.step(step, watch).await;
            let elapsed = start.elapsed();
            self.log.step(if result.is_ok() { "done" } else { "failed" }, elapsed).await?;
            match result {
                Ok(()) => watch(Progress::Done { position, total, elapsed }),
                Err(Failed::Locked(error)) => return Err(error),
                Err(Failed::Statement(source)) => {
                    let problem = Box::new(self.explain(step, &source).await);
                    return Err(SyncError::Step { position, total, problem, source: Some(source) });
                }
            }
        }
        registry::settle(self.session, &self.plan.project, &self.gone()).await
    }

    /// What the registry need not know any longer: what was dropped, and fields that no document has.
    fn gone(&self) -> Vec<(String, Kind, String)> {
        let mut gone = Vec::new();
        for orphan in self.plan.orphans.iter().filter(|orphan| orphan.dropped) {
            let name = orphan.name.clone().unwrap_or_default();
            match orphan.kind {
                OrphanKind::Table => gone.push((orphan.table.clone(), Kind::Table, orphan.table.clone())),
                OrphanKind::Field => gone.push((orphan.table.clone(), Kind::Field, name)),
                OrphanKind::Index => {
                    for (kind, index) in [
                        (Kind::Index, convoke_sql::index_name(&orphan.table, &name)),
                        (Kind::Key, convoke_sql::key_index_name(&orphan.table, &name)),
                    ] {
                        gone.push((orphan.table.clone(), kind, index));
                    }
                }
            }
        }
        gone
    }

    async fn step(&self, step: &Step, watch: Watch<'_>) -> Result<(), Failed> {
        match &step.work {
            Work::Statement => self.patiently(step, watch).await,
            // It waits for other transactions under a lock that lets readers and writers through.
            Work::Concurrently { index } => {
                self.session.run("set lock_timeout = 0").await?;
                let result = self.session.run(&step.sql).await;
                if let (Err(_), Some(index)) = (&result, index) {
                    self.clean_up(index).await;
                }
                Ok(result?)
            }
            Work::Batches => self.batches(step, watch).await,
        }
    }

    /// Stands in a table's queue for a short time, steps aside, and tries again.
    async fn patiently(&self, step: &Step, watch: Watch<'_>) -> Result<(), Failed> {
        const PAUSE_MAX: Duration = Duration::from_secs(3);
        let wait = self.options.lock_wait;
        self.session.run(&format!("set lock_timeout = {}", wait.as_millis().max(1))).await?;
        let mut pause = Duration::from_millis(50);
        let tries = self.options.lock_tries.max(1);
        for attempt in 1.. {
            let Err(error) = self.session.run(&step.sql).await else { return Ok(()) };
            let again = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
            if !error.code().is_some_and(|code| again.contains(code)) {
                return Err(Failed::Statement(error));
            }
            let table = step.table.clone().unwrap_or_default();
            let holders = holders::of(self.session, &self.plan.project, &table).await;
            if attempt >= tries {
                let holders =
                    if holders.is_empty() { vec!["nobody that is there any more".to_owned()] } else { holders };
                let sql = step.sql.clone();
                return Err(Failed::Locked(SyncError::Locked { table, sql, tries, wait, holders }));
            }
            watch(Progress::Locked { step, attempt, holders: &holders });
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }

    /// One page of rows after the other, each a transaction of its own.
    async fn batches(&self, step: &Step, watch: Watch<'_>) -> Result<(), Failed> {
        self.session.run("set lock_timeout = 0").await?;
        let statement = self.session.prepare(&step.sql).await?;
        let mut last = Uuid::nil();
        let mut rows = 0;
        loop {
            let page = self.session.query(&statement, &[&last]).await?;
            let Some(first) = page.first() else { return Ok(()) };
            last = first.get(0);
            rows += page.len() as u64;
            watch(Progress::Rows { step, rows });
        }
    }

    /// A build that fails leaves an index that costs every write and serves no read.
    async fn clean_up(&self, index: &str) {
        let (schema, name) = (quote_identifier(&self.plan.project), quote_identifier(index));
        if let Err(error) = self.session.run(&format!("drop index concurrently if exists {schema}.{name}")).await {
            // The next run finds it invalid and removes it.
            tracing::warn!(%error, index, "a failed index could not be removed");
        }
    }

    /// Why a step failed, with documents that show it where they can be found.
    async fn explain(&self, step: &Step, error: &tokio_postgres::Error) -> Problem {
        let by_rows = [SqlState::UNIQUE_VIOLATION, SqlState::CHECK_VIOLATION, SqlState::PROGRAM_LIMIT_EXCEEDED];
        if error.code().is_some_and(|code| by_rows.contains(code))
            && let Some(problem) = self.look_again(step).await
        {
            return problem;
        }
        let problem = words(step, error);
        match &step.table {
            Some(table) => problem.table(table),
            None => problem,
        }
    }

    /// Rows that came after the plan.
    async fn look_again(&self, step: &Step) -> Option<Problem> {
        let project = &self.plan.project;
        let registry = Registry::read(self.session, project).await.ok()?;
        let live = Live::read(self.session, project, registry.role.as_deref().unwrap_or_default()).await.ok()?;
        let view = View { session: self.session, project, schema: self.schema, live: &live, registry: &registry };
        precheck::problems(&view, std::slice::from_ref(step)).await.ok()?.into_iter().next()
    }
}

enum Failed {
    Statement(tokio_postgres::Error),
    Locked(SyncError),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(error)
    }
}

fn words(step: &Step, error: &tokio_postgres::Error) -> Problem {
    let Some(server) = error.as_db_error() else {
        return Problem::new(
            "CONNECTION_LOST",
            format!("the connection broke while it made the {}", step.object),
            "run the sync again: it goes on where it stopped",
        );
    };
    let detail = server.detail().map(|detail| format!(" ({})", shown(detail))).unwrap_or_default();
    let said = format!("the {}: Postgres says: {}{detail}", step.object, server.message());
    let (id, fix) = match server.code().code() {
        "42501" => ("NOT_ALLOWED", "connect as the owner of the database".to_owned()),
        "2BP01" => {
            ("IN_USE_BY_OTHERS", "drop what depends on it first; Convoke drops nothing along with it".to_owned())
        }
        "53100" => ("DISK_FULL", "make room on the server's disk, then run the sync again".to_owned()),
        "57014" => ("CANCELLED", "run the sync again: it goes on where it stopped".to_owned()),
        "23505" => ("UNIQUE_DUPLICATES", "make the values different, then run the sync again".to_owned()),
        "23514" => ("CHECK_VIOLATED", "correct the documents, then run the sync again".to_owned()),
        "54000" => ("INDEX_TOO_LARGE", "shorten the values, then run the sync again".to_owned()),
        code => ("STATEMENT_FAILED", format!("the statement was `{}`, the code {code}", shown(&step.sql))),
    };
    Problem::new(id, said, fix)
}
