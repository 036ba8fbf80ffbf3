//! A look at a project's database that changes nothing: for `convoke doctor`.

use convoke_postgres::Config;

use crate::catalog::Live;
use crate::connect::Session;
use crate::drift::{Drift, drift};
use crate::registry::Registry;
use crate::{SyncError, bootstrap, error, role};

/// How a project's database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Whether a sync of the project has been here.
    pub synced: bool,
    /// The project's role, where it has one.
    pub role: Option<String>,
    /// What is wrong with the role, each in a clause.
    pub role_faults: Vec<String>,
    pub drift: Vec<Drift>,
}

/// Looks at the role and at what was changed by hand.
///
/// # Errors
/// When Postgres cannot be reached or asked.
pub async fn inspect(admin: &Config, project: &str) -> Result<Inspection, SyncError> {
    bootstrap::check_name(project)?;
    let session = Session::open(admin).await?;
    let registry = Registry::read(&session, project).await?;
    let live = Live::read(&session, project, registry.role.as_deref().unwrap_or_default()).await?;
    if !registry.bootstrapped || live.schema.is_none() {
        return Ok(Inspection { synced: false, role: None, role_faults: Vec::new(), drift: Vec::new() });
    }
    let role_faults = match &registry.role {
        Some(role) => faults(&session, admin, project, role).await?,
        None => Vec::new(),
    };
    Ok(Inspection { synced: true, role: registry.role, role_faults, drift: drift(admin, project).await? })
}

async fn faults(session: &Session, admin: &Config, project: &str, role: &str) -> Result<Vec<String>, SyncError> {
    const FAULTS: &str = "\
select array_remove(array[
    case when r.rolsuper then 'is a superuser' end,
    case when r.rolcreatedb then 'may make databases' end,
    case when r.rolcreaterole then 'may make roles' end,
    case when r.rolbypassrls then 'passes by row security' end,
    case when r.rolreplication then 'may read the log of changes' end,
    case when exists (select from pg_auth_members m where m.member = r.oid) then 'is a member of another role' end,
    case when has_schema_privilege(r.oid, n.oid, 'create') then 'may make tables' end,
    case when not has_schema_privilege(r.oid, n.oid, 'usage') then 'does not reach the tables' end,
    case when has_database_privilege(r.oid, current_database(), 'temporary') then 'may make temporary tables' end
  ], null)
from pg_roles r, pg_namespace n where r.rolname = $1 and n.nspname = $2";
    let failed = || SyncError::statement(format!("describe the role `{role}`"));
    let row = session.query_opt(FAULTS, &[&role, &project]).await.map_err(failed())?;
    let Some(row) = row else { return Ok(vec!["is gone".to_owned()]) };
    let mut faults: Vec<String> = row.get(0);
    // The key is its owner's; who may not read it cannot try.
    if let Ok(row) = session.query_one("select key from convoke.keys where name = 'role'", &[]).await {
        let mut app = admin.clone();
        app.user(role).password(role::password(row.get(0), project));
        if let Err(error) = app.connect().await {
            faults.push(format!("cannot log in: {}", error::chain(&error)));
        }
    }
    Ok(faults)
}
