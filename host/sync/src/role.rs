//! The role that a project's functions run under: it logs in, reads and writes its own tables, and nothing else.

use convoke_postgres::{Config, ConnectError};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio_postgres::error::SqlState;

use crate::bootstrap::Warning;
use crate::connect::Session;
use crate::hash::{hex, sha256};
use crate::{SyncError, error};

use convoke_sql::{quote_identifier, quote_literal};

/// The name that a project's role has wherever nobody else has it.
pub(crate) fn usual_name(project: &str) -> String {
    convoke_sql::fit(&format!("convoke_{project}"), "")
}

/// The password of a project's role: every host that may read the key computes the same.
pub(crate) fn password(key: &[u8], project: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(format!("role:{project}").as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// Makes the role, or finds it, and sees to it that it can log in and has no rights beyond its own. None where the
/// connected user may not make roles.
pub(crate) async fn ensure(
    session: &Session,
    admin: &Config,
    project: &str,
    key: &[u8],
    warnings: &mut Vec<Warning>,
) -> Result<Option<(String, Config)>, SyncError> {
    let password = password(key, project);
    let Some(name) = find_or_make(session, project, &password, warnings).await? else { return Ok(None) };
    restrict(session, &name).await?;
    let mut app = admin.clone();
    app.user(&name).password(&password);
    if let Err(first) = log_in(&app).await {
        // Made with another key, or changed by hand.
        let alter = format!("alter role {} password {}", quote_identifier(&name), verifier(&password));
        let altered = session.run(&alter).await;
        let cause = match altered {
            Ok(()) => log_in(&app).await.err().map(|error| error::chain(&error)),
            Err(error) => {
                Some(format!("{}; its password cannot be set: {}", error::chain(&first), error::chain(&error)))
            }
        };
        if let Some(cause) = cause {
            warnings.push(Warning::CannotLogIn { role: name, cause });
            return Ok(None);
        }
    }
    Ok(Some((name, app)))
}

async fn log_in(app: &Config) -> Result<(), ConnectError> {
    app.connect().await.map(|_| ())
}

/// What the server keeps in place of a password. It may be in its log; the password is not.
fn verifier(password: &str) -> String {
    quote_literal(&postgres_protocol::password::scram_sha_256(password.as_bytes()))
}

/// Roles belong to the whole server: one of this name may be that of another database's project. A comment on the role
/// says whose it is.
async fn find_or_make(
    session: &Session,
    project: &str,
    password: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Option<String>, SyncError> {
    let failed = || SyncError::statement("find the project's role");
    let row = session.query_one("select current_database()::text", &[]).await.map_err(failed())?;
    let database: String = row.get(0);
    let mark = format!("Convoke: project `{project}` of database `{database}`");
    let recorded = session.query_opt("select role from convoke.projects where name = $1", &[&project]).await;
    let recorded: Option<String> = recorded.map_err(failed())?.map(|row| row.get(0));
    let usual = usual_name(project);
    let own = convoke_sql::fit(&format!("{usual}_{}", &sha256(database.as_bytes())[..8]), "");
    let mut candidates: Vec<String> = recorded.iter().cloned().chain([usual, own]).collect();
    candidates.dedup();
    for name in candidates {
        let found = session
            .query_opt("select shobj_description(oid, 'pg_authid') from pg_roles where rolname = $1", &[&name])
            .await
            .map_err(failed())?;
        let is_ours = match found {
            Some(row) => row.get::<_, Option<String>>(0).as_deref() == Some(mark.as_str()),
            None => match make(session, &name, password, &mark).await {
                Ok(()) => true,
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    let user = session.user().await?;
                    warnings.push(Warning::MayNotCreateRoles { user, role: name });
                    return Ok(None);
                }
                // Another database was quicker.
                Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => false,
                Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => false,
                Err(error) => return Err(SyncError::statement(format!("make the role `{name}`"))(error)),
            },
        };
        if is_ours {
            record(session, project, &name, recorded.as_deref()).await?;
            return Ok(Some(name));
        }
    }
    warnings.push(Warning::NameTaken { role: usual_name(project) });
    Ok(None)
}

async fn make(session: &Session, name: &str, password: &str, mark: &str) -> Result<(), tokio_postgres::Error> {
    let role = quote_identifier(name);
    let sql = format!(
        "create role {role} login nosuperuser nocreatedb nocreaterole noinherit noreplication nobypassrls password {}; \
         comment on role {role} is {}",
        verifier(password),
        quote_literal(mark)
    );
    session.run(&sql).await
}

/// A copy of a database has the role of the original in its tables' rights: it must not keep them.
async fn record(session: &Session, project: &str, name: &str, recorded: Option<&str>) -> Result<(), SyncError> {
    let failed = || SyncError::statement("note the project's role");
    if recorded == Some(name) {
        return Ok(());
    }
    session
        .execute(
            "insert into convoke.projects (name, role) values ($1, $2) \
             on conflict (name) do update set role = excluded.role",
            &[&project, &name],
        )
        .await
        .map_err(failed())?;
    if let Some(old) = recorded {
        let known = session
            .query_opt(
                "select from pg_roles r, pg_namespace n where r.rolname = $1 and n.nspname = $2",
                &[&old, &project],
            )
            .await
            .map_err(failed())?;
        if known.is_some() {
            let (old, schema) = (quote_identifier(old), quote_identifier(project));
            let sql = format!(
                "revoke all on all tables in schema {schema} from {old}; revoke all on schema {schema} from {old}; \
                 revoke all on schema convoke from {old}"
            );
            session.run(&sql).await.map_err(failed())?;
        }
    }
    Ok(())
}

/// Takes away what somebody may have given it by hand.
async fn restrict(session: &Session, name: &str) -> Result<(), SyncError> {
    const EXCESS: &str = "\
select rolsuper, rolcreatedb, rolcreaterole, rolinherit, rolreplication, rolbypassrls, not rolcanlogin,
  array(select g.rolname::text from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid)
from pg_roles r where rolname = $1";
    let failed = || SyncError::statement(format!("take rights from the role `{name}`"));
    let row = session.query_one(EXCESS, &[&name]).await.map_err(failed())?;
    let attributes =
        ["nosuperuser", "nocreatedb", "nocreaterole", "noinherit", "noreplication", "nobypassrls", "login"];
    let wrong: Vec<&str> =
        attributes.into_iter().enumerate().filter(|(at, _)| row.get::<_, bool>(*at)).map(|(_, word)| word).collect();
    let role = quote_identifier(name);
    if !wrong.is_empty() {
        session.run(&format!("alter role {role} {}", wrong.join(" "))).await.map_err(failed())?;
    }
    for group in row.get::<_, Vec<String>>(7) {
        session.run(&format!("revoke {} from {role}", quote_identifier(&group))).await.map_err(failed())?;
    }
    Ok(())
}
