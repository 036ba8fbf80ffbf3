//! Watching what the components are made from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout_at};

use crate::plan::Sources;
use crate::{Builder, ModuleName};

/// Quiet time after which a save is over. An editor writes, renames and sets attributes within a few milliseconds;
/// whatever comes later starts another build, which is no harm.
const QUIET: Duration = Duration::from_millis(25);

/// A stream of changes (a checkout, a code generator) is answered after this much of it.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// Larger files are compared by size and time: sources are far smaller, and reading a large one would cost the latency.
const HASHED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Sees the saves that ask for another build. Made once a `dev`.
#[derive(Debug)]
pub struct Watcher {
    notify: RecommendedWatcher,
    events: UnboundedReceiver<notify::Result<Event>>,
    project_file: PathBuf,
    sources: BTreeMap<ModuleName, Sources>,
    watched: BTreeSet<PathBuf>,
    /// Contents as last seen. A build script that writes the same file again, or a `touch`, is no change; without this a
    /// build that writes into its own sources would follow itself for ever.
    seen: HashMap<PathBuf, Stamp>,
    pending: Change,
    since: Option<(Instant, Instant)>,
}

/// What changed since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The modules whose sources changed.
    pub modules: BTreeSet<ModuleName>,
    /// `convoke.toml` changed: load the project again.
    pub project_file: bool,
    /// A `Cargo.toml` changed: the builder has to forget its plan.
    pub cargo_manifests: bool,
}

impl Change {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another change says.
    pub fn merge(&mut self, other: Self) {
        self.modules.extend(other.modules);
        self.project_file |= other.project_file;
        self.cargo_manifests |= other.cargo_manifests;
    }
}

/// Why the files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The system refuses.
    #[error("the project's files cannot be watched")]
    System(#[source] notify::Error),
    /// Nothing will come any more.
    #[error("the watch of the project's files ended")]
    Ended,
}

impl WatchError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::System(error) if is_watch_limit(error) => Some(
                "the system has no watches left: raise `fs.inotify.max_user_watches` and `fs.inotify.max_user_instances` with `sysctl`, or run without watching by `--once`"
                    .to_owned(),
            ),
            Self::System(_) | Self::Ended => Some("run without watching by `--once`".to_owned()),
        }
    }
}

fn is_watch_limit(error: &notify::Error) -> bool {
    // inotify says ENOSPC for watches and EMFILE for instances.
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => true,
        notify::ErrorKind::Io(error) => {
            error.kind() == io::ErrorKind::StorageFull || error.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32)
        }
        _ => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    Gone,
    Content(u64),
    Large(u64, Option<SystemTime>),
}

impl Watcher {
    /// Starts to watch what the builder builds from.
    ///
    /// # Errors
    ///
    /// When the system cannot watch files, or no more of them.
    pub fn new(builder: &Builder) -> Result<Self, WatchError> {
        let (sender, events) = unbounded_channel();
        let notify = notify::recommended_watcher(move |event| {
            // Nobody listens any more: the watch is about to end.
            let _ = sender.send(event);
        })
        .map_err(WatchError::System)?;
        let mut watcher = Self {
            notify,
            events,
            project_file: builder.project().file(),
            sources: BTreeMap::new(),
            watched: BTreeSet::new(),
            seen: HashMap::new(),
            pending: Change::default(),
            since: None,
        };
        watcher.follow(builder)?;
        Ok(watcher)
    }

    /// Watches also what the builder learned since: to be called after each build.
    ///
    /// # Errors
    ///
    /// When the system can watch no more files.
    pub fn follow(&mut self, builder: &Builder) -> Result<(), WatchError> {
        self.sources = builder.sources();
        let mut parents: BTreeSet<PathBuf> = self.project_file.parent().map(Path::to_owned).into_iter().collect();
        let mut trees = BTreeSet::new();
        for sources in self.sources.values() {
            // Files are watched through their directory: editors replace a file, and a watch of it would follow the old
            // one. The same for a directory that a checkout removes and brings back.
            parents
                .extend(sources.files.iter().chain(&sources.dirs).filter_map(|path| path.parent().map(Path::to_owned)));
            trees.extend(sources.dirs.iter().cloned());
        }
        for tree in trees {
            self.watch_tree(&tree)?;
        }
        for parent in parents {
            self.watch_dir(&parent, RecursiveMode::NonRecursive)?;
        }
        Ok(())
    }

    /// The next change, some milliseconds after the last write of it. What happens between two calls is not lost, nor is
    /// what a call has seen whose future is dropped.
    ///
    /// # Errors
    ///
    /// When the system ends the watch.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            let event = match self.since {
                None => self.events.recv().await,
                Some((first, last)) => {
                    let deadline = (last + QUIET).min(first + WAIT_MAX);
                    let Ok(event) = timeout_at(deadline, self.events.recv()).await else {
                        self.since = None;
                        return Ok(std::mem::take(&mut self.pending));
                    };
                    event
                }
            };
            self.take(event.ok_or(WatchError::Ended)?)?;
            if !self.pending.is_empty() {
                let now = Instant::now();
                self.since = Some((self.since.map_or(now, |(first, _)| first), now));
            }
        }
    }

    fn take(&mut self, event: notify::Result<Event>) -> Result<(), WatchError> {
        let event = match event {
            Ok(event) if event.need_rescan() => return self.take_everything(),
            Ok(event) => event,
            Err(error) if is_watch_limit(&error) => return Err(WatchError::System(error)),
            // A path that is gone again.
            Err(_) => return Ok(()),
        };
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Any
            | EventKind::Other => {}
            EventKind::Access(_) => return Ok(()),
        }
        let may_be_new = matches!(event.kind, EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_)));
        for path in event.paths {
            self.take_path(&path, may_be_new)?;
        }
        Ok(())
    }

    fn take_path(&mut self, path: &Path, may_be_new: bool) -> Result<(), WatchError> {
        let change = self.change_at(path);
        if change.is_empty() {
            return Ok(());
        }
        if path.is_dir() {
            if may_be_new {
                // The system forgot the watch of a directory that went, and a new one has none yet.
                self.watched.retain(|dir| !dir.starts_with(path));
                self.watch_below(path)?;
                self.pending.merge(change);
            }
            return Ok(());
        }
        let stamp = stamp(path);
        if self.seen.insert(path.to_owned(), stamp) != Some(stamp) {
            self.pending.merge(change);
        }
        Ok(())
    }

    /// The system lost events: anything may have changed.
    fn take_everything(&mut self) -> Result<(), WatchError> {
        self.watched.clear();
        let trees: Vec<_> = self.sources.values().flat_map(|sources| sources.dirs.iter().cloned()).collect();
        for tree in trees {
            self.watch_tree(&tree)?;
        }
        let modules = self.sources.keys().cloned().collect();
        self.pending.merge(Change { modules, project_file: true, cargo_manifests: true });
        Ok(())
    }

    /// What a change of this path means.
    fn change_at(&self, path: &Path) -> Change {
        let concerns = |sources: &Sources| {
            sources.files.contains(path)
                || sources.dirs.iter().any(|dir| match path.strip_prefix(dir) {
                    Ok(below) => !is_ignored(dir, below),
                    // A directory above came back.
                    Err(_) => dir.starts_with(path),
                })
        };
        let modules: BTreeSet<_> =
            self.sources.iter().filter(|(_, sources)| concerns(sources)).map(|(module, _)| module.clone()).collect();
        let cargo_manifests = !modules.is_empty() && path.file_name().is_some_and(|name| name == "Cargo.toml");
        Change { modules, project_file: path == self.project_file, cargo_manifests }
    }

    /// The source directories at, above or below a path that came to be.
    fn watch_below(&mut self, path: &Path) -> Result<(), WatchError> {
        let roots = self.sources.values().flat_map(|sources| &sources.dirs);
        let below: BTreeSet<_> = roots.filter(|root| root.starts_with(path)).cloned().collect();
        if below.is_empty() {
            return self.watch_tree(path);
        }
        below.iter().try_for_each(|root| self.watch_tree(root))
    }

    /// Watches a directory and all below it. On Linux each directory has a watch of its own, which is why those that
    /// are ignored (a `target` has thousands) are left out; elsewhere the system watches trees.
    fn watch_tree(&mut self, root: &Path) -> Result<(), WatchError> {
        if !cfg!(target_os = "linux") {
            return self.watch_dir(root, RecursiveMode::Recursive);
        }
        let mut open = vec![root.to_owned()];
        while let Some(dir) = open.pop() {
            self.watch_dir(&dir, RecursiveMode::NonRecursive)?;
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_dir && !is_ignored(&dir, Path::new(&entry.file_name())) {
                    open.push(entry.path());
                }
            }
        }
        Ok(())
    }

    fn watch_dir(&mut self, dir: &Path, mode: RecursiveMode) -> Result<(), WatchError> {
        if self.watched.contains(dir) || !dir.is_dir() {
            return Ok(());
        }
        match self.notify.watch(dir, mode) {
            Ok(()) => {
                self.watched.insert(dir.to_owned());
                Ok(())
            }
            // Gone between the look and the watch.
            Err(_) if !dir.exists() => Ok(()),
            Err(error) => Err(WatchError::System(error)),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let Ok(metadata) = path.metadata() else {
        return Stamp::Gone;
    };
    if metadata.len() > HASHED_BYTES_MAX {
        return Stamp::Large(metadata.len(), metadata.modified().ok());
    }
    let Ok(bytes) = std::fs::read(path) else {
        return Stamp::Gone;
    };
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Stamp::Content(hasher.finish())
}

/// Whether a path below a source directory is none of its sources: build output, version control, editors' own files.
fn is_ignored(root: &Path, below: &Path) -> bool {
    let mut path = root.to_owned();
    for part in below {
        let beside = path.join("Cargo.toml");
        path.push(part);
        let Some(name) = part.to_str() else {
            continue;
        };
        let is_hidden = name.starts_with('.') && name != ".cargo";
        // A module of the source may be called `target` too.
        let is_cargo_target = name == "target" && (beside.exists() || path.join("CACHEDIR.TAG").exists());
        if is_hidden || is_cargo_target || name == "node_modules" || is_temporary(name) {
            return true;
        }
    }
    false
}

fn is_temporary(name: &str) -> bool {
    let ends = ["~", ".swp", ".swx", ".tmp", ".bak", ".orig", "___jb_tmp___", "___jb_old___"];
    ends.iter().any(|end| name.ends_with(end))
        || (name.starts_with('#') && name.ends_with('#'))
        // Vim's probe whether it may write here.
        || name == "4913"
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
