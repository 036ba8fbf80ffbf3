//! wasmtime: load a component, check what it asks for, and call its functions in fresh instances.
//!
//! Three phases: an [`Engine`] is made once a host (compilers, pools, linkers); a [`Version`] once a component
//! (compiled, checked, linked); an instance once a call, and dropped with it.
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
mod state;
mod version;
mod wasi;

pub use cache::digest;
pub use call::{Call, CallError, Outcome};
pub use engine::{Engine, EngineError, EngineOptions, Reset};
pub use load::LoadError;
pub use state::{Clock, OutboundResponse, Outside};
pub use version::Version;
