//! A Convoke project on disk: its `convoke.toml`, the build of its components into `.convoke/build/`, and the watch
//! for changes. Knows files, cargo and rustup; neither Postgres nor wasmtime nor HTTP.
//!
//! Phases: [`Project::find`] once a command; [`Builder`] and [`Watcher`] once a project that is loaded;
//! [`Builder::build`] and [`Watcher::next`] once a change.

mod build;
mod cargo;
mod diagnostics;
mod manifest;
mod module_name;
mod outbound;
mod plan;
mod process;
mod project;
pub mod target;
mod watch;

pub use build::{BuildError, BuildReport, Builder, Built, Profile};
pub use cargo::CargoOutput;
pub use manifest::{Limits, ManifestError, ProjectManifest};
pub use module_name::{InvalidModuleName, ModuleName};
pub use plan::PlanError;
pub use project::{Project, ProjectError};
pub use watch::{Change, WatchError, Watcher};

/// The file that makes a directory a project.
pub const PROJECT_FILE: &str = "convoke.toml";
