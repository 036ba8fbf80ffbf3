//! The projects of a `dev` in their process: opened once, given components at each build.

use std::collections::BTreeMap;
use std::sync::Arc;

use convoke_local_postgres::Database;
use convoke_model::Limits;
use convoke_project::{BuildReport, Project};
use convoke_server::{ComponentSource, Deployed, Host, Process, ProcessConfig, ProjectConfig};

use crate::failure::Failure;
use crate::output::Output;

/// What the host serves at the moment.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// The digest of each module's component.
    digests: BTreeMap<String, String>,
}

/// What of the process each project gets.
#[derive(Debug)]
pub(super) struct Shares {
    /// For those that do not set their own.
    instances_max: u32,
    connections_max: usize,
    process: ProcessLimits,
}

/// For all projects together.
#[derive(Debug)]
struct ProcessLimits {
    limits: Limits,
    connections_max: usize,
    projects_max: u32,
}

impl Shares {
    /// What is for one project where it is alone is shared out evenly; what a project sets is its own.
    pub(super) fn of(projects: &[Project]) -> Self {
        let count = projects.len().max(1);
        let projects_max = u32::try_from(count).unwrap_or(u32::MAX);
        let instances_max = (Limits::default().instances_max / projects_max).max(1);
        let connections_max = (convoke_server::CONNECTIONS_MAX / count).max(convoke_server::CONNECTIONS_MIN);
        let of_each = projects.iter().map(|project| limits(&project.manifest().limits, instances_max));
        let limits = of_each.reduce(|all, one| Limits {
            memory_bytes_max: all.memory_bytes_max.max(one.memory_bytes_max),
            instances_max: all.instances_max.saturating_add(one.instances_max),
            ..all
        });
        let limits = limits.unwrap_or_default();
        let process = ProcessLimits { limits, connections_max: connections_max * count, projects_max };
        Self { instances_max, connections_max, process }
    }

    /// The process, with its cache in a project's directory.
    pub(super) fn process(&self, project: &Project) -> ProcessConfig {
        let ProcessLimits { limits, connections_max, projects_max } = &self.process;
        ProcessConfig {
            cache: crate::components::cache(project),
            limits: limits.clone(),
            connections_max: *connections_max,
            projects_max: *projects_max,
        }
    }

    pub(super) fn project(&self, project: &Project) -> Unconnected {
        let limits = limits(&project.manifest().limits, self.instances_max);
        Unconnected { project: project.clone(), limits, connections_max: self.connections_max }
    }
}

/// A project that is to be opened once its database is known.
#[derive(Debug, Clone)]
pub(super) struct Unconnected {
    project: Project,
    limits: Limits,
    connections_max: usize,
}

impl Unconnected {
    pub(super) fn on(self, database: &Database) -> Result<ProjectConfig, Failure> {
        let postgres = match database {
            Database::Given(url) => parse_url(url)?,
            Database::Local(local) => local.config(),
        };
        let manifest = self.project.manifest();
        Ok(ProjectConfig {
            postgres,
            project: manifest.name.clone(),
            applied_by: crate::sync::applied_by(),
            limits: self.limits,
            connections_max: self.connections_max,
            stall_max: convoke_server::STALL_MAX,
            server_limits: convoke_server::ServerLimits::default(),
            live_limits: convoke_server::LiveLimits::default(),
            site_dir: self.project.site_dir(),
            outbound_allow: manifest.outbound_allow.clone(),
            sql: manifest.sql_allow,
        })
    }
}

/// Opens a project in the process.
pub(super) async fn open(process: &Process, config: ProjectConfig) -> Result<Arc<Host>, Failure> {
    process.open(config).await.map_err(|error| match error {
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
fn limits(set: &convoke_project::Limits, instances_max: u32) -> Limits {
    let mut limits = Limits { instances_max, ..Limits::default() };
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
        let host = Limits::default();
        let set = convoke_project::Limits { call_ms_max: Some(7), instances_max: Some(9), ..Default::default() };
        let expected = Limits { call_ms_max: 7, instances_max: 9, ..host.clone() };
        assert_eq!(limits(&set, host.instances_max), expected);
        assert_eq!(limits(&convoke_project::Limits::default(), host.instances_max), host);
    }

    #[test]
    fn what_is_shared_out_is_what_there_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let project = |name: &str, limits: &str| {
            let root = directory.path().join(name);
            std::fs::create_dir(&root).expect("made");
            let text = format!("[project]\nname = \"{name}\"\n\n[limits]\n{limits}\n");
            std::fs::write(root.join("convoke.toml"), text).expect("written");
            Project::find(&root).expect("a project")
        };
        let projects =
            [project("a", "instances_max = 7"), project("b", ""), project("c", "memory_bytes_max = 99999999")];
        let shares = Shares::of(&projects);
        let all = shares.process(&projects[0]);
        let each: Vec<Unconnected> = projects.iter().map(|project| shares.project(project)).collect();
        assert_eq!(each.iter().map(|one| one.limits.instances_max).collect::<Vec<_>>(), [7, 85, 85]);
        assert_eq!((all.limits.instances_max, all.limits.memory_bytes_max), (7 + 85 + 85, 99_999_999));
        assert_eq!((all.connections_max, each[0].connections_max, all.projects_max), (18, 6, 3));
    }

    #[test]
    fn a_bad_url_is_not_repeated() {
        let failure = parse_url("postgres://me:secret@host:port/db").expect_err("no port");
        let text = format!("{failure:?}");
        assert!(!text.contains("secret"), "{text}");
    }
}
