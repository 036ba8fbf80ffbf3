//! What a host does when it is given components: the sync that nobody has to look at.

use convoke_model::Schema;
use convoke_postgres::Config;

use crate::apply::{ApplyOptions, Progress, apply};
use crate::plan::Plan;
use crate::planner::{PlanOptions, plan};
use crate::registry::current;
use crate::{SyncError, planner};

/// Brings the database to a schema where that only adds, and fills in the tables' numbers. One query where the last sync
/// was to this schema. Gives the plan that was applied, if there was anything to do.
///
/// # Errors
/// When there is anything to decide or in the way: the error carries the plan, and nothing has changed. When a step
/// fails.
pub async fn advance(
    admin: &Config,
    project: &str,
    schema: &mut Schema,
    options: &ApplyOptions,
    watch: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Option<Plan>, SyncError> {
    /// Each time, somebody else was quicker; that many are not at work by chance.
    const TRIES: usize = 5;
    if let Some(numbers) = current(admin, project, schema).await? {
        numbers.fill(schema);
        return Ok(None);
    }
    let mut tries = 0;
    loop {
        let plan = plan(admin, project, schema, &PlanOptions::default()).await?;
        planner::check_additive(&plan)?;
        tries += 1;
        match apply(admin, &plan, schema, options, watch).await {
            Ok(applied) => {
                applied.numbers.fill(schema);
                return Ok((applied.ran > 0).then_some(plan));
            }
            Err(SyncError::Stale { .. }) if tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}
