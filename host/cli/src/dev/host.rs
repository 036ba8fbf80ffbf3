//! The host of `dev`: opened once, given components at each build.

use std::collections::BTreeMap;
use std::sync::Arc;

use convoke_local_postgres::Database;
use convoke_project::{BuildReport, Project};
use convoke_server::{ComponentSource, Deployed, Host, HostConfig};

use crate::failure::Failure;
use crate::output::Output;

/// What the host serves at the moment.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// The digest of each module's component.
    digests: BTreeMap<String, String>,
}

/// Opens the host on the project's database.
pub(super) async fn open(project: &Project, database: &Database) -> Result<Arc<Host>, Failure> {
    let postgres = match database {
        Database::Given(url) => parse_url(url)?,
        Database::Local(local) => local.config(),
    };
    let manifest = project.manifest();
    let config = HostConfig {
        postgres,
        project: manifest.name.clone(),
        applied_by: crate::sync::applied_by(),
        cache_dir: project.state_dir().join("cache"),
        limits: limits(&manifest.limits),
        connections_max: convoke_server::CONNECTIONS_MAX,
        stall_max: convoke_server::STALL_MAX,
        server_limits: convoke_server::ServerLimits::default(),
        site_dir: project.site_dir(),
        outbound_allow: manifest.outbound_allow.clone(),
        sql: manifest.sql_allow,
    };
    Host::open(config).await.map_err(|error| match error {
        convoke_server::OpenError::Sync(error) => crate::sync::failure(error),
        other => Failure::of(&other),
    })
}

/// Reads `DATABASE_URL`. The text is in no message: it holds a password.
pub(crate) fn parse_url(url: &str) -> Result<convoke_postgres::Config, Failure> {
    convoke_postgres::Config::read(url, |name| std::env::var(name).ok()).map_err(|e| {
        let hint = e.hint().unwrap_or_else(|| "write `postgres://user:password@host:5432/database`".to_owned());
        Failure::new("`DATABASE_URL` is no address of a Postgres server").cause(&e).hint(hint)
    })
}

/// The host's limits, with those that the project sets in place of its own.
fn limits(set: &convoke_project::Limits) -> convoke_model::Limits {
    let mut limits = convoke_model::Limits::default();
    // What `convoke.toml` may say fits, but on a machine of 32 bits: there it is the largest number.
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let apply_u64 = |to: &mut u64, value: Option<u64>| *to = value.unwrap_or(*to);
    let apply_size = |to: &mut usize, value: Option<u64>| *to = value.map_or(*to, size);
    apply_u64(&mut limits.call_ms_max, set.call_ms_max);
    apply_u64(&mut limits.action_ms_max, set.action_ms_max);
    apply_u64(&mut limits.host_calls_max, set.host_calls_max);
    apply_u64(&mut limits.queue_ms_max, set.queue_ms_max);
    apply_size(&mut limits.memory_bytes_max, set.memory_bytes_max);
    apply_size(&mut limits.result_bytes_max, set.result_bytes_max);
    apply_size(&mut limits.body_bytes_max, set.body_bytes_max);
    apply_size(&mut limits.log_lines_max, set.log_lines_max);
    limits.instances_max =
        set.instances_max.map_or(limits.instances_max, |count| u32::try_from(count).unwrap_or(u32::MAX));
    limits
}

impl Served {
    /// Whether the host has these components already.
    pub(super) fn is_current(&self, report: &BuildReport) -> bool {
        let digests = report.components.iter().map(|built| (built.module.as_str(), built.digest.as_str()));
        self.digests.iter().map(|(module, digest)| (module.as_str(), digest.as_str())).eq(digests)
    }

    /// Has the host serve the components of a build. When the host refuses, it goes on with what it has.
    pub(super) async fn deploy(&mut self, host: &Arc<Host>, report: &BuildReport) -> Result<Deployed, Failure> {
        let mut sources = Vec::new();
        for built in &report.components {
            let wasm = tokio::fs::read(&built.wasm_path).await;
            let wasm =
                wasm.map_err(|e| Failure::new(format!("`{}` cannot be read", built.wasm_path.display())).cause(&e))?;
            sources.push(ComponentSource { module: built.module.to_string(), wasm });
        }
        let deployed = host.deploy(sources).await.map_err(crate::sync::deploy_failure)?;
        self.digests = report.components.iter().map(|built| (built.module.to_string(), built.digest.clone())).collect();
        Ok(deployed)
    }
}

/// Prints the functions of a deploy.
pub(super) fn print_functions(deployed: &Deployed, output: &Output) {
    for (name, kind) in &deployed.functions {
        output.note(format!("  {:<8}  {name}", kind.as_str()));
    }
    if deployed.functions.is_empty() {
        output.note("  no functions yet: name a component under `[components]` in `convoke.toml`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_project_sets_stands_and_the_rest_is_the_hosts() {
        let host = convoke_model::Limits::default();
        let set = convoke_project::Limits { call_ms_max: Some(7), instances_max: Some(9), ..Default::default() };
        let expected = convoke_model::Limits { call_ms_max: 7, instances_max: 9, ..host.clone() };
        assert_eq!(limits(&set), expected);
        assert_eq!(limits(&convoke_project::Limits::default()), host);
    }

    #[test]
    fn a_bad_url_is_not_repeated() {
        let failure = parse_url("postgres://me:secret@host:port/db").expect_err("no port");
        let text = format!("{failure:?}");
        assert!(!text.contains("secret"), "{text}");
    }
}
