//! `convoke dev`: Postgres, build, serve, watch, until a signal.

pub(crate) mod address;
mod host;
mod lock;
mod rebuild;
mod signals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_local_postgres::{Database, Options};
use convoke_project::{BuildReport, Builder, Profile, Project, Watcher};
use convoke_server::{Deployed, Host};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::args::DevArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::{port, sync, toolchain};

use self::host::Served;
pub(crate) use self::host::parse_url;
use self::rebuild::Rebuilds;
use self::signals::Signals;

/// What calls that run at the end may still take. Longer ones are cut: someone is waiting at a terminal.
const DRAIN_MAX: Duration = Duration::from_secs(5);

pub(crate) async fn dev(args: DevArgs, output: &Output) -> Result<(), Failure> {
    let started = Instant::now();
    let project = Project::find(&args.dir)?;
    let _lock = lock::take(&project)?;
    // Before the long work: a port that is taken is known at once.
    let listener = port::bind(SocketAddr::new(args.host, args.port)).await?;
    let mut signals = Signals::listen()?;
    let start = start(&args, &project, &mut signals, output);
    let Some(mut session) = start.await? else {
        output.note("Stopped");
        return Ok(());
    };
    let url = session.serve(listener)?;
    let postgres = match &session.database {
        Database::Local(local) => Some(local.connection_string()),
        Database::Given(_) => None,
    };
    let _address = address::Record::write(&project, &url, postgres)?;
    session.print_ready(&url, started.elapsed(), output);
    let end = session.run(&mut signals, output).await;
    session.stop(&mut signals, output).await;
    end
}

/// All that runs until the end.
struct Session {
    database: Database,
    host: Arc<Host>,
    /// What the host serves, and the watch that leads to the next; none with `--once`.
    rebuilds: Option<Rebuilds>,
    served: Served,
    /// What the first deploy brought, to be printed.
    deployed: Deployed,
    server: Option<Server>,
}

struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

/// Brings everything up, or says with none that a signal came first. Whatever had started is stopped then: the future
/// that runs it is dropped.
async fn start(
    args: &DevArgs,
    project: &Project,
    signals: &mut Signals,
    output: &Output,
) -> Result<Option<Session>, Failure> {
    tokio::select! {
        session = bring_up(args, project, output) => session.map(Some),
        () = signals.next() => Ok(None),
    }
}

async fn bring_up(args: &DevArgs, project: &Project, output: &Output) -> Result<Session, Failure> {
    // Who watches waits for the compiler again and again; who does not, runs what would be deployed.
    let profile = if args.once { Profile::Release } else { Profile::Quick };
    let mut builder = Builder::new(project.clone(), profile);
    // The compiler and Postgres do not need each other.
    let (database, (report, watcher)) =
        tokio::try_join!(database(args, project), first_build(&mut builder, args.once, output),)?;
    print_database(&database, output);
    let project = builder.project().clone();
    let host = host::open(&project, &database).await?;
    sync::print_warnings(host.warnings(), output);
    let mut served = Served::default();
    let mut rebuilds = watcher.map(|watcher| Rebuilds::new(builder, watcher));
    let deployed = match (served.deploy(&host, &report).await, &mut rebuilds) {
        (Ok(deployed), _) => deployed,
        (Err(failure), None) => return Err(failure),
        (Err(failure), Some(rebuilds)) => {
            output.failure(&failure);
            rebuilds.until_served(&host, &mut served, output).await?
        }
    };
    Ok(Session { database, host, rebuilds, served, deployed, server: None })
}

async fn database(args: &DevArgs, project: &Project) -> Result<Database, Failure> {
    let state = project.create_state_dir();
    let state =
        state.map_err(|e| Failure::new(format!("`{}` cannot be made", project.state_dir().display())).cause(&e))?;
    let options = Options::new(state.join("postgres"));
    Ok(convoke_local_postgres::resolve(args.database_url.as_deref(), &options).await?)
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

/// The first build that succeeds. Without a watch the first build is the only one.
async fn first_build(
    builder: &mut Builder,
    once: bool,
    output: &Output,
) -> Result<(BuildReport, Option<Watcher>), Failure> {
    toolchain::ensure_target(builder.project(), output).await?;
    if once {
        return Ok((rebuild::build(builder, output).await?, None));
    }
    // Watched from before the build, so that a save during it is not missed.
    let mut watcher = Watcher::new(builder)?;
    let report = rebuild::until_built(builder, &mut watcher, output).await?;
    Ok((report, Some(watcher)))
}

impl Session {
    fn serve(&mut self, listener: TcpListener) -> Result<String, Failure> {
        let address = listener.local_addr().map_err(|e| Failure::new("the server has no address").cause(&e))?;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            // A sender that is gone asks for the same.
            let _ = stopped.await;
        };
        let task = tokio::spawn(convoke_server::serve(Arc::clone(&self.host), listener, shutdown));
        self.server = Some(Server { stop, task });
        Ok(address::url(address))
    }

    fn print_ready(&self, url: &str, elapsed: Duration, output: &Output) {
        output.good(format!("Convoke is ready at {url} in {}", seconds(elapsed)));
        host::print_functions(&self.deployed, output);
        if self.rebuilds.is_some() {
            output.note("Watching for changes; Ctrl-C stops");
        }
    }

    /// Until a signal, which is the good end, or until something breaks.
    async fn run(&mut self, signals: &mut Signals, output: &Output) -> Result<(), Failure> {
        let Self { database, host, rebuilds, served, server, deployed: _ } = self;
        let rebuilds = async {
            match rebuilds {
                Some(rebuilds) => rebuilds.follow(host, served, output).await,
                None => std::future::pending().await,
            }
        };
        let server = async {
            match server {
                Some(server) => (&mut server.task).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signals.next() => Ok(()),
            end = rebuilds => end,
            end = server => Err(server_ended(end)),
            status = postgres_end(database) => Err(Failure::new(format!("Postgres ended with {status}"))
                .hint("its log is in `.convoke/postgres`; `convoke dev` starts it again")),
        }
    }

    /// Lets the calls that run come to their end, then stops Postgres. A second signal cuts the waiting.
    async fn stop(self, signals: &mut Signals, output: &Output) {
        output.note("Stopping");
        if let Some(Server { stop, mut task }) = self.server
            && !task.is_finished()
        {
            // The receiver is gone only when the server is.
            let _ = stop.send(());
            tokio::select! {
                _ = tokio::time::timeout(DRAIN_MAX, &mut task) => {}
                () = signals.next() => {}
            }
            task.abort();
        }
        // The connections go before the server that they are to.
        self.host.close();
        if let Database::Local(local) = self.database {
            local.stop().await;
        }
        output.note("Stopped");
    }
}

fn server_ended(end: Result<std::io::Result<()>, tokio::task::JoinError>) -> Failure {
    let failure = Failure::new("the server ended");
    match end {
        Ok(Ok(())) => failure,
        Ok(Err(error)) => failure.cause(&error),
        Err(error) => failure.cause(&error),
    }
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
