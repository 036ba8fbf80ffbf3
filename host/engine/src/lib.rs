//! wasmtime: load a component, check what it asks for, and call its functions in fresh instances.
//!
//! Four phases: [`Engines`] are made once a process (compilers, pools, linkers); an [`Engine`] once a project (its limits,
//! its share of the pools); a [`Version`] once a component (compiled, checked, linked); an instance once a call, and
//! dropped with it.
//!
//! Invariant: the only crate that knows wasmtime. It knows neither Postgres nor HTTP: what a function reaches goes
//! through [`convoke_model::Database`] and [`Outside`].

mod bindings;
mod cache;
mod call;
mod check;
mod engine;
mod host;
mod load;
mod rooms;
mod state;
mod version;
mod wasi;

pub use cache::{CacheDirs, digest};
pub use call::{Call, CallError, Outcome};
pub use engine::{Engine, EngineError, EngineOptions, Engines, Reset, ShareError};
pub use load::LoadError;
pub use rooms::{Room, SNAPSHOT_INSTANCES_MAX};
pub use state::{Clock, OutboundResponse, Outside};
pub use version::ComponentVersion;
