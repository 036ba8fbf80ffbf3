//! Postgres: the pool, the transactions of calls, documents.
//!
//! Invariant: with `sync`, `feed` and `local-postgres` the only crate of the host that speaks to Postgres. A [`CallDatabase`] is made for
//! one run of one function; a [`Store`] once a host.

mod backfill;
mod call;
mod error;
mod explain;
mod parameters;
mod pipeline;
mod pool;
mod receipt;
mod retention;
mod row_locks;
mod rows;
mod sessions;
mod snapshot;
mod statement;
mod transaction;

pub use backfill::{Backfill, Batch, Pass, Progress};
pub use call::{CallDatabase, CallOptions, Isolation, NoteReads};
pub use error::StoreError;
pub use pool::{Store, StoreOptions};
pub use receipt::{RECEIPT_RESULT_BYTES_MAX, Receipt};
pub use retention::{Expired, ReceiptsHorizon};
pub use snapshot::{HeldSnapshot, SharedSnapshot};
