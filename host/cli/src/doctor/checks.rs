//! The checks, each on its own: none needs another to have passed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use convoke_local_postgres::{Durability, LocalPostgres, Options, Probe, Search};
use convoke_project::target::{self, TARGET};
use convoke_project::{Project, ProjectError};

use super::Finding;
use crate::dev;
use crate::failure::Failure;

/// The oldest Postgres that the host takes, as Postgres counts.
const VERSION_NUMBER_MIN: u32 = 150_000;

/// A database that takes longer to answer is of no use to a function either.
const DATABASE_ANSWER_MAX: Duration = Duration::from_secs(5);

pub(super) fn project(project: Result<Project, ProjectError>) -> Finding {
    match project {
        Ok(project) => {
            let count = project.manifest().components.len();
            let components = if count == 1 { "1 component".to_owned() } else { format!("{count} components") };
            Finding::good("project", format!("`{}`, {components}", project.file().display()))
        }
        Err(error) => Finding::failed("project", error),
    }
}

/// Cargo, rustup and the target.
pub(super) async fn toolchain(dir: &Path) -> Vec<Finding> {
    let (cargo, rustup, installed) =
        tokio::join!(target::cargo_version(), target::rustup_version(), target::installed(dir));
    let cargo = match cargo {
        Some(version) => Finding::good("cargo", version),
        None => Finding::failed("cargo", convoke_project::PlanError::CargoMissing),
    };
    let can_add = rustup.is_some();
    let rustup = match rustup {
        Some(version) => Finding::good("rustup", version),
        None => Finding::warning(
            "rustup",
            "not found: Convoke cannot add the target for components by itself",
            "install Rust from `https://rustup.rs`, or the target by your system's packages",
        ),
    };
    let target = match installed {
        Ok(Some(_)) => Finding::good("target", format!("`{TARGET}` is installed")),
        Ok(None) if can_add => Finding::failed(
            "target",
            Failure::new(format!("`{TARGET}` is not installed")).hint(format!("run `rustup target add {TARGET}`")),
        ),
        Ok(None) => Finding::failed("target", target::TargetError::RustupMissing),
        Err(error) => Finding::failed("target", error),
    };
    vec![cargo, rustup, target]
}

/// The given database, or else whether this machine's Postgres programs make one.
pub(super) async fn postgres(database_url: Option<&str>) -> Vec<Finding> {
    match database_url.map(str::trim).filter(|url| !url.is_empty()) {
        Some(url) => database(url).await,
        None => vec![programs().await],
    }
}

/// Starts a server on a throw-away directory: the sure way to know that `dev` can. Nothing is downloaded for it.
async fn programs() -> Finding {
    let dir = std::env::temp_dir().join(format!("convoke-doctor-{}", std::process::id()));
    let options = Options { durability: Durability::Fast, search: Search::Installed, ..Options::new(&dir) };
    let started = LocalPostgres::start(&options).await;
    let finding = match started {
        Ok(server) => {
            let message = format!("{} starts in {:.1} s", server.source(), server.elapsed().as_secs_f64());
            server.stop().await;
            Finding::good("postgres", message)
        }
        Err(error @ convoke_local_postgres::Error::NoPrograms { .. }) => Finding::warning(
            "postgres",
            "no installed programs of version 15 or newer: `convoke dev` will try to fetch them",
            error.hint().unwrap_or_default(),
        ),
        Err(error) => Finding::failed("postgres", error),
    };
    // What stays lies in the system's directory for what may stay.
    let _ = std::fs::remove_dir_all(dir);
    finding
}

/// Reachable, new enough, and writing the log that subscriptions are fed from.
async fn database(url: &str) -> Vec<Finding> {
    let answer = tokio::time::timeout(DATABASE_ANSWER_MAX, ask(url)).await;
    let answer =
        answer.unwrap_or_else(|_| Err(Failure::new("the database of `DATABASE_URL` did not answer within 5 s")));
    let (config, Probe { version, version_number, wal_level, encryption }) = match answer {
        Ok(answer) => answer,
        Err(failure) => return vec![Finding::failed("database", failure)],
    };
    let reached = if version_number < VERSION_NUMBER_MIN {
        let failure = Failure::new(format!("Postgres {version} is older than 15"));
        Finding::failed(
            "database",
            failure.hint("use a newer server, or leave `DATABASE_URL` out for one of Convoke's own"),
        )
    } else {
        Finding::good("database", format!("Postgres {version} answers"))
    };
    let wal = if wal_level == "logical" {
        Finding::good("wal_level", "`wal_level` is `logical`")
    } else {
        Finding::warning(
            "wal_level",
            format!("`wal_level` is `{wal_level}`: subscriptions need `logical`"),
            "run `alter system set wal_level = logical` as a superuser and start the server again",
        )
    };
    vec![reached, tls(&config, encryption.as_deref()), wal]
}

/// Whether somebody between here and the server could read along, or be the server.
fn tls(config: &convoke_postgres::Config, encryption: Option<&str>) -> Finding {
    match encryption {
        Some(protocol) if config.checks_server() => Finding::good(
            "tls",
            format!("the connection is encrypted ({protocol}), and the server's certificate checked"),
        ),
        Some(protocol) => Finding::good(
            "tls",
            format!(
                "the connection is encrypted ({protocol}); the server's certificate is not checked, `sslmode=verify-full` would"
            ),
        ),
        None if config.is_local() => Finding::good("tls", "the connection stays on this machine, not encrypted"),
        None => Finding::warning(
            "tls",
            "the connection to the database is not encrypted",
            "turn on `ssl` in the server's settings, and add `sslmode=verify-full` to `DATABASE_URL`",
        ),
    }
}

/// The project's role, and what was changed by hand. Nothing is said where the project's database does not run.
pub(super) async fn tables(project: &Project, database_url: Option<&str>) -> Vec<Finding> {
    let given = database_url.map(str::trim).filter(|url| !url.is_empty());
    let config = match given.map(dev::parse_url) {
        Some(Ok(config)) => config,
        // `postgres` says so.
        Some(Err(_)) => return Vec::new(),
        None => match dev::address::postgres(project).await {
            Some(config) => config,
            None => return Vec::new(),
        },
    };
    let name = &project.manifest().name;
    let looked = tokio::time::timeout(DATABASE_ANSWER_MAX, convoke_sync::inspect(&config, name)).await;
    match looked {
        Ok(Ok(found)) if !found.synced => vec![Finding::good("tables", format!("`{name}` was not synced here yet"))],
        Ok(Ok(found)) => vec![role(&found), drift(&found)],
        Ok(Err(error)) => vec![Finding::failed("tables", crate::sync::failure(error))],
        // `postgres` says so.
        Err(_) => Vec::new(),
    }
}

fn role(found: &convoke_sync::Inspection) -> Finding {
    match (&found.role, found.role_faults.as_slice()) {
        (None, _) => Finding::warning(
            "role",
            "functions run as the given user, with all its rights",
            "let that user make roles: as a superuser, `alter role USER createrole`",
        ),
        (Some(role), []) => Finding::good("role", format!("`{role}` reads and writes documents, and no more")),
        (Some(role), faults) => Finding::warning(
            "role",
            format!("`{role}` {}", faults.join(", ")),
            "run `convoke sync`: it takes back what can be taken back",
        ),
    }
}

fn drift(found: &convoke_sync::Inspection) -> Finding {
    if found.drift.is_empty() {
        return Finding::good("drift", "the tables are as the last sync left them");
    }
    let list: Vec<String> = found.drift.iter().map(ToString::to_string).collect();
    Finding::warning(
        "drift",
        format!("changed by hand: {}", list.join("; ")),
        "look at `convoke sync --dry-run`: what is missing or changed is made again, what is extra is left alone",
    )
}

async fn ask(url: &str) -> Result<(convoke_postgres::Config, Probe), Failure> {
    let config = dev::parse_url(url)?;
    let probed = convoke_local_postgres::probe(&config).await.map_err(|e| {
        let usual = "start the server, check host, port, user and password, or leave `DATABASE_URL` out for a server of Convoke's own";
        let hint = e.hint().unwrap_or_else(|| usual.to_owned());
        Failure::new("the database of `DATABASE_URL` cannot be reached").cause(&e).hint(hint)
    })?;
    Ok((config, probed))
}

pub(super) async fn port(port: u16) -> Finding {
    match crate::port::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
        Ok(_) => Finding::good("port", format!("{port} is free")),
        Err(failure) => Finding::failed("port", failure),
    }
}
