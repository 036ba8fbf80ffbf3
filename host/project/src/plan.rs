//! What has to be built: which cargo packages in which workspaces, and which files they are made from.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;

use crate::process::Group;
use crate::{ModuleName, Project, cargo};

/// How the project's components come about. Made once a project and again when a `Cargo.toml` changes: asking cargo
/// costs as much as a build that finds nothing to do.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) workspaces: Vec<Workspace>,
    pub(crate) prebuilt: Vec<(ModuleName, PathBuf)>,
    pub(crate) sources: BTreeMap<ModuleName, Sources>,
}

/// Packages that one run of cargo builds.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) module: ModuleName,
    /// Cargo's own name for it, which no package of a registry shares.
    pub(crate) id: String,
}

/// What a module is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Directories where any file may matter.
    pub(crate) dirs: BTreeSet<PathBuf>,
    /// Files outside of these.
    pub(crate) files: BTreeSet<PathBuf>,
}

/// Why it is not known what to build.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The path of a component leads nowhere.
    #[error("the component `{module}` has no `Cargo.toml` in `{}`", dir.display())]
    NoPackage {
        /// The module.
        module: ModuleName,
        /// Where its package should be.
        dir: PathBuf,
    },
    /// The path names a whole workspace.
    #[error("the component `{module}`: `{}` is a workspace without a package of its own", dir.display())]
    OnlyWorkspace {
        /// The module.
        module: ModuleName,
        /// The workspace.
        dir: PathBuf,
    },
    /// The package makes no component.
    #[error("the component `{module}`: the package in `{}` has no `cdylib` library", dir.display())]
    NoCdylib {
        /// The module.
        module: ModuleName,
        /// The package.
        dir: PathBuf,
    },
    /// Cargo cannot read the package.
    #[error("cargo cannot read the package in `{}`:\n{said}", dir.display())]
    Metadata {
        /// The package.
        dir: PathBuf,
        /// Cargo's message.
        said: String,
    },
    /// There is no cargo.
    #[error("`cargo` was not found on this machine")]
    CargoMissing,
    /// Cargo did not start.
    #[error("`cargo` could not be run")]
    Cargo(#[source] io::Error),
}

impl PlanError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoPackage { .. } => {
                "a component in `convoke.toml` is the directory of a cargo package or a `.wasm` file".to_owned()
            }
            Self::OnlyWorkspace { .. } => "name the directory of one of its packages".to_owned(),
            Self::NoCdylib { dir, .. } => {
                format!("add `[lib]` with `crate-type = [\"cdylib\"]` to `{}`", dir.join("Cargo.toml").display())
            }
            Self::CargoMissing => crate::target::RUST_HINT.to_owned(),
            Self::Metadata { .. } | Self::Cargo(_) => return None,
        })
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: PathBuf,
}

#[derive(Debug, Deserialize)]
struct MetadataPackage {
    id: String,
    manifest_path: PathBuf,
    targets: Vec<MetadataTarget>,
    dependencies: Vec<MetadataDependency>,
}

#[derive(Debug, Deserialize)]
struct MetadataTarget {
    crate_types: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct MetadataDependency {
    path: Option<PathBuf>,
}

impl MetadataPackage {
    fn dir(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }
}

impl Plan {
    pub(crate) async fn make(project: &Project) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        let mut read = Workspaces::default();
        for (module, path) in &project.manifest().components {
            let path = project.root().join(path);
            if is_wasm(&path) {
                plan.sources.insert(module.clone(), Sources { files: [path.clone()].into(), ..Sources::default() });
                plan.prebuilt.push((module.clone(), path));
                continue;
            }
            let Some(dir) = path.canonicalize().ok().filter(|dir| dir.join("Cargo.toml").is_file()) else {
                return Err(PlanError::NoPackage { module: module.clone(), dir: path });
            };
            let metadata = read.of(&dir).await?;
            let Some(package) = metadata.packages.iter().find(|package| package.dir() == dir) else {
                return Err(PlanError::OnlyWorkspace { module: module.clone(), dir });
            };
            if !package.targets.iter().any(|target| target.crate_types.iter().any(|kind| kind == "cdylib")) {
                return Err(PlanError::NoCdylib { module: module.clone(), dir });
            }
            let root = metadata.workspace_root.clone();
            plan.add(&root, Package { module: module.clone(), id: package.id.clone() });
            plan.sources.insert(module.clone(), read.sources_of(&dir).await?);
        }
        Ok(plan)
    }

    /// Takes over the single files that earlier builds found for the modules that are still there: should the next build
    /// fail, the repair may be in one of them.
    pub(crate) fn keep_files_of(&mut self, old: &Self) {
        for (module, sources) in &mut self.sources {
            if let Some(old) = old.sources.get(module) {
                sources.files.extend(old.files.iter().cloned());
            }
        }
    }

    fn add(&mut self, root: &Path, package: Package) {
        match self.workspaces.iter_mut().find(|workspace| workspace.root == root) {
            Some(workspace) => workspace.packages.push(package),
            None => self.workspaces.push(Workspace { root: root.to_owned(), packages: vec![package] }),
        }
    }
}

/// A component's path that names a finished component.
pub(crate) fn is_wasm(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm")
}

/// Where to look for changes as long as there is no plan: what `convoke.toml` says.
pub(crate) fn sources_without_plan(project: &Project) -> BTreeMap<ModuleName, Sources> {
    let sources = project.manifest().components.iter().map(|(module, path)| {
        let path = project.root().join(path);
        let mut sources = Sources::default();
        let set = if is_wasm(&path) { &mut sources.files } else { &mut sources.dirs };
        set.insert(path);
        (module.clone(), sources)
    });
    sources.collect()
}

/// The cargo workspaces that were read, so that each is read once.
#[derive(Default)]
struct Workspaces(Vec<Metadata>);

impl Workspaces {
    /// The workspace of the package in `dir`.
    async fn of(&mut self, dir: &Path) -> Result<&Metadata, PlanError> {
        let known = self.0.iter().position(|metadata| metadata.packages.iter().any(|package| package.dir() == dir));
        let index = if let Some(index) = known {
            index
        } else {
            self.0.push(metadata(dir).await?);
            self.0.len() - 1
        };
        Ok(&self.0[index])
    }

    /// The directories of a package and of its path dependencies, and the files of their workspaces that steer cargo.
    async fn sources_of(&mut self, dir: &Path) -> Result<Sources, PlanError> {
        let mut sources = Sources::default();
        let mut open = vec![dir.to_owned()];
        while let Some(dir) = open.pop() {
            if !sources.dirs.insert(dir.clone()) {
                continue;
            }
            let metadata = self.of(&dir).await?;
            for name in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "rust-toolchain", ".cargo/config.toml"] {
                sources.files.insert(metadata.workspace_root.join(name));
            }
            let package = metadata.packages.iter().find(|package| package.dir() == dir);
            let dependencies = package.into_iter().flat_map(|package| &package.dependencies);
            // A path that leads nowhere is for the build to report, with cargo's own words.
            let paths = dependencies.filter_map(|dependency| dependency.path.as_ref()?.canonicalize().ok());
            open.extend(paths.filter(|path| path.join("Cargo.toml").is_file()));
        }
        Ok(sources)
    }
}

/// `--no-deps` keeps cargo from resolving, and so from the network.
async fn metadata(dir: &Path) -> Result<Metadata, PlanError> {
    let mut command = cargo::command(dir);
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = Group::output(&mut command).await.map_err(cargo_error)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(PlanError::Metadata { dir: dir.to_owned(), said });
    }
    serde_json::from_slice(&output.stdout).map_err(|e| PlanError::Metadata { dir: dir.to_owned(), said: e.to_string() })
}

fn cargo_error(error: io::Error) -> PlanError {
    match error.kind() {
        io::ErrorKind::NotFound => PlanError::CargoMissing,
        _ => PlanError::Cargo(error),
    }
}
