//! Making a database ready for a project: what all its projects share, the schema `convoke` and the keys, then what is the
//! project's own, its role.

use std::fmt;

use convoke_model::CursorKey;
use convoke_postgres::Config;

use crate::connect::Session;
use crate::{SyncError, migrations, role, session};

use convoke_sql::quote_identifier;

/// Hosts that start at once take turns; the number is Convoke's alone ("convoke" in ASCII).
const LOCK: i64 = 27_991_469_889_448_805;

/// What a host runs a project with. Made once a start.
#[derive(Debug, Clone)]
pub struct Provisioned {
    /// How functions reach the database: as the project's role, or as the given user where there can be no role.
    pub app: Config,
    /// The project's role, where it has one.
    pub role: Option<String>,
    pub keys: Keys,
    /// What is less than it should be.
    pub warnings: Vec<Warning>,
}

/// Secrets of the database that the host uses.
#[derive(Clone)]
pub struct Keys {
    /// Signs the cursors of pages.
    pub cursor: CursorKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// A wall between projects, or between functions and the tables' shape, that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Functions run as the given user.
    MayNotCreateRoles { user: String, role: String },
    /// Functions run as the given user.
    CannotLogIn { role: String, cause: String },
    /// Functions run as the given user.
    NameTaken { role: String },
    /// Everybody may make temporary tables, or tables in the schema `public`, and so may functions.
    PublicMayCreate { what: String, fix: String },
}

impl Warning {
    /// Stable, for programs.
    pub fn id(&self) -> &'static str {
        match self {
            Self::MayNotCreateRoles { .. } => "MAY_NOT_CREATE_ROLES",
            Self::CannotLogIn { .. } => "CANNOT_LOG_IN",
            Self::NameTaken { .. } => "ROLE_NAME_TAKEN",
            Self::PublicMayCreate { .. } => "PUBLIC_MAY_CREATE",
        }
    }

    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            Self::MayNotCreateRoles { user, .. } => {
                format!("as a superuser: `alter role {} createrole`", quote_identifier(user))
            }
            Self::CannotLogIn { role, .. } => {
                format!("let `{role}` log in with its password: a line `scram-sha-256` in `pg_hba.conf`")
            }
            Self::NameTaken { role } => format!("rename the role `{role}`, which is somebody else's"),
            Self::PublicMayCreate { fix, .. } => fix.clone(),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MayNotCreateRoles { user, role } => write!(
                formatter,
                "the user `{user}` may not make the role `{role}`: functions run as `{user}`, with all its rights"
            ),
            Self::CannotLogIn { role, cause } => write!(
                formatter,
                "the role `{role}` cannot log in, so functions run as the given user, with all its rights: {cause}"
            ),
            Self::NameTaken { role } => write!(
                formatter,
                "the role `{role}` is somebody else's, so functions run as the given user, with all its rights"
            ),
            Self::PublicMayCreate { what, .. } => {
                write!(formatter, "everybody may {what} in this database, and so may functions")
            }
        }
    }
}

/// Brings the schema `convoke` to this program's form, and makes what is missing of the keys and the project's role. Again,
/// it changes nothing.
///
/// # Errors
/// When Postgres cannot be reached, is older than 15, is read-only, or refuses; when a pooler is in between; when the
/// schema `convoke` is newer than this program.
pub async fn bootstrap(admin: &Config, project: &str) -> Result<Provisioned, SyncError> {
    check_name(project)?;
    let session = Session::open(admin).await?;
    session::check(&session, admin).await?;
    session.check_writable().await?;
    let user = session.user().await?;
    // The end of the session gives it back, however it comes.
    session.execute("select pg_advisory_lock($1)", &[&LOCK]).await.map_err(refused(&user))?;
    let secrets = make_database(&session, &user).await?;
    let provisioned = make_project(&session, &user, admin, project, secrets).await?;
    session.execute("select pg_advisory_unlock($1)", &[&LOCK]).await.map_err(refused(&user))?;
    Ok(provisioned)
}

/// What the projects of a database share and functions never see.
struct Secrets {
    role: Vec<u8>,
    cursor: CursorKey,
}

/// What all projects of a database share.
async fn make_database(session: &Session, user: &str) -> Result<Secrets, SyncError> {
    migrations::migrate(session, user, migrations::ALL).await?;
    let row = session.query_one(
        "select (select key from convoke.keys where name = 'role'), (select key from convoke.keys where name = 'cursor')",
        &[],
    );
    let row = row.await.map_err(refused(user))?;
    let (role, cursor): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(0), row.get(1));
    let cursor = cursor.and_then(|key| key.try_into().ok()).ok_or(SyncError::Key)?;
    Ok(Secrets { role: role.ok_or(SyncError::Key)?, cursor: CursorKey::new(cursor) })
}

/// What belongs to one project, but for its tables.
async fn make_project(
    session: &Session,
    user: &str,
    admin: &Config,
    project: &str,
    secrets: Secrets,
) -> Result<Provisioned, SyncError> {
    let mut warnings = Vec::new();
    let provisioned = role::ensure(session, admin, project, &secrets.role, &mut warnings).await?;
    let (role, app) = match provisioned {
        Some((role, app)) => (Some(role), app),
        None => (None, admin.clone()),
    };
    if let Some(role) = &role {
        reach_convoke(session, role).await.map_err(refused(user))?;
        close_public(session, role, &mut warnings).await.map_err(refused(user))?;
    } else {
        session.execute("delete from convoke.projects where name = $1", &[&project]).await.map_err(refused(user))?;
    }
    Ok(Provisioned { app, role, keys: Keys { cursor: secrets.cursor }, warnings })
}

fn refused(user: &str) -> impl FnOnce(tokio_postgres::Error) -> SyncError {
    let user = user.to_owned();
    move |source| SyncError::Bootstrap { user, source }
}

pub(crate) fn check_name(project: &str) -> Result<(), SyncError> {
    let reserved = ["convoke", "information_schema", "public"].contains(&project) || project.starts_with("pg_");
    if reserved { Err(SyncError::Reserved(project.to_owned())) } else { Ok(()) }
}

/// Functions that are for the database's owner alone.
const OWNERS: &[&str] = &["count_from"];

/// The role uses Convoke's functions, whichever migration made them, and none of its tables.
async fn reach_convoke(session: &Session, role: &str) -> Result<(), tokio_postgres::Error> {
    const FUNCTIONS: &str = "\
select p.oid::regprocedure::text, p.proname = any($2), has_function_privilege($1, p.oid, 'execute')
  from pg_proc p where p.pronamespace = 'convoke'::regnamespace";
    let reached = session.query_one("select has_schema_privilege($1, 'convoke', 'usage')", &[&role]).await?;
    let functions = session.query(FUNCTIONS, &[&role, &OWNERS]).await?;
    let role = quote_identifier(role);
    let mut changes = Vec::new();
    if !reached.get::<_, bool>(0) {
        changes.push(format!("grant usage on schema convoke to {role}"));
    }
    for function in functions {
        let (name, is_owners, may): (String, bool, bool) = (function.get(0), function.get(1), function.get(2));
        match (is_owners, may) {
            (true, true) => changes.push(format!("revoke execute on function {name} from {role}")),
            (false, false) => changes.push(format!("grant execute on function {name} to {role}")),
            _ => {}
        }
    }
    if changes.is_empty() { Ok(()) } else { session.run(&changes.join("; ")).await }
}

/// By default, everybody who may connect may make temporary tables; before Postgres 15, tables in `public` too. That is
/// taken from everybody and given to each of the other users that there are, so that only Convoke's roles lose it.
async fn close_public(session: &Session, role: &str, warnings: &mut Vec<Warning>) -> Result<(), tokio_postgres::Error> {
    const OPEN: &str = "\
select current_database()::text, has_database_privilege($1, current_database(), 'temporary'),
  coalesce(has_schema_privilege($1, to_regnamespace('public')::oid, 'create'), false),
  array(select r.rolname::text from pg_roles r, pg_database d
    where d.datname = current_database() and r.rolcanlogin and not r.rolsuper and r.oid <> d.datdba
    and r.rolname not like 'convoke\\_%')";
    let row = session.query_one(OPEN, &[&role]).await?;
    let (database, temporary, public): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
    let others: Vec<String> = row.get::<_, Vec<String>>(3).iter().map(|other| quote_identifier(other)).collect();
    let database = format!("database {}", quote_identifier(&database));
    let open = [
        (temporary, "make temporary tables", "temporary", database.as_str()),
        (public, "make tables in the schema `public`", "create", "schema public"),
    ];
    for (_, what, right, place) in open.into_iter().filter(|(is_open, ..)| *is_open) {
        let mut sql = format!("revoke {right} on {place} from public");
        if !others.is_empty() {
            sql = format!("grant {right} on {place} to {}; {sql}", others.join(", "));
        }
        let closed = session.run(&sql).await;
        // A revoke of what one may not revoke is no error.
        let row = session.query_one(OPEN, &[&role]).await?;
        let is_open: bool = if right == "temporary" { row.get(1) } else { row.get(2) };
        if closed.is_err() || is_open {
            warnings.push(Warning::PublicMayCreate { what: what.to_owned(), fix: format!("as its owner: `{sql}`") });
        }
    }
    Ok(())
}
