//! Building the components into `.convoke/build/`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::cargo::{self, CargoOutput, Outcome};
use crate::plan::{self, Plan, PlanError, Sources, Workspace};
use crate::target::TARGET;
use crate::{ModuleName, Project, diagnostics};

/// Builds a project's components, as often as asked. Made once a project that is loaded.
#[derive(Debug)]
pub struct Builder {
    project: Project,
    plan: Option<Plan>,
    plan_is_stale: bool,
    profile: Profile,
}

/// How cargo's release profile, with what the components' own `Cargo.toml` says of it, is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// As it is: what is deployed.
    #[default]
    Release,
    /// For the moment between a save and its answer: incremental, in many small units, without link-time optimisation.
    /// A tenth of the time for a component of a few functions, which are the same functions, somewhat larger and slower.
    Quick,
}

impl Profile {
    /// Settings for cargo, in the form that spares the packages of build scripts and macros a second compilation.
    fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Release => &[],
            Self::Quick => &[
                ("CARGO_PROFILE_RELEASE_LTO", "off"),
                ("CARGO_PROFILE_RELEASE_INCREMENTAL", "true"),
                // What rustc takes for incremental compilation unless it is told otherwise, as small components do.
                ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256"),
            ],
        }
    }
}

/// What a build left.
#[derive(Debug, Clone)]
pub struct BuildReport {
    /// One for each component of `convoke.toml`, in the order of their names.
    pub components: Vec<Built>,
    /// The compiler's warnings as it renders them, also those of packages that were up to date.
    pub warnings: Vec<String>,
}

/// A component in `.convoke/build/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The module.
    pub module: ModuleName,
    /// Its file, absolute.
    pub wasm_path: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// Whether the file is another than before the build.
    pub changed: bool,
}

/// Why there is no build.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It is not known what to build.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Cargo could not be run.
    #[error("`cargo` could not be run")]
    Cargo(#[source] io::Error),
    /// The compiler or cargo refuses.
    #[error("{}", failed_message(diagnostics, said))]
    Failed {
        /// The compiler's errors as it renders them; empty when it was cargo that refused.
        diagnostics: Vec<String>,
        /// What cargo said, unless it said it to the terminal.
        said: Vec<String>,
    },
    /// Cargo is content and there is no component.
    #[error("the build of `{module}` left no `.wasm` file")]
    NoArtifact {
        /// The module.
        module: ModuleName,
    },
    /// A file that `convoke.toml` names is no component.
    #[error("`{}`, the component `{module}`, is {what}", path.display())]
    NotAComponent {
        /// The module.
        module: ModuleName,
        /// Its file.
        path: PathBuf,
        /// What the file is.
        what: &'static str,
    },
    /// The file system refuses.
    #[error("`{}` cannot be read or written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn failed_message(diagnostics: &[String], said: &[String]) -> String {
    if !diagnostics.is_empty() {
        return "the components do not compile".to_owned();
    }
    match said.iter().position(|line| line.starts_with("error")) {
        Some(from) => format!("cargo cannot build the components:\n{}", said[from..].join("\n")),
        None => "cargo cannot build the components".to_owned(),
    }
}

impl BuildError {
    /// The compiler's errors as it renders them, with their colours on a terminal.
    pub fn diagnostics(&self) -> &[String] {
        match self {
            Self::Failed { diagnostics, .. } => diagnostics,
            _ => &[],
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Plan(error) => error.hint(),
            Self::NotAComponent { .. } => Some(
                "a component is made by `cargo build --target wasm32-wasip2` or by `wasm-tools component new`"
                    .to_owned(),
            ),
            Self::Failed { diagnostics, said } => {
                let text = diagnostics.iter().chain(said).any(|text| text.contains("E0463") && text.contains(TARGET));
                text.then(|| format!("run `rustup target add {TARGET}`"))
            }
            Self::Cargo(_) | Self::NoArtifact { .. } | Self::File { .. } => None,
        }
    }
}

/// A component's bytes before they are put in place.
type Found = BTreeMap<ModuleName, Vec<u8>>;

impl Builder {
    /// A builder for the project as it was loaded.
    pub fn new(project: Project, profile: Profile) -> Self {
        Self { project, plan: None, plan_is_stale: false, profile }
    }

    /// The project that it builds.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// Another state of the project, after a change of `convoke.toml`.
    pub fn set_project(&mut self, project: Project) {
        self.project = project;
        self.plan = None;
    }

    /// Has the next build ask cargo anew what there is: for when a `Cargo.toml` changed.
    pub fn forget_plan(&mut self) {
        // The old one goes on telling the watch where to look until there is another.
        self.plan_is_stale = true;
    }

    /// What each module is made from, as far as is known.
    pub(crate) fn sources(&self) -> BTreeMap<ModuleName, Sources> {
        self.plan.as_ref().map_or_else(|| plan::sources_without_plan(&self.project), |plan| plan.sources.clone())
    }

    /// Builds all components and puts them into `.convoke/build/`: all of them, or none when one fails. Dropping the
    /// future kills cargo and its compilers.
    ///
    /// # Errors
    ///
    /// When a component does not compile, or cannot be compiled here at all.
    pub async fn build(&mut self, mut output: CargoOutput<'_>) -> Result<BuildReport, BuildError> {
        if self.plan.is_none() || self.plan_is_stale {
            let mut plan = Plan::make(&self.project).await?;
            if let Some(old) = &self.plan {
                plan.keep_files_of(old);
            }
            self.plan = Some(plan);
            self.plan_is_stale = false;
        }
        let plan = self.plan.get_or_insert_default();
        let (found, warnings) = collect(&self.project, self.profile, plan, &mut output).await?;
        let dir = self.project.build_dir();
        let components = put_in_place(&dir, found)?;
        Ok(BuildReport { components, warnings })
    }
}

async fn collect(
    project: &Project,
    profile: Profile,
    plan: &mut Plan,
    output: &mut CargoOutput<'_>,
) -> Result<(Found, Vec<String>), BuildError> {
    let mut found = Found::new();
    let mut warnings = Vec::new();
    for workspace in &plan.workspaces {
        let outcome = run_cargo(project, profile, workspace, output).await?;
        // Read before the next workspace is built: two of them may have a package of the same name, and they share a
        // target directory.
        read_artifacts(workspace, &outcome, &mut found, &mut plan.sources)?;
        warnings.extend(outcome.warnings);
    }
    for (module, path) in &plan.prebuilt {
        let bytes = std::fs::read(path).map_err(|source| BuildError::File { path: path.clone(), source })?;
        if let Err(what) = check_component(&bytes) {
            return Err(BuildError::NotAComponent { module: module.clone(), path: path.clone(), what });
        }
        found.insert(module.clone(), bytes);
    }
    Ok((found, warnings))
}

/// What a component's memory has for its heap from the beginning. To grow a memory costs a
/// call two changes of the process' memory map, which all its threads wait for: a tenth of the CPU time of a list of 50
/// documents.
const INITIAL_HEAP_BYTES: u32 = 1 << 20;

async fn run_cargo(
    project: &Project,
    profile: Profile,
    workspace: &Workspace,
    output: &mut CargoOutput<'_>,
) -> Result<Outcome, BuildError> {
    project.create_state_dir().map_err(|source| BuildError::File { path: project.state_dir(), source })?;
    let mut command = cargo::command(&workspace.root);
    command.args(["build", "--release", "--lib", "--target", TARGET]);
    // Beside the user's own flags; `RUSTFLAGS` in the environment takes the place of both.
    command.args([
        "--config",
        &format!("target.{TARGET}.rustflags = [\"-Clink-arg=--initial-heap={INITIAL_HEAP_BYTES}\"]"),
    ]);
    match output {
        CargoOutput::Terminal => command.arg("--message-format=json,json-diagnostic-rendered-ansi"),
        CargoOutput::Lines(_) => command.arg("--message-format=json").env("CARGO_TERM_COLOR", "never"),
    };
    // One directory for all workspaces, so that components share what they depend on.
    if !is_set("CARGO_TARGET_DIR") && !is_set("CARGO_BUILD_TARGET_DIR") {
        command.arg("--target-dir").arg(project.state_dir().join("target"));
    }
    // What the user says stands.
    for (name, value) in profile.variables().iter().filter(|(name, _)| !is_set(name)) {
        command.env(name, value);
    }
    for package in &workspace.packages {
        command.args(["-p", &package.id]);
    }
    let mut outcome = cargo::run(command, output).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PlanError::CargoMissing.into(),
        _ => BuildError::Cargo(error),
    })?;
    for text in outcome.errors.iter_mut().chain(&mut outcome.warnings) {
        *text = diagnostics::relative_to(project.root(), &workspace.root, text);
    }
    if outcome.success {
        return Ok(outcome);
    }
    Err(BuildError::Failed { diagnostics: outcome.errors, said: outcome.stderr })
}

fn put_in_place(dir: &Path, found: Found) -> Result<Vec<Built>, BuildError> {
    let mut components = Vec::new();
    for (module, bytes) in found {
        let wasm_path = module.wasm_path(dir);
        let changed = std::fs::read(&wasm_path).ok().as_ref() != Some(&bytes);
        if changed {
            write_whole(&wasm_path, &bytes).map_err(|source| BuildError::File { path: wasm_path.clone(), source })?;
        }
        let digest = hex(&Sha256::digest(&bytes));
        components.push(Built { module, wasm_path, digest, size_bytes: bytes.len() as u64, changed });
    }
    let present: BTreeSet<_> = components.iter().map(|built| built.wasm_path.as_path()).collect();
    remove_others(dir, &present);
    Ok(components)
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn read_artifacts(
    workspace: &Workspace,
    outcome: &Outcome,
    found: &mut Found,
    sources: &mut BTreeMap<ModuleName, Sources>,
) -> Result<(), BuildError> {
    for package in &workspace.packages {
        let artifacts = outcome.artifacts.iter().filter(|artifact| artifact.package_id == package.id);
        let Some(path) = artifacts.flat_map(|artifact| &artifact.filenames).find(|path| plan::is_wasm(path)) else {
            return Err(BuildError::NoArtifact { module: package.module.clone() });
        };
        let bytes = std::fs::read(path).map_err(|source| BuildError::File { path: path.clone(), source })?;
        found.insert(package.module.clone(), bytes);
        if let Some(sources) = sources.get_mut(&package.module) {
            sources.files.extend(files_outside(&path.with_extension("d"), &sources.dirs));
        }
    }
    Ok(())
}

/// The files that the compiler read outside of the directories that are known (a WIT file, an `include_str!`), from the
/// list that cargo leaves beside an artifact: `artifact: source source ...`, a space in a path as `\ `.
fn files_outside(list: &Path, dirs: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(list).unwrap_or_default();
    let Some((_, files)) = text.split_once(": ") else {
        return Vec::new();
    };
    let files = files.replace("\\ ", "\0");
    let files = files.split_whitespace().map(|file| PathBuf::from(file.replace('\0', " ")));
    let files = files.filter_map(|file| file.canonicalize().ok());
    files.filter(|file| file.is_file() && !dirs.iter().any(|dir| file.starts_with(dir))).collect()
}

/// A component and a core module begin with the same four bytes; the layer after them tells which it is.
fn check_component(bytes: &[u8]) -> Result<(), &'static str> {
    match bytes {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [b'\0', b'a', b's', b'm', ..] => Err("a core WebAssembly module and no component"),
        _ => Err("no WebAssembly"),
    }
}

/// A reader sees the old file or the new one, never a part.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&fresh, bytes)?;
    std::fs::rename(&fresh, path)
}

/// Takes away the components of modules that the project no longer has. What cannot be removed harms nobody: a build
/// reports its components by name.
fn remove_others(dir: &Path, present: &BTreeSet<&Path>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_others(&path, present);
        } else if plan::is_wasm(&path) && !present.contains(path.as_path()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
