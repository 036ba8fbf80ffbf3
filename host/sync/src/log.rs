//! The log of syncs, written on a connection of its own: a step that is rolled back does not take its record with it.

use std::time::Duration;

use serde_json::json;

use crate::SyncError;
use crate::apply::AppliedBy;
use crate::connect::Session;
use crate::plan::Plan;

/// The record of one run.
#[derive(Debug)]
pub(crate) struct Log<'a> {
    session: &'a Session,
    id: i64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Done,
    Nothing,
    Failed,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Nothing => "nothing",
            Self::Failed => "failed",
        }
    }
}

fn failed() -> impl FnOnce(tokio_postgres::Error) -> SyncError {
    SyncError::statement("write the sync log")
}

impl<'a> Log<'a> {
    /// Begins a record. Whoever has the project's lock is the only one that runs: earlier ones that never ended were
    /// killed.
    pub(crate) async fn start(session: &'a Session, plan: &Plan, applied_by: &AppliedBy) -> Result<Self, SyncError> {
        session
            .execute(
                "update convoke.sync_log set outcome = 'abandoned', finished = clock_timestamp() \
                 where project = $1 and outcome = 'running'",
                &[&plan.project],
            )
            .await
            .map_err(failed())?;
        let user = session.user().await?;
        let actor = match &applied_by.os_user {
            Some(os_user) => format!("{user} ({os_user})"),
            None => user,
        };
        let text = serde_json::to_string(plan).unwrap_or_default();
        let row = session
            .query_one(
                "insert into convoke.sync_log (project, actor, host, tool, base, target, hash, plan) \
                 values ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb) returning id",
                &[
                    &plan.project,
                    &actor,
                    &applied_by.host,
                    &applied_by.tool,
                    &plan.base,
                    &plan.target,
                    &plan.hash,
                    &text,
                ],
            )
            .await
            .map_err(failed())?;
        Ok(Self { session, id: row.get(0) })
    }

    /// Notes how a step went.
    pub(crate) async fn step(&self, state: &str, elapsed: Duration) -> Result<(), SyncError> {
        let entry =
            json!([{ "state": state, "ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX) }]).to_string();
        self.session
            .execute("update convoke.sync_log set steps = steps || $2::text::jsonb where id = $1", &[&self.id, &entry])
            .await
            .map(|_| ())
            .map_err(failed())
    }

    pub(crate) async fn finish(&self, outcome: Outcome, error: Option<&str>) -> Result<(), SyncError> {
        self.session
            .execute(
                "update convoke.sync_log set finished = clock_timestamp(), outcome = $2, error = $3 where id = $1",
                &[&self.id, &outcome.as_str(), &error],
            )
            .await
            .map(|_| ())
            .map_err(failed())
    }
}
