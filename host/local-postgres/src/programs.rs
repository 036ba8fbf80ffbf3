//! Which Postgres programs to take: installed ones first, then those of a fetched package.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    Options, Search,
    error::Error,
    fetch, pins,
    version::{MAJOR_MIN, Version},
};

/// Which programs were taken, and where from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Installed programs, from a directory of `PATH`.
    Path {
        /// Where they are.
        bin_dir: PathBuf,
        /// What they say they are.
        version: Version,
    },
    /// Installed programs, from a place where distributions put them without adding it to `PATH`.
    System {
        /// Where they are.
        bin_dir: PathBuf,
        /// What they say they are.
        version: Version,
    },
    /// Programs of a package, fetched once into the cache.
    Fetched {
        /// Where they are.
        bin_dir: PathBuf,
        /// What they say they are.
        version: Version,
        /// The package's name.
        package: &'static str,
        /// The package's own version.
        package_version: &'static str,
    },
}

impl Source {
    /// The directory of `postgres` and `initdb`.
    pub fn bin_dir(&self) -> &Path {
        match self {
            Self::Path { bin_dir, .. } | Self::System { bin_dir, .. } | Self::Fetched { bin_dir, .. } => bin_dir,
        }
    }

    /// The version of the programs.
    pub fn version(&self) -> &Version {
        match self {
            Self::Path { version, .. } | Self::System { version, .. } | Self::Fetched { version, .. } => version,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres {} ", self.version())?;
        match self {
            Self::Path { bin_dir, .. } => write!(f, "from `{}`, on PATH", bin_dir.display()),
            Self::System { bin_dir, .. } => write!(f, "from `{}`", bin_dir.display()),
            Self::Fetched { bin_dir, package, package_version, .. } => {
                write!(f, "from the package `{package}` {package_version}, kept in `{}`", bin_dir.display())
            }
        }
    }
}

/// Finds programs that can open the data at `data`, which the major version `major` has written, where there are any.
pub(crate) fn find(options: &Options, data: &Path, major: Option<u32>) -> Result<Source, Error> {
    let mut rejected = Vec::new();
    if options.search != Search::Fetched {
        for (bin_dir, on_path) in places() {
            match probe(&bin_dir) {
                Ok(version) if version.major() < MAJOR_MIN => rejected.push(too_old(&bin_dir, &version)),
                Ok(version) if major.is_some_and(|major| major != version.major()) => {
                    rejected.push(other_major(&bin_dir, &version));
                }
                Ok(version) if on_path => return Ok(Source::Path { bin_dir, version }),
                Ok(version) => return Ok(Source::System { bin_dir, version }),
                Err(why) => rejected.push(format!("`{}`: {why}", bin_dir.display())),
            }
        }
    }
    match major {
        Some(major) if major != pins::MAJOR => Err(Error::DataVersion { data: data.into(), major, rejected }),
        _ if options.search == Search::Installed => match major {
            Some(major) => Err(Error::DataVersion { data: data.into(), major, rejected }),
            None => Err(Error::NoPrograms { rejected }),
        },
        _ => fetch::fetched(options.cache_dir.as_deref(), rejected),
    }
}

fn too_old(bin_dir: &Path, version: &Version) -> String {
    format!("`{}` has version {version}, older than {MAJOR_MIN}", bin_dir.display())
}

fn other_major(bin_dir: &Path, version: &Version) -> String {
    format!("`{}` has version {version}, another major version than the data", bin_dir.display())
}

/// The directories that hold both programs, in the order to try them, and whether `PATH` names them.
fn places() -> impl Iterator<Item = (PathBuf, bool)> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<_> = env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    let mut seen = Vec::new();
    let all = on_path.into_iter().map(|dir| (dir, true)).chain(system_places().into_iter().map(|dir| (dir, false)));
    // Lazy: a later start should not pay for looking at more than the first.
    all.filter_map(|(dir, on_path)| Some((home_of_programs(&dir)?, on_path))).filter(move |(dir, _)| {
        !seen.contains(dir) && {
            seen.push(dir.clone());
            true
        }
    })
}

/// Where the programs of `dir` are in truth: `PATH` often names a directory of links.
fn home_of_programs(dir: &Path) -> Option<PathBuf> {
    let real = dir.join("postgres").canonicalize().ok()?;
    let home = real.parent()?;
    [home, dir]
        .into_iter()
        .find(|dir| dir.join("postgres").is_file() && dir.join("initdb").is_file())
        .map(Path::to_path_buf)
}

/// Where distributions and installers put Postgres without adding it to `PATH`.
fn system_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if cfg!(target_os = "macos") {
        for prefix in ["/opt/homebrew/opt", "/usr/local/opt"] {
            places.extend(newest_first(prefix, "postgresql", "bin"));
        }
        places.extend(newest_first("/Applications/Postgres.app/Contents/Versions", "", "bin"));
    } else {
        // Debian and its family; the project's own packages for Red Hat's; Alpine.
        places.extend(newest_first("/usr/lib/postgresql", "", "bin"));
        places.extend(newest_first("/usr", "pgsql-", "bin"));
        places.extend(newest_first("/usr/libexec", "postgresql", ""));
    }
    places.push("/usr/local/pgsql/bin".into());
    places
}

/// `parent/<prefix><version>/<below>`, by falling version.
fn newest_first(parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.trim_start_matches('@');
            let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
            let major = version[..digits].parse().ok()?;
            Some((major, Path::new(parent).join(&name).join(below)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The version of the programs in `bin_dir`, or why they do not run.
pub(crate) fn probe(bin_dir: &Path) -> io::Result<Version> {
    let output = Command::new(bin_dir.join("postgres")).arg("--version").stdin(Stdio::null()).output()?;
    let line = String::from_utf8_lossy(&output.stdout);
    Version::parse(&line).ok_or_else(|| {
        let said = if line.trim().is_empty() { String::from_utf8_lossy(&output.stderr) } else { line };
        io::Error::other(format!("`postgres --version` said: {}", said.trim()))
    })
}
