//! One project: its share of the engines, its store, and the deployment that it serves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use convoke_deploy::{Deployment, DeploymentError, Deployments, ModuleNameError};
use convoke_engine::{CacheDirs, ComponentVersion, Engine, EngineError, LoadError};
use convoke_invoke::{Invoker, Metering};
use convoke_live::{Live, LiveLimits};
use convoke_model::{Failure, FunctionPath, Kind, Limits, Schema, SchemaConflict};
use convoke_store::{Store, StoreOptions};
use convoke_sync::{AppliedBy, ApplyOptions, Progress, SyncError, SyncPlan, Warning};
use metrics_exporter_prometheus::PrometheusHandle;
use thiserror::Error;
use tokio::sync::{Mutex, watch};

use crate::limits::{Bounds, ServerLimits};
use crate::live::{Followed, LiveQueries};
use crate::open_files::Room;
use crate::outbound::AllowList;
use crate::process::{Connections, OpenError, Process, ProcessConfig};

/// Connections to Postgres where nothing else is said: enough for two cores of Postgres to be busy, few enough for a
/// server whose `max_connections` is the usual 100.
pub const CONNECTIONS_MAX: usize = 20;
/// How long a client may take nothing of what is sent to it, where nothing else is said: longer than a telephone that
/// loses its network for a moment.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// A process with one project.
#[derive(Debug, Clone)]
pub struct HostConfig {
    pub cache: CacheDirs,
    pub project: ProjectConfig,
}

/// What a project needs to be served.
#[derive(Debug, Clone)]
pub struct ProjectConfig {
    /// The database, as its owner: functions run as the project's role, which the host makes with it.
    pub postgres: convoke_postgres::Config,
    /// The project's name, and so its tables' schema in Postgres.
    pub project: String,
    pub limits: Limits,
    /// Who runs it, for the log of syncs.
    pub applied_by: AppliedBy,
    /// Connections to Postgres for its calls.
    pub connections_max: usize,
    /// How long a client may take nothing of what is sent to it, before its connection is closed.
    pub stall_max: Duration,
    /// What may be asked of it at once, and how long asking may take.
    pub server_limits: ServerLimits,
    pub live_limits: LiveLimits,
    /// Whether functions may send SQL of their own.
    pub sql: bool,
    /// Static files to serve at `/`.
    pub site_dir: Option<PathBuf>,
    /// Origins that actions may send HTTP to, such as `https://api.example.com` or `https://*.example.com`.
    pub outbound_allow: Vec<String>,
}

/// A component to deploy under its module's name.
#[derive(Debug, Clone)]
pub struct ComponentSource {
    pub module: String,
    pub wasm: Vec<u8>,
}

/// What a deploy brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// All functions now served, sorted by path.
    pub functions: Vec<(String, Kind)>,
    /// Modules whose component is new or another than before.
    pub changed: Vec<String>,
    /// Modules that are served no longer.
    pub removed: Vec<String>,
}

/// Waits until a host is to stop.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A host that is gone has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Why a deploy was refused; what was served before goes on being served.
#[derive(Debug, Error)]
pub enum DeployError {
    #[error("component `{module}` is refused")]
    Component {
        module: String,
        #[source]
        source: LoadError,
    },
    #[error(transparent)]
    Module(#[from] ModuleNameError),
    #[error(transparent)]
    Deployment(#[from] DeploymentError),
    #[error("module `{0}` is given twice")]
    ModuleTwice(String),
    #[error("the components do not agree on the tables")]
    Schema(#[from] SchemaConflict),
    #[error("the tables could not be brought to the schema")]
    Sync(#[from] SyncError),
    #[error("cannot start the WebAssembly engine")]
    Engine(#[from] EngineError),
}

/// A project that is served.
#[derive(Debug)]
pub struct Host {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) deployments: Arc<Deployments>,
    pub(crate) invoker: Invoker,
    pub(crate) live: LiveQueries,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) site_dir: Option<PathBuf>,
    pub(crate) stall_max: Duration,
    pub(crate) server_limits: ServerLimits,
    pub(crate) bounds: Bounds,
    /// What its listener may have open.
    pub(crate) room: Room,
    project: String,
    #[expect(dead_code, reason = "gives the connections back")]
    connections: Connections,
    /// The database's owner, for syncs.
    admin: convoke_postgres::Config,
    applied_by: AppliedBy,
    warnings: Vec<Warning>,
    /// Deploys take turns.
    deploying: Mutex<()>,
    /// True from when the server is to stop. What holds a connection open for long watches it, and ends.
    pub(crate) stopping: watch::Sender<bool>,
}

/// The tables that components declare, without a database. Compiled components are kept as a host would.
///
/// # Errors
/// When the engine cannot start, a component is refused, or two disagree.
pub async fn declared_schema(
    sources: Vec<ComponentSource>,
    limits: Limits,
    cache: CacheDirs,
) -> Result<Schema, DeployError> {
    let engine = Engine::new(limits, cache)?;
    let mut components = BTreeMap::new();
    for ComponentSource { module, wasm } in sources {
        if !FunctionPath::is_module(&module) {
            return Err(ModuleNameError(module).into());
        }
        let loaded = engine.load(wasm).await;
        let version = loaded.map_err(|source| DeployError::Component { module: module.clone(), source })?;
        if components.insert(module.clone(), version).is_some() {
            return Err(DeployError::ModuleTwice(module));
        }
    }
    Ok(merged(components.iter())?)
}

/// The tables of all components together.
fn merged<'a>(
    components: impl IntoIterator<Item = (&'a String, &'a ComponentVersion)>,
) -> Result<Schema, SchemaConflict> {
    let declared =
        components.into_iter().map(|(module, version)| (module.as_str(), version.manifest().tables.as_slice()));
    Schema::merge(declared)
}

impl Process {
    /// Connects a project to Postgres; nothing is served until its first [`Host::deploy`].
    ///
    /// # Errors
    /// When the process has no share for it, or Postgres refuses.
    pub async fn open(&self, config: ProjectConfig) -> Result<Arc<Host>, OpenError> {
        let engine = self.engine(config.limits.clone())?;
        let connections = self.connections(config.connections_max)?;
        let gate = Arc::new(self.gate(AllowList::parse(&config.outbound_allow)?));
        let provisioned = convoke_sync::bootstrap(&config.postgres, &config.project).await?;
        let store = Store::open(StoreOptions {
            app: provisioned.app,
            project: config.project.clone(),
            connections_max: config.connections_max,
            limits: config.limits,
            sql: config.sql,
            cursor_key: provisioned.keys.cursor,
        })?;
        let deployments = Arc::new(Deployments::default());
        let recorder = crate::metrics::recorder();
        let metrics = recorder.handle();
        let metering = Metering::new(Arc::new(recorder));
        let invoker = Invoker::new(engine.clone(), store.clone(), Arc::clone(&deployments), gate, metering);
        let followed = Followed {
            feed: self.feed(&config.postgres),
            postgres: config.postgres.clone(),
            project: config.project.clone(),
            limits: config.live_limits,
            rounds_max: crate::live::rounds_max(connections.count()),
        };
        let live = LiveQueries::open(followed, invoker.clone(), Arc::clone(&deployments)).await;
        let host = Arc::new(Host {
            live,
            metrics,
            engine,
            store,
            deployments,
            invoker,
            site_dir: config.site_dir,
            stall_max: config.stall_max,
            bounds: Bounds::new(&config.server_limits),
            server_limits: config.server_limits,
            room: self.room(),
            project: config.project,
            connections,
            admin: config.postgres,
            applied_by: config.applied_by,
            warnings: provisioned.warnings,
            deploying: Mutex::new(()),
            stopping: watch::Sender::new(false),
        });
        crate::retention::start(&host);
        crate::metrics::keep_up(host.metrics.clone(), &host);
        Ok(host)
    }
}

impl Host {
    /// A process with one project, for which all of it is.
    ///
    /// # Errors
    /// When the engine, the cache or Postgres refuse.
    pub async fn open(config: HostConfig) -> Result<Arc<Self>, OpenError> {
        let HostConfig { cache, project } = config;
        let (limits, connections_max) = (project.limits.clone(), project.connections_max);
        let process = Process::start(ProcessConfig { cache, limits, connections_max, projects_max: 1 })?;
        process.open(project).await
    }

    /// Loads components, brings the tables to what they declare, and switches to them at once. Calls that run finish on
    /// the versions on which they began.
    ///
    /// # Errors
    /// When a component or the schema is refused; then nothing has changed for callers.
    pub async fn deploy(self: &Arc<Self>, sources: Vec<ComponentSource>) -> Result<Deployed, DeployError> {
        let _turn = self.deploying.lock().await;
        let before = self.deployments.current();
        let mut components = BTreeMap::new();
        let mut changed = Vec::new();
        for ComponentSource { module, wasm } in sources {
            if !FunctionPath::is_module(&module) {
                return Err(ModuleNameError(module).into());
            }
            let version = self.version(&before, &module, wasm).await?;
            if before.components().get(&module).is_none_or(|old| old.digest() != version.digest()) {
                changed.push(module.clone());
            }
            if components.insert(module.clone(), version).is_some() {
                return Err(DeployError::ModuleTwice(module));
            }
        }
        let mut schema = merged(components.iter().map(|(module, version)| (module, &**version)))?;
        let synced = self.sync(&mut schema).await?;
        let removed = before.components().keys().filter(|module| !components.contains_key(*module)).cloned().collect();
        let deployment = Deployment::new(components, schema)?;
        let functions =
            deployment.functions().into_iter().map(|function| (function.path().to_string(), function.kind())).collect();
        match synced {
            Some(_) => self.live.follow_new_tables().await,
            None => self.live.follow_other_tables(),
        }
        self.deployments.switch(deployment);
        crate::backfill::start(self, &self.deployments.current());
        self.live.redeployed();
        Ok(Deployed { functions, changed, removed })
    }

    /// Applies what only adds, and gives the plan where there was any; anything else is an error that carries the plan.
    async fn sync(&self, schema: &mut Schema) -> Result<Option<SyncPlan>, SyncError> {
        let options = ApplyOptions { applied_by: self.applied_by.clone(), ..ApplyOptions::default() };
        let project = &self.project;
        let mut watch = |progress: Progress<'_>| match progress {
            Progress::Waiting => tracing::info!(project, "another sync is running: waiting for it"),
            Progress::Step { position, total, step } => tracing::info!(position, total, sql = step.sql, "sync"),
            Progress::Locked { step, attempt, holders } => {
                tracing::warn!(attempt, table = step.table, ?holders, "a sync waits for a table");
            }
            _ => {}
        };
        convoke_sync::advance(&self.admin, project, schema, &options, &mut watch).await
    }

    /// What the database keeps apart less than it should.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    pub fn project(&self) -> &str {
        &self.project
    }

    /// Runs functions without HTTP in between.
    pub fn invoker(&self) -> &Invoker {
        &self.invoker
    }

    /// The live queries, without HTTP in between.
    ///
    /// # Errors
    /// Why there are none.
    pub fn live(&self) -> Result<&Live, Failure> {
        self.live.get()
    }

    /// Closes the connections to Postgres.
    pub fn close(&self) {
        self.store.close();
    }

    /// The version for these bytes; one that is served already is not loaded again.
    async fn version(
        &self,
        before: &Deployment,
        module: &str,
        wasm: Vec<u8>,
    ) -> Result<Arc<ComponentVersion>, DeployError> {
        let digest = convoke_engine::digest(&wasm);
        if let Some(version) = before.components().values().find(|version| version.digest() == digest) {
            return Ok(Arc::clone(version));
        }
        let loaded = self.engine.load(wasm).await;
        loaded.map(Arc::new).map_err(|source| DeployError::Component { module: module.to_owned(), source })
    }
}
