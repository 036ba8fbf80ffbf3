//! `convoke sync`.

use convoke_local_postgres::{Database, Options};
use convoke_model::Schema;
use convoke_postgres::Config;
use convoke_project::{Builder, Profile, Project};
use convoke_server::{AppliedBy, ComponentSource, DeployError};
use convoke_sync::{ApplyOptions, PlanOptions, Progress, SyncError, SyncPlan, Warning};
use serde::Serialize;

use crate::args::SyncArgs;
use crate::dev::{self, address};
use crate::failure::Failure;
use crate::output::Output;
use crate::{components, toolchain};

/// What `--json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    #[serde(flatten)]
    plan: &'a SyncPlan,
    /// Steps that were run; none with `--dry-run`.
    applied: Option<usize>,
}

pub(crate) async fn sync(args: SyncArgs, output: &Output) -> Result<(), Failure> {
    let project = Project::find(&args.dir)?;
    let schema = schema(&project, output).await?;
    let database = Connected::open(&args, &project).await?;
    let result = run(&args, &project, &schema, database.config.clone(), output).await;
    database.close().await;
    result
}

async fn run(
    args: &SyncArgs,
    project: &Project,
    schema: &Schema,
    admin: Config,
    output: &Output,
) -> Result<(), Failure> {
    let name = &project.manifest().name;
    if !args.dry_run {
        let provisioned = convoke_sync::bootstrap(&admin, name).await.map_err(failure)?;
        print_warnings(&provisioned.warnings, output);
    }
    let options = PlanOptions { allow_drop: args.allow_drop.clone() };
    let plan = convoke_sync::plan(&admin, name, schema, &options).await.map_err(failure)?;
    if !args.json {
        output.data(plan.text())?;
    }
    let problems = plan.problems.len();
    if problems > 0 || args.dry_run {
        if args.json {
            output.json(&Report { plan: &plan, applied: None })?;
        }
        return match problems {
            0 => Ok(()),
            1 => Err(Failure::new("1 thing is in the way of the plan; nothing was changed")),
            count => Err(Failure::new(format!("{count} things are in the way of the plan; nothing was changed"))),
        };
    }
    let options = ApplyOptions { applied_by: applied_by(), ..ApplyOptions::default() };
    let mut watch = |progress: Progress<'_>| note(&progress, output);
    let applied = convoke_sync::apply(&admin, &plan, schema, &options, &mut watch).await.map_err(failure)?;
    if args.json {
        return output.json(&Report { plan: &plan, applied: Some(applied.ran) });
    }
    match applied.ran {
        0 => output.good("The tables are as the schema declares them"),
        1 => output.good("1 step done"),
        ran => output.good(format!("{ran} steps done")),
    }
    Ok(())
}

/// A line for each thing that somebody waits for.
fn note(progress: &Progress<'_>, output: &Output) {
    match progress {
        Progress::Waiting => output.note("Another sync of the project is running: waiting for it"),
        Progress::Done { position, total, elapsed } => {
            output.note(format!("  step {position} of {total}: done in {:.2} s", elapsed.as_secs_f64()));
        }
        Progress::Locked { step, attempt, holders } => {
            let table = step.table.as_deref().unwrap_or("the schema");
            output.note(format!("  `{table}` is held by others, try {attempt}: {}", holders.join("; ")));
        }
        Progress::Rows { step, rows } => output.note(format!("  {}: {rows} rows", step.object)),
        _ => {}
    }
}

pub(crate) fn print_warnings(warnings: &[Warning], output: &Output) {
    for warning in warnings {
        output.warning(warning);
        output.hint(warning.fix());
    }
}

/// A refused sync, with its plan before it.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
pub(crate) fn failure(error: SyncError) -> Failure {
    let (hint, plan) = (error.hint(), error.plan().map(SyncPlan::text));
    let message = match plan {
        // The plan has said it.
        Some(_) => "the tables cannot be brought to the schema without you; nothing was changed".to_owned(),
        None => error.to_string(),
    };
    let failure = match plan {
        Some(_) => Failure::new(message),
        None => Failure::of(&error),
    };
    failure.hints(hint).said(plan)
}

/// A refused deploy: of a sync, with its plan.
pub(crate) fn deploy_failure(error: DeployError) -> Failure {
    match error {
        DeployError::Sync(error) => failure(error),
        other => Failure::of(&other),
    }
}

/// Who this is, for the log of syncs.
pub(crate) fn applied_by() -> AppliedBy {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    AppliedBy {
        os_user: variable("USER").or_else(|| variable("LOGNAME")),
        host: host.or_else(|| variable("HOSTNAME")).unwrap_or_default(),
        tool: concat!("convoke ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// What the project's components declare.
async fn schema(project: &Project, output: &Output) -> Result<Schema, Failure> {
    toolchain::ensure_target(project, output).await?;
    let mut builder = Builder::new(project.clone(), Profile::Release);
    let report = components::build(&mut builder, output).await?;
    let mut sources = Vec::new();
    for built in &report.components {
        let wasm = tokio::fs::read(&built.wasm_path).await;
        let wasm =
            wasm.map_err(|e| Failure::new(format!("`{}` cannot be read", built.wasm_path.display())).cause(&e))?;
        sources.push(ComponentSource { module: built.module.to_string(), wasm });
    }
    let cache = components::cache(project);
    let declared = convoke_server::declared_schema(sources, convoke_model::Limits::default(), cache).await;
    declared.map_err(deploy_failure)
}

/// The database, and the server that was started for it.
pub(crate) struct Connected {
    pub(crate) config: Config,
    started: Option<Database>,
}

impl Connected {
    async fn open(args: &SyncArgs, project: &Project) -> Result<Self, Failure> {
        if let Some(url) = args.database_url.as_deref().map(str::trim).filter(|url| !url.is_empty()) {
            return Ok(Self { config: dev::parse_url(url)?, started: None });
        }
        if let Some(config) = address::postgres(project).await {
            return Ok(Self { config, started: None });
        }
        let state = project.create_state_dir();
        let state =
            state.map_err(|e| Failure::new(format!("`{}` cannot be made", project.state_dir().display())).cause(&e))?;
        let options = Options::new(state.join("postgres"));
        let database = convoke_local_postgres::resolve(None, &options).await?;
        let config = match &database {
            Database::Local(local) => local.config(),
            Database::Given(url) => dev::parse_url(url)?,
        };
        Ok(Self { config, started: Some(database) })
    }

    async fn close(self) {
        if let Some(Database::Local(local)) = self.started {
            local.stop().await;
        }
    }
}
