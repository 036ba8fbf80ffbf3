//! Documents over a source of rows: plans and ids to statements, rows to JSON text, pages and their cursors, what was
//! read, checks, and what is to be written.
//!
//! Invariant: no I/O, no clock, no async runtime, and no driver of Postgres: whoever has one implements [`Source`]. The same
//! code serves the host and, over another driver, a guest; it compiles for `wasm32-wasip2`.

mod changes;
mod documents;
mod reads;
mod render;
mod shape;
mod source;
mod unmanaged;
mod write_set;

pub use documents::{Documents, Noted, Project, Purpose, invalid};
pub use reads::too_many;
pub use source::{Birth, Row, Rows, Source, Unmanaged};
pub use write_set::{Control, Packet, Write, WriteSet};
