//! One project of a `dev`: built, served and built again, whatever the others do.

use std::sync::Arc;
use std::time::Duration;

use convoke_local_postgres::Database;
use convoke_project::{BuildReport, Builder, Project, Watcher};
use convoke_server::{Deployed, Host};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::output::Output;
use crate::sync;

use super::host::{self, Served, Unconnected};
use super::rebuild::{self, Rebuilds};
use super::{Together, address, postgres_end, seconds};

/// What calls that run at the end may still take. Longer ones are cut: someone is waiting at a terminal.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A project, and what runs of it.
pub(super) struct Site {
    project: Project,
    /// Until it is served.
    listener: Option<TcpListener>,
    config: Unconnected,
    output: Output,
    host: Option<Arc<Host>>,
    server: Option<Server>,
    address: Option<address::Record>,
}

struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Site {
    pub(super) fn new(project: Project, listener: TcpListener, config: Unconnected, output: Output) -> Self {
        Self { project, listener: Some(listener), config, output, host: None, server: None, address: None }
    }

    pub(super) fn project(&self) -> &Project {
        &self.project
    }

    /// Brings the project up and follows its sources, until something breaks.
    pub(super) async fn run(&mut self, together: &Together) -> Result<(), Failure> {
        let output = self.output.clone();
        let mut builder = Builder::new(self.project.clone(), together.profile);
        // The compiler and Postgres do not need each other.
        let (database, (report, watcher)) =
            tokio::try_join!(together.database(&output), first_build(&mut builder, together.args.once, &output))?;
        let config = self.config.clone().on(database)?;
        let host = host::open(&together.process, config).await?;
        self.host = Some(Arc::clone(&host));
        sync::print_warnings(host.warnings(), &output);
        let mut served = Served::default();
        let mut rebuilds = watcher.map(|watcher| Rebuilds::new(builder, watcher));
        let deployed = match (served.deploy(&host, &report).await, &mut rebuilds) {
            (Ok(deployed), _) => deployed,
            (Err(failure), None) => return Err(failure),
            (Err(failure), Some(rebuilds)) => {
                output.failure(&failure);
                rebuilds.until_served(&host, &mut served, &output).await?
            }
        };
        self.serve(&host, database)?;
        self.print_ready(&deployed, rebuilds.is_some(), together);
        let rebuilding = async {
            match &mut rebuilds {
                Some(rebuilds) => rebuilds.follow(&host, &mut served, &output).await,
                None => std::future::pending().await,
            }
        };
        let server = async {
            match &mut self.server {
                Some(server) => (&mut server.task).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            end = rebuilding => end,
            end = server => Err(server_ended(end)),
            status = postgres_end(database) => Err(Failure::new(format!("Postgres ended with {status}"))
                .hint("its log is in `.convoke/postgres`; `convoke dev` starts it again")),
        }
    }

    fn serve(&mut self, host: &Arc<Host>, database: &Database) -> Result<(), Failure> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let address = listener.local_addr().map_err(|e| Failure::new("the server has no address").cause(&e))?;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            // A sender that is gone asks for the same.
            let _ = stopped.await;
        };
        let task = tokio::spawn(convoke_server::serve(Arc::clone(host), listener, shutdown));
        self.server = Some(Server { stop, task });
        let postgres = match database {
            Database::Local(local) => Some(local.connection_string()),
            Database::Given(_) => None,
        };
        self.address = Some(address::Record::write(&self.project, &address::url(address), postgres)?);
        Ok(())
    }

    fn print_ready(&self, deployed: &Deployed, watches: bool, together: &Together) {
        let Some(address) = &self.address else { return };
        let elapsed = seconds(together.started.elapsed());
        self.output.good(format!("Convoke is ready at {} in {elapsed}", address.url()));
        host::print_functions(deployed, &self.output);
        if watches {
            self.output.note("Watching for changes; Ctrl-C stops");
        }
    }

    /// Lets the calls that run come to their end, unless it is cut short.
    pub(super) async fn stop(self, mut cut: watch::Receiver<bool>) {
        if let Some(Server { stop, mut task }) = self.server
            && !task.is_finished()
        {
            // The receiver is gone only when the server is.
            let _ = stop.send(());
            tokio::select! {
                _ = tokio::time::timeout(DRAIN_MAX, &mut task) => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
            task.abort();
        }
        // The connections go before the server that they are to.
        if let Some(host) = self.host {
            host.close();
        }
    }
}

/// The first build that succeeds. Without a watch the first build is the only one.
async fn first_build(
    builder: &mut Builder,
    once: bool,
    output: &Output,
) -> Result<(BuildReport, Option<Watcher>), Failure> {
    if once {
        return Ok((rebuild::build(builder, output).await?, None));
    }
    // Watched from before the build, so that a save during it is not missed.
    let mut watcher = Watcher::new(builder)?;
    let report = rebuild::until_built(builder, &mut watcher, output).await?;
    Ok((report, Some(watcher)))
}

fn server_ended(end: Result<std::io::Result<()>, tokio::task::JoinError>) -> Failure {
    let failure = Failure::new("the server ended");
    match end {
        Ok(Ok(())) => failure,
        Ok(Err(error)) => failure.cause(&error),
        Err(error) => failure.cause(&error),
    }
}
