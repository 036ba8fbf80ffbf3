//! `convoke dev`: Postgres, build, serve, watch, until a signal; for one project or several.

pub(crate) mod address;
mod host;
mod lock;
mod rebuild;
mod signals;
mod site;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use convoke_local_postgres::{Database, Options};
use convoke_project::{Profile, Project};
use convoke_server::Process;
use futures_util::future::{join_all, select_all};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use crate::args::DevArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::{port, toolchain};

use self::host::Shares;
pub(crate) use self::host::parse_url;
use self::signals::Signals;
use self::site::Site;

pub(crate) async fn dev(args: DevArgs, output: &Output) -> Result<(), Failure> {
    let started = Instant::now();
    let projects = projects(&args.dirs)?;
    let _locks = projects.iter().map(lock::take).collect::<Result<Vec<_>, _>>()?;
    // Before the long work: a port that is taken is known at once.
    let listeners = listen(&args, projects.len()).await?;
    let mut signals = Signals::listen()?;
    let shares = Shares::of(&projects);
    let process = Process::start(shares.process(&projects[0])).map_err(|e| Failure::of(&e))?;
    // Who watches waits for the compiler again and again; who does not, runs what would be deployed.
    let profile = if args.once { Profile::Release } else { Profile::Quick };
    let together = Together { args, state: projects[0].clone(), database: OnceCell::new(), process, profile, started };
    let several = projects.len() > 1;
    let sites = projects.into_iter().zip(listeners).map(|(project, listener)| {
        let output = if several { output.of(&project.manifest().name) } else { output.clone() };
        let config = shares.project(&project);
        Site::new(project, listener, config, output)
    });
    let mut sites: Vec<Site> = sites.collect();
    let end = run(&mut sites, &together, &mut signals, output).await;
    stop(sites, together, &mut signals, output).await;
    end
}

/// What the projects of one `dev` share.
struct Together {
    args: DevArgs,
    /// The project whose `.convoke` has Postgres and the cache.
    state: Project,
    database: OnceCell<Database>,
    process: Process,
    profile: Profile,
    started: Instant,
}

impl Together {
    /// The database, started by whoever asks first.
    async fn database(&self, output: &Output) -> Result<&Database, Failure> {
        let resolve = async || {
            let state = self.state.create_state_dir();
            let failed = |e| Failure::new(format!("`{}` cannot be made", self.state.state_dir().display())).cause(&e);
            let options = Options::new(state.map_err(failed)?.join("postgres"));
            let database = convoke_local_postgres::resolve(self.args.database_url.as_deref(), &options).await?;
            print_database(&database, output);
            Ok(database)
        };
        self.database.get_or_try_init(resolve).await
    }
}

/// The projects that the directories name: each once, and no two with one schema.
fn projects(dirs: &[PathBuf]) -> Result<Vec<Project>, Failure> {
    let projects = dirs.iter().map(|dir| Ok(Project::find(dir)?)).collect::<Result<Vec<_>, Failure>>()?;
    let mut roots: BTreeMap<&str, &Project> = BTreeMap::new();
    for project in &projects {
        let name = &project.manifest().name;
        if let Some(other) = roots.insert(name, project) {
            let (one, other) = (project.root().display(), other.root().display());
            return Err(Failure::new(format!("two projects have the name `{name}`: `{other}` and `{one}`"))
                .hint("the name is that of the project's schema in the database: give one of them another"));
        }
    }
    Ok(projects)
}

/// A port for each: the one that is asked for, and those behind it.
async fn listen(args: &DevArgs, count: usize) -> Result<Vec<TcpListener>, Failure> {
    let mut listeners = Vec::with_capacity(count);
    for number in 0..count {
        // Any free one is free for each.
        let step = if args.port == 0 { Some(0) } else { u16::try_from(number).ok() };
        let port = step.and_then(|step| args.port.checked_add(step));
        let port = port.ok_or_else(|| Failure::usage(format!("there are no {count} ports from {} on", args.port)))?;
        listeners.push(port::bind(SocketAddr::new(args.host, port)).await?);
    }
    Ok(listeners)
}

fn print_database(database: &Database, output: &Output) {
    match database {
        Database::Given(_) => output.note("Postgres: the server of `DATABASE_URL`"),
        Database::Local(local) => {
            let kind = if local.is_new() { "new data" } else { "data kept" };
            output.note(format!("{}: {kind}, ready in {}", local.source(), seconds(local.elapsed())));
        }
    }
}

/// Until a signal, which is the good end, or until something breaks.
async fn run(sites: &mut [Site], together: &Together, signals: &mut Signals, output: &Output) -> Result<(), Failure> {
    let running = async {
        // It may ask a question, and what it adds is for all.
        for site in &*sites {
            toolchain::ensure_target(site.project(), output).await?;
        }
        let running = sites.iter_mut().map(|site| Box::pin(site.run(together)));
        select_all(running).await.0
    };
    tokio::select! {
        () = signals.next() => Ok(()),
        end = running => end,
    }
}

/// Lets the calls that run come to their end, then stops Postgres. A second signal cuts the waiting.
async fn stop(sites: Vec<Site>, together: Together, signals: &mut Signals, output: &Output) {
    output.note("Stopping");
    let (cut, _) = tokio::sync::watch::channel(false);
    let stopping = join_all(sites.into_iter().map(|site| site.stop(cut.subscribe())));
    tokio::pin!(stopping);
    tokio::select! {
        _ = &mut stopping => {}
        () = signals.next() => {
            cut.send_replace(true);
            stopping.await;
        }
    }
    if let Some(Database::Local(local)) = together.database.into_inner() {
        local.stop().await;
    }
    output.note("Stopped");
}

async fn postgres_end(database: &Database) -> std::process::ExitStatus {
    match database {
        Database::Local(local) => local.exited().await,
        Database::Given(_) => std::future::pending().await,
    }
}

/// A time for people: `1.2 s`.
fn seconds(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(1) {
        format!("{:.2} s", elapsed.as_secs_f64())
    } else {
        format!("{:.1} s", elapsed.as_secs_f64())
    }
}
