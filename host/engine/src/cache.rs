//! Compiled components on disk.
//!
//! Loading native code is only as safe as where it comes from: a file counts only if its first bytes are a keyed digest
//! (HMAC-SHA-256) of the rest under a key that this host made and that nobody else may read. Anything else is as if it
//! were not there, and is compiled again.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, Mac};
use rand::TryRngCore;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::engine::EngineError;

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 32;

/// A folder of compiled components.
pub(crate) struct Cache {
    directory: PathBuf,
    key: [u8; KEY_BYTES],
}

impl Cache {
    pub(crate) fn open(directory: PathBuf) -> Result<Self, EngineError> {
        let key = open_directory(&directory)
            .and_then(|()| read_or_make_key(&directory.join("key")))
            .map_err(|source| EngineError::Cache { path: directory.clone(), source })?;
        Ok(Self { directory, key })
    }

    /// The component, from the cache or by compiling it; what was compiled is kept. A cache that cannot be written
    /// costs time, not the component.
    pub(crate) fn component(&self, engine: &wasmtime::Engine, wasm: &[u8]) -> wasmtime::Result<Component> {
        let path = self.directory.join(file_name(engine, wasm));
        if let Some(component) = self.load(engine, &path) {
            return Ok(component);
        }
        let component = Component::from_binary(engine, wasm)?;
        if let Err(error) = self.store(&path, &component.serialize()?) {
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
        component.ok()
    }

    fn store(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let unique = format!("tmp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let temporary = self.directory.join(unique);
        let mut file = create_private(&temporary)?;
        file.write_all(&self.mac(path, code).finalize().into_bytes())?;
        file.write_all(code)?;
        drop(file);
        fs::rename(temporary, path)
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

fn open_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn read_or_make_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    match File::open(path) {
        Ok(mut file) => {
            file.read_exact(&mut key)?;
            return Ok(key);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    rand::rngs::OsRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
    match create_private(path) {
        Ok(mut file) => file.write_all(&key).map(|()| key),
        // Another host made it a moment ago.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_or_make_key(path),
        Err(error) => Err(error),
    }
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}
