//! Compiled components on disk.
//!
//! Loading native code is only as safe as where it comes from: a file counts only if its first bytes are a keyed digest
//! (HMAC-SHA-256) of the rest under a key that this host made and that nobody else may read. Anything else is as if it
//! were not there, and is compiled again. The key lies in a folder of the user's, as the other one may have come from
//! elsewhere: with a project that was downloaded, keys and all.
//!
//! Several hosts may share the folder. A file appears whole, by a rename, or not at all; what a crash leaves half
//! written is removed by a later host.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, Mac};
use rand::TryRngCore;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 32;
const KEY_FILE: &str = "key";
/// Held while the key is made: two hosts that start at once agree on one.
const LOCK_FILE: &str = "lock";
const TEMPORARY_PREFIX: &str = "tmp-";

/// All compiled components together. A Rust component of 300 kB has some 2 MiB here, for its two engines, and one of Python
/// some 100: room for an hour of edits, or for a project's versions of a month. What is in use was read into memory.
const CACHE_BYTES_MAX: u64 = 256 << 20;
/// A file that is being written is renamed within seconds: one this old belongs to a host that crashed.
const TEMPORARY_AGE_MAX: Duration = Duration::from_hours(1);

/// Where compiled components are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDirs {
    /// The components.
    pub compiled: PathBuf,
    /// The key that says which of them this user's hosts have written. Nobody else may have put anything there. Without
    /// one, each host has a key of its own, and compiles anew what others compiled.
    pub key: Option<PathBuf>,
}

impl CacheDirs {
    /// One folder for both, which nobody but this user has ever written to.
    pub fn private(directory: PathBuf) -> Self {
        Self { key: Some(directory.clone()), compiled: directory }
    }
}

/// A folder of compiled components.
pub(crate) struct Cache {
    directory: PathBuf,
    key: [u8; KEY_BYTES],
    bytes_max: u64,
}

impl Cache {
    pub(crate) fn open(dirs: CacheDirs) -> io::Result<Self> {
        Self::with_bound(dirs, CACHE_BYTES_MAX)
    }

    fn with_bound(dirs: CacheDirs, bytes_max: u64) -> io::Result<Self> {
        let CacheDirs { compiled, key } = dirs;
        open_directory(&compiled)?;
        let key = match key.map(|key| read_or_make_key(&key).map_err(|error| (key, error))) {
            Some(Ok(key)) => key,
            Some(Err((path, error))) => {
                tracing::warn!(%error, path = %path.display(), "no key can be kept: what is compiled is for this host alone");
                new_key()?
            }
            None => new_key()?,
        };
        Ok(Self { directory: compiled, key, bytes_max })
    }

    /// The component, from the cache or by compiling it; what was compiled is kept. A cache that cannot be written
    /// costs time, not the component.
    pub(crate) fn component(&self, engine: &wasmtime::Engine, wasm: &[u8]) -> wasmtime::Result<Component> {
        let path = self.directory.join(file_name(engine, wasm));
        if let Some(component) = self.load(engine, &path) {
            return Ok(component);
        }
        let component = Component::from_binary(engine, wasm)?;
        let kept = component.serialize()?;
        if let Err(error) = self.store(&path, &kept).and_then(|()| self.evict()) {
            tracing::warn!(%error, path = %path.display(), "could not keep a compiled component");
        }
        Ok(component)
    }

    fn load(&self, engine: &wasmtime::Engine, path: &Path) -> Option<Component> {
        let bytes = fs::read(path).ok()?;
        let (tag, code) = bytes.split_at_checked(TAG_BYTES)?;
        if self.mac(path, code).verify_slice(tag).is_err() {
            tracing::warn!(path = %path.display(), "a compiled component was not written by this host: compiling again");
            return None;
        }
        #[expect(unsafe_code, reason = "wasmtime's only way to load what it compiled before")]
        // SAFETY: the bytes are what `Component::serialize` gave this host: the digest over them and their name was
        // made with a key that only this host's user can read. They are in memory, so nobody changes them meanwhile.
        let component = unsafe { Component::deserialize(engine, code) };
        let component = component.ok()?;
        if let Err(error) = mark_used(path) {
            tracing::debug!(%error, path = %path.display(), "could not note the use of a compiled component");
        }
        Some(component)
    }

    /// What is dropped before its rename, for whatever reason, removes itself.
    fn store(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let mut file = self.temporary()?;
        file.write_all(&self.mac(path, code).finalize().into_bytes())?;
        file.write_all(code)?;
        file.persist(path)?;
        Ok(())
    }

    fn temporary(&self) -> io::Result<tempfile::NamedTempFile> {
        temporary_in(&self.directory)
    }

    /// Removes what was used longest ago until the rest is within the bound, and what crashed hosts left.
    fn evict(&self) -> io::Result<()> {
        let mut files = Vec::new();
        let mut bytes = 0;
        for entry in fs::read_dir(&self.directory)? {
            let Some(file) = Kept::of(&entry?)? else { continue };
            if file.is_left_over() {
                remove(&file.path)?;
                continue;
            }
            bytes += file.bytes;
            files.push(file);
        }
        files.sort_by_key(|file| file.used);
        for file in files {
            if bytes <= self.bytes_max {
                break;
            }
            remove(&file.path)?;
            bytes -= file.bytes;
        }
        Ok(())
    }

    /// The name is part of what is signed, so that one component's code never passes for another's.
    fn mac(&self, path: &Path, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        mac.update(&[0]);
        mac.update(code);
        mac
    }
}

/// A file of the folder that takes room: neither the key nor the lock.
struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
    is_temporary: bool,
}

impl Kept {
    /// None where another host has removed it meanwhile.
    fn of(entry: &fs::DirEntry) -> io::Result<Option<Self>> {
        let name = entry.file_name();
        if name == KEY_FILE || name == LOCK_FILE {
            return Ok(None);
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_temporary = name.to_string_lossy().starts_with(TEMPORARY_PREFIX);
        let used = metadata.modified()?;
        Ok(metadata.is_file().then(|| Self { path: entry.path(), bytes: metadata.len(), used, is_temporary }))
    }

    /// A time that is yet to come is that of a clock that was set back: it is no reason to remove anything.
    fn is_left_over(&self) -> bool {
        self.is_temporary && self.used.elapsed().is_ok_and(|age| age > TEMPORARY_AGE_MAX)
    }
}

/// The digest of a component: how a version is named.
pub fn digest(wasm: &[u8]) -> String {
    Sha256::digest(wasm).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn file_name(engine: &wasmtime::Engine, wasm: &[u8]) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{}-{:016x}.cwasm", digest(wasm), hasher.finish())
}

/// The time of the last use is the file's own: it outlives the host, and the hosts of a folder share it.
fn mark_used(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

/// Another host may have been first.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn open_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// A key that a crash left short, or that others may have made or read, is made anew: what was signed with it is compiled
/// again.
fn read_or_make_key(directory: &Path) -> io::Result<[u8; KEY_BYTES]> {
    open_directory(directory)?;
    let path = directory.join(KEY_FILE);
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(directory.join(LOCK_FILE))?;
    // Given back by closing the file, a crash included.
    lock.lock()?;
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    let key = new_key()?;
    let mut file = temporary_in(directory)?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(key)
}

fn new_key() -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    rand::rngs::OsRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
    Ok(key)
}

/// A new file that only this user may read.
fn temporary_in(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(directory)
}

fn read_key(path: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Another user's is not to be trusted, and one that cannot be read is no use.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(error),
    };
    if !is_private(&file)? {
        tracing::warn!(path = %path.display(), "others may know the key of the compiled components: making another one");
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes.try_into().ok())
}

/// Whether a file is this user's, and nobody else may read or write it.
#[cfg(unix)]
fn is_private(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o777 == 0o600)
}

#[cfg(not(unix))]
fn is_private(_: &File) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
