//! What all projects of a process share: engines, the clock of deadlines, TLS to the outside, a change feed a database,
//! and a budget of connections to Postgres.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use convoke_engine::{CacheDirs, Engine, EngineError, EngineOptions, Engines, Reset, ShareError};
use convoke_feed::{Feed, FeedOptions};
use convoke_model::Limits;
use convoke_postgres::Config;
use convoke_store::StoreError;
use convoke_sync::SyncError;
use thiserror::Error;
use tokio_rustls::TlsConnector;

use crate::open_files::{self, Room};
use crate::outbound::{AllowList, AllowListError, HttpGate};

/// Connections that a project needs at least: rounds of live queries keep one each between two queries, and another one
/// has to be left for those who wait with an instance.
pub const CONNECTIONS_MIN: usize = 2;

/// What a process is given to share out.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    pub cache: CacheDirs,
    /// What no project exceeds; `instances_max` is for all projects together.
    pub limits: Limits,
    /// Connections to Postgres for the calls of all projects together.
    pub connections_max: usize,
    pub projects_max: u32,
}

/// Why a project got no connections.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectionsError {
    #[error("`connections_max` is {0}, and a project needs at least {CONNECTIONS_MIN}")]
    TooFew(usize),
    #[error("{wanted} connections are wanted, and the other projects of the process leave {left}")]
    NoneLeft { wanted: usize, left: usize },
}

/// Why a host could not start.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("cannot start the WebAssembly engine")]
    Engine(#[from] EngineError),
    #[error("the process has no room for the project")]
    Share(#[from] ShareError),
    #[error("the process has no connections for the project")]
    Connections(#[from] ConnectionsError),
    #[error("cannot open the database")]
    Store(#[from] StoreError),
    #[error("cannot prepare the database")]
    Sync(#[from] SyncError),
    #[error("the list of allowed outbound hosts is not valid")]
    Outbound(#[from] AllowListError),
}

/// Made once; projects are opened in it.
#[derive(Debug, Clone)]
pub struct Process {
    shared: Arc<Shared>,
}

struct Shared {
    engines: Engines,
    outbound_tls: TlsConnector,
    connections_left: AtomicUsize,
    /// What each project's listener may have open.
    room: Room,
    /// One a database, by [`address`]. One that nobody follows holds nothing.
    feeds: Mutex<Vec<(String, Feed)>>,
}

/// A project's connections, which go back to the process with it.
#[derive(Debug)]
pub(crate) struct Connections {
    process: Process,
    count: usize,
}

impl Process {
    /// Starts the engines. Connects to nothing.
    ///
    /// # Errors
    /// When wasmtime or the cache refuse.
    pub fn start(config: ProcessConfig) -> Result<Self, OpenError> {
        let ProcessConfig { cache, limits, connections_max, projects_max } = config;
        let room = Room::of_each(open_files::raise(), connections_max, &limits, projects_max);
        let engines = Engines::new(EngineOptions { limits, projects_max, cache })?;
        if engines.reset() == Reset::Plain {
            tracing::info!("this kernel lacks PAGEMAP_SCAN (Linux 6.7): instances are reset the slower way");
        }
        let shared = Shared {
            engines,
            outbound_tls: HttpGate::connector(),
            connections_left: AtomicUsize::new(connections_max),
            room,
            feeds: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn engine(&self, limits: Limits) -> Result<Engine, ShareError> {
        self.shared.engines.share(limits)
    }

    pub(crate) fn gate(&self, allow: AllowList) -> HttpGate {
        HttpGate::new(allow, self.shared.outbound_tls.clone())
    }

    pub(crate) fn room(&self) -> Room {
        self.shared.room
    }

    pub(crate) fn connections(&self, wanted: usize) -> Result<Connections, ConnectionsError> {
        if wanted < CONNECTIONS_MIN {
            return Err(ConnectionsError::TooFew(wanted));
        }
        let left = &self.shared.connections_left;
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(wanted));
        taken.map_err(|left| ConnectionsError::NoneLeft { wanted, left })?;
        Ok(Connections { process: self.clone(), count: wanted })
    }

    /// The change feed of a database, the same for all its projects.
    pub(crate) fn feed(&self, postgres: &Config) -> Feed {
        let address = address(postgres);
        let mut feeds = self.shared.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, feed)) = feeds.iter().find(|(known, _)| *known == address) {
            return feed.clone();
        }
        let feed = Feed::start(FeedOptions::new(postgres.clone()));
        feeds.push((address, feed.clone()));
        feed
    }
}

impl Connections {
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.process.shared.connections_left.fetch_add(self.count, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Process").field("engines", &self.engines).finish_non_exhaustive()
    }
}

/// Where the database is, and as whom it is followed.
fn address(postgres: &Config) -> String {
    let (hosts, numbers, ports) = (postgres.get_hosts(), postgres.get_hostaddrs(), postgres.get_ports());
    format!("{hosts:?} {numbers:?} {ports:?} {:?} {:?}", postgres.get_dbname(), postgres.get_user())
}
