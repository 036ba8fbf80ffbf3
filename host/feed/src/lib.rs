//! What changed in Postgres, in commit order, from its own log.
//!
//! A [`Feed`] follows a database through one temporary slot of logical decoding (`pgoutput`, protocol version 1;
//! Postgres' manual, "Logical Streaming Replication Protocol"). It sees every writer. Each [`Subscription`] has a publication
//! of its own; it receives [`FeedEvent`]s and decides by them which results are stale: exactly those whose [`Snapshot`]
//! does not contain a transaction that wrote into what they read.
//!
//! - A subscription that joins or leaves, or is slow, interrupts no other. A publication that is dropped while its
//!   subscription is there interrupts all for a moment: Postgres (before 18) then ends the stream, and the slot with it.
//! - A transaction that wrote to several projects comes to each with its own part.
//! - Only top-level transaction ids appear, as in snapshots. They have 32 bits: [`widen`] them towards a snapshot's
//!   `xmax`.
//! - A transaction may arrive before snapshots contain it: test the snapshot of the new read too.
//! - Not in the log, and so not in the feed: unlogged and temporary tables, sequences, `refresh materialized view`, and
//!   `alter table` where it rewrites rows.
//!
//! Invariant: knows nothing of queries, documents or clients; reads, and never writes but for [`ensure_publication`] and [`publish`].

mod assemble;
mod change;
mod connect;
mod coverage;
mod decode;
mod error;
mod event;
mod feed;
mod members;
mod metrics;
mod options;
mod outlet;
mod provider;
mod publication;
mod request;
mod server;
mod snapshot;
mod stream;
mod wire;

pub use change::{
    Change, ChangeKind, Column, LogicalMessage, OldRow, Relation, ReplicaIdentity, Transaction, Tuple, Value,
};
pub use decode::DecodeError;
pub use error::{FeedError, ServerError};
pub use event::{FeedEvent, GapReason, Started, System};
pub use feed::{Feed, Subscription};
pub use metrics::FeedMetrics;
pub use options::FeedOptions;
pub use provider::Provider;
pub use publication::{Coverage, PublicationState, PublicationWatch, Published, ensure_publication, publish};
pub use request::PositionRequest;
pub use server::{Probe, SlotProbe, prepare, probe};
pub use snapshot::{Snapshot, SnapshotError, widen};
