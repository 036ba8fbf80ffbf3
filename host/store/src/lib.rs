//! Postgres: the pool, the transactions of calls, documents, and the tables that a project declares.
//!
//! Invariant: with `local-postgres` the only crate of the host that speaks to Postgres. A [`CallDatabase`] is made for
//! one run of one function; a [`Store`] once a host.

mod call;
mod changes;
mod document;
mod error;
mod pipeline;
mod pool;
mod reads;
mod statement;
mod sync;
mod unmanaged;
mod writes;

pub use call::{CallDatabase, CallOptions, Isolation, RequestKey};
pub use error::StoreError;
pub use pool::{Store, StoreOptions};
