//! Live queries: subscriptions, the index of what they read, the cache of results.
//!
//! A result holds at every position of Postgres' log from where its snapshot was taken until the first transaction that
//! wrote into what it read and is not in that snapshot. [`Live`] runs a query once for all who want it, and again when
//! its result no longer holds; a [`Watcher`] shows several queries as of one position.
//!
//! A write into what a query read runs it again, even where the result then turns out to be the same. What counts as
//! read is more than what the result shows, and a run so possibly needless, in these cases and no other:
//!
//! - an update of a row that was given as a whole, whichever field it changes;
//! - a filter, which does not narrow the range that the conditions select: a row in it that was not given counts, whatever
//!   is read of the others;
//! - a choice of fields: those of the index and of the filter count as the chosen ones do, a document of an older form
//!   counts as a whole, and a field that is changed and changed back was changed;
//! - a limit on several ranges (`in`), which does not cut them short;
//! - an aggregate or an offset: any row of the table that is changed or removed may have been counted;
//! - a field too long to be kept in its row, where an update leaves all fields alone: the row may lie anywhere, but to who
//!   was given some of its fields it lies where it did;
//! - SQL and tables of somebody else's: anything that is written to a relation that the statement names, and where the
//!   statement fails or calls a function in `from`, anything at all;
//! - a read that failed, for all that it selects;
//! - `truncate`, for whatever read the table;
//! - a query that takes longer than 4,096 transactions, than 32 MiB of what they wrote, or than a minute: which of those
//!   before matter is not known any more;
//! - a deploy, and an interruption of the feed: everything, once.
//!
//! Limits: a transaction with `synchronous_commit = off` may be shown up to a moment before its own position. While the
//! feed is down, several queries are shown together only where they were run in one snapshot, and only what a client is
//! owed. Partitions of tables of somebody else's may be emptied behind a snapshot. Writes below views, to partitioned
//! tables under their own name, and to foreign and unlogged tables are not told of.
//!
//! Invariant: knows neither HTTP nor SQL nor components; runs functions through `invoke`, follows changes by `feed`.

mod changes;
mod due;
mod evaluation;
mod history;
mod index;
mod kept;
mod live;
mod memory;
mod metrics;
mod moments;
mod positions;
mod published;
mod queue;
mod reader;
mod rounds;
mod runner;
mod seen;
mod state;
mod timestamp;
mod together;
mod unflushed;
mod waiting;
mod watch;

pub use evaluation::{Evaluation, QueryKey};
pub use index::{Hits, ReadSetIndex, Reason, Row, RowChange};
pub use live::{CATCH_UP_MAX, Live, LiveLimits, LiveOptions};
pub use metrics::{Gauges, LiveMetrics};
pub use rounds::Run;
pub use state::Received;
pub use timestamp::{Incarnation, Incarnations};
pub use watch::{View, Watcher};
