//! A server for tests: one a process, a database a test.

use std::{
    env,
    fs::{self, DirBuilder, File, TryLockError},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process,
};

use convoke_postgres::{Config, ConnectError};
use nix::unistd::geteuid;
use tokio::sync::OnceCell;

use crate::{Durability, Error, LocalPostgres, Options};

/// Names a server to use instead of starting one, for runners that give each test a process of its own. Its databases
/// are dropped and created as the tests say.
pub const SERVER_ENV: &str = "CONVOKE_TEST_DATABASE_URL";

/// The server of this test process.
#[derive(Debug)]
pub struct TestCluster {
    config: Config,
    _server: Option<LocalPostgres>,
}

impl TestCluster {
    /// The server of this process, started on the first call and ended with the process.
    pub async fn shared() -> Result<&'static Self, Error> {
        static SHARED: OnceCell<TestCluster> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    async fn start() -> Result<Self, Error> {
        let given = env::var(SERVER_ENV).ok().filter(|url| !url.is_empty());
        if let Some(config) = given.and_then(|url| url.parse().ok()) {
            return Ok(Self { config, _server: None });
        }
        let options = Options { durability: Durability::Fast, ..Options::new(directory()?) };
        let server = LocalPostgres::start(&options).await?;
        Ok(Self { config: server.config(), _server: Some(server) })
    }

    /// An empty database of this name; an earlier one of the name is dropped.
    pub async fn create_database(&self, name: &str) -> Result<Config, Error> {
        self.create_database_from(name, "template1").await
    }

    /// A copy of the database `template`, to which nobody may be connected. Cheaper than making its tables anew.
    pub async fn create_database_from(&self, name: &str, template: &str) -> Result<Config, Error> {
        let failed = |source| Error::CreateDatabase { database: name.into(), source };
        let (client, connection) = self.config.connect().await.map_err(failed)?;
        let connection = tokio::spawn(connection);
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
        client.batch_execute(&drop).await.map_err(ConnectError::from).map_err(failed)?;
        let create = format!("CREATE DATABASE {} TEMPLATE {}", quoted(name), quoted(template));
        client.batch_execute(&create).await.map_err(ConnectError::from).map_err(failed)?;
        std::mem::drop(client);
        let _ = connection.await;
        let mut config = self.config.clone();
        config.dbname(name);
        Ok(config)
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A directory for this process's server, with those of ended processes removed: what is in a `static` is not dropped,
/// so a process cannot remove its own.
fn directory() -> Result<PathBuf, Error> {
    let me = geteuid().as_raw();
    let base = env::temp_dir().join(format!("convoke-test-{me}"));
    // Open to pass, for the unprivileged server of a root parent; everything inside guards itself.
    match DirBuilder::new().mode(0o711).create(&base) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", base)(error));
        }
        _ => {}
    }
    let metadata = base.symlink_metadata().map_err(Error::io("look at", &base))?;
    if !metadata.is_dir() || metadata.uid() != me {
        return Err(Error::SocketDir { path: base, uid: metadata.uid() });
    }
    for entry in base.read_dir().map_err(Error::io("list", &base))?.flatten() {
        if is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(base.join(process::id().to_string()))
}

/// Whether nobody holds the lock of this server directory. One without a lock file may be in the making.
fn is_abandoned(directory: &Path) -> bool {
    let lock = File::open(directory.join("lock"));
    lock.is_ok_and(|lock| !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}
