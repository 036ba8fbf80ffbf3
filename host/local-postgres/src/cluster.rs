//! The cluster on disk: made ready for a server to be started on it.
//!
//! ```text
//! .convoke/postgres/
//!   lock            held while a process runs this Postgres; names it
//!   data/           the data directory, complete from the moment it has this name
//!   init-…/         one in the making
//!   data.broken-…/  one that was never complete, set aside
//!   unsynced        present until the fresh data directory is known to be on the disk
//!   run/            the socket, unless the path to it is too long for one
//!   postgres.log
//! ```

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio, id},
};

use nix::{sys::signal::Signal, unistd::geteuid};
use sha2::{Digest as _, Sha256};

use crate::{
    Durability, Options,
    account::{self, Ids, RunAs},
    error::Error,
    fetch::hex,
    leftover,
    programs::{self, Source},
    spawn,
};

/// Named in the socket's file name only, unless a port is asked for.
const PORT: u16 = 5432;
/// The longest path of a socket, without the final NUL.
const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// A log longer than this is set aside at the next start.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// A cluster with nobody else at it; made once a start.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) root: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) source: Source,
    pub(crate) run_as: RunAs,
    pub(crate) durability: Durability,
    pub(crate) port: u16,
    listen_addresses: &'static str,
    /// Whether this start made the data directory.
    pub(crate) created: bool,
    /// Released when it is closed, by whatever end of the process.
    _lock: File,
}

impl Cluster {
    /// Takes the lock, finds programs, ends a server that lost its parent, and makes the data where there are none.
    pub(crate) fn prepare(options: &Options) -> Result<Self, Error> {
        let root = &options.data_root;
        fs::create_dir_all(root).map_err(Error::io("create", root))?;
        let root = root.canonicalize().map_err(Error::io("find", root))?;
        // A server under another account has to pass; nobody has to read.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        fs::set_permissions(&root, Permissions::from_mode(mode)).map_err(Error::io("change the mode of", &root))?;
        let lock = lock(&root)?;
        let data = root.join("data");
        remove_unfinished(&root);
        let data_owner = set_aside_unless_whole(&data)?;
        let source = programs::find(options, &data, data_owner.map(|_| major_of(&data)).transpose()?)?;
        let socket_dir = socket_dir(&root);
        let socket_parent = socket_dir.parent().unwrap_or(&socket_dir);
        let run_as = RunAs::choose(data_owner, &[source.bin_dir(), socket_parent, &root])?;
        let log = root.join("postgres.log");
        let durability = options.durability;
        let mut cluster = Self {
            root,
            data,
            socket_dir,
            log,
            source,
            run_as,
            durability,
            port: options.tcp_port.unwrap_or(PORT),
            listen_addresses: if options.tcp_port.is_some() { "127.0.0.1" } else { "" },
            created: data_owner.is_none(),
            _lock: lock,
        };
        if cluster.created {
            cluster.init()?;
        } else {
            leftover::clear(&cluster.data)?;
            cluster.run_as.claim(&cluster.data)?;
        }
        cluster.prepare_socket_dir()?;
        Ok(cluster)
    }

    /// The command of the server. Its output is the log.
    pub(crate) fn server(&self) -> Result<Command, Error> {
        let mut command = spawn::command(&self.source.bin_dir().join("postgres"), self.run_as, Signal::SIGINT);
        command.arg("-D").arg(&self.data);
        let socket_dir = format!("\"{}\"", self.socket_dir.display().to_string().replace('"', "\"\""));
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("unix_socket_directories", &socket_dir);
        set("unix_socket_permissions", "0700");
        set("listen_addresses", self.listen_addresses);
        set("port", &self.port.to_string());
        set("cluster_name", "convoke");
        set("logging_collector", "off");
        // The change feed. A slot costs nothing until it is used; tests and several hosts share one server.
        set("wal_level", "logical");
        set("max_wal_senders", "64");
        set("max_replication_slots", "64");
        set("max_connections", "200");
        if self.durability == Durability::Fast {
            // A commit still waits for its write, which costs next to nothing: a killed server keeps it.
            set("fsync", "off");
            set("full_page_writes", "off");
            // Off by default; the change feed has to withstand them.
            set("max_prepared_transactions", "16");
        }
        let log = self.open_log()?;
        let also_log = log.try_clone().map_err(Error::io("open", &self.log))?;
        command.stdout(log).stderr(also_log);
        Ok(command)
    }

    /// The command that waits until the data directory is on the disk.
    pub(crate) fn sync(&self) -> Command {
        let mut command = spawn::command(&self.source.bin_dir().join("initdb"), self.run_as, Signal::SIGKILL);
        command.args(["--sync-only", "-D"]).arg(&self.data).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Present as long as the fresh data directory may be in memory only.
    pub(crate) fn unsynced(&self) -> PathBuf {
        self.root.join("unsynced")
    }

    /// How long the log is.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The last lines of the log since it had `from` bytes.
    pub(crate) fn log_tail(&self, from: u64) -> String {
        const LINES_MAX: usize = 20;
        let mut text = Vec::new();
        if let Ok(mut log) = File::open(&self.log) {
            let _ = log.seek(SeekFrom::Start(from)).and_then(|_| log.read_to_end(&mut text));
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
    }

    fn open_log(&self) -> Result<File, Error> {
        if self.log_bytes() > LOG_BYTES_MAX {
            let old = self.root.join("postgres.log.old");
            fs::rename(&self.log, &old).map_err(Error::io("rename", &self.log))?;
        }
        OpenOptions::new().create(true).append(true).open(&self.log).map_err(Error::io("open", &self.log))
    }

    /// Makes the data directory under another name, so that a half-made one is never taken for whole.
    fn init(&mut self) -> Result<(), Error> {
        let fresh = self.root.join(format!("{UNFINISHED}{}", id()));
        DirBuilder::new().mode(0o700).create(&fresh).map_err(Error::io("create", &fresh))?;
        self.run_as.claim(&fresh)?;
        let mut command = spawn::command(&self.source.bin_dir().join("initdb"), self.run_as, Signal::SIGKILL);
        command.args(["--no-instructions", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
        // Small segments: a project's own little cluster then starts with 1 MiB of WAL, not 16.
        // No sync: to wait for the disk would take longer than all the rest. It goes on beside the server, see `sync.rs`.
        command.args(["--wal-segsize=1", "--no-sync", "-D"]).arg(&fresh);
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => return Err(self.refused(command.get_program().as_ref(), error)),
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let _ = fs::remove_dir_all(&fresh);
            return Err(Error::Init { data: self.data.clone(), version: self.source.version().clone(), output: said });
        }
        if self.durability == Durability::Durable {
            let marker = self.unsynced();
            File::create(&marker).and_then(|file| file.sync_all()).map_err(Error::io("create", &marker))?;
        }
        fs::rename(&fresh, &self.data).map_err(Error::io("rename", &fresh))
    }

    /// Why a program could not even be started; a refused namespace means that the account's way is barred.
    pub(crate) fn refused(&self, program: &Path, error: std::io::Error) -> Error {
        let RunAs::Namespace(ids) = self.run_as else { return Error::io("run", program)(error) };
        let paths = [self.source.bin_dir(), self.root.as_path(), self.socket_dir.as_path()];
        let barrier = paths.iter().find_map(|path| account::barrier(path, ids));
        barrier.map_or_else(|| Error::io("run", program)(error), |path| Error::Unreachable { path, uid: ids.uid })
    }

    /// Makes the directory of the socket, whose mode is all that guards a server without passwords.
    fn prepare_socket_dir(&self) -> Result<(), Error> {
        let dir = &self.socket_dir;
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", dir)(error));
            }
            _ => {}
        }
        // In a shared temporary directory it may be somebody else's, or a link to elsewhere. Beside the data it is one
        // of ours, whoever ran the server last.
        let metadata = dir.symlink_metadata().map_err(Error::io("look at", dir))?;
        let me = geteuid().as_raw();
        let users = [self.run_as.owner(), account::unprivileged().filter(|_| geteuid().is_root())];
        let mine = dir.starts_with(&self.root)
            || metadata.uid() == me
            || users.iter().flatten().any(|ids| ids.uid == metadata.uid());
        if !metadata.is_dir() || !mine {
            return Err(Error::SocketDir { path: dir.clone(), uid: metadata.uid() });
        }
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(Error::io("change the mode of", dir))?;
        // Nobody listens any more, and a stale lock file may name a process that is somebody else by now.
        for name in [format!(".s.PGSQL.{}", self.port), format!(".s.PGSQL.{}.lock", self.port)] {
            let _ = fs::remove_file(dir.join(name));
        }
        self.run_as.claim(dir)
    }
}

/// One process at a time: the lock goes with the process that holds it, however it ends.
fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("lock");
    let mut options = OpenOptions::new();
    let mut file =
        options.create(true).truncate(false).read(true).write(true).open(&path).map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            // For a moment after it has taken the lock, it has not written its id.
            let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            return Err(Error::AlreadyRunning { data_root: root.into(), pid });
        }
        Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
    }
    let write = file.set_len(0).and_then(|()| writeln!(file, "{}", id()));
    write.map_err(Error::io("write", path))?;
    Ok(file)
}

const UNFINISHED: &str = "init-";

/// Removes what an `initdb` that was killed left behind.
fn remove_unfinished(root: &Path) {
    for entry in root.read_dir().into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            // One that stays is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The owner of the data, if there are any. A directory that is not a whole cluster gets another name.
fn set_aside_unless_whole(data: &Path) -> Result<Option<Ids>, Error> {
    let metadata = match data.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("look at", data)(error)),
    };
    if data.join("PG_VERSION").is_file() && data.join("global/pg_control").is_file() {
        return Ok(Some(Ids::of(&metadata)));
    }
    let aside = (1..=u32::MAX).map(|n| data.with_file_name(format!("data.broken-{n}"))).find(|path| !path.exists());
    let aside = aside.expect("some number is free");
    fs::rename(data, &aside).map_err(Error::io("rename", data))?;
    tracing::warn!(data = %data.display(), aside = %aside.display(), "the data directory was incomplete: set aside, made anew");
    Ok(None)
}

fn major_of(data: &Path) -> Result<u32, Error> {
    let path = data.join("PG_VERSION");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    text.trim().parse().map_err(|error| Error::io("read a version from", path)(std::io::Error::other(error)))
}

/// `run` beside the data, or a short name in the temporary directory where the path would be too long for a socket.
fn socket_dir(root: &Path) -> PathBuf {
    let fits = |dir: &PathBuf| dir.join(format!(".s.PGSQL.{}", u16::MAX)).as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
    let hash = hex(&Sha256::digest(root.as_os_str().as_encoded_bytes())[..8]);
    let short = format!("convoke-{hash}");
    let candidates = [root.join("run"), env::temp_dir().join(&short)];
    candidates.into_iter().find(fits).unwrap_or_else(|| Path::new("/tmp").join(short))
}
