//! Live queries: subscriptions, the index of what they read, the cache of results.
//!
//! A result holds at every position of Postgres' log from where its snapshot was taken until the first transaction that
//! wrote into what it read and is not in that snapshot. [`Live`] runs a query once for all who want it, and again when
//! its result no longer holds; a [`Watcher`] shows several queries as of one position.
//!
//! Invariant: knows neither HTTP nor SQL nor components; runs functions through `invoke`, hears of changes from `feed`.

mod changes;
mod evaluation;
mod index;
mod live;
mod metrics;
mod state;
mod timestamp;
mod watch;

pub use evaluation::{Evaluation, QueryKey};
pub use index::{ReadSetIndex, Reason, Row, RowChange};
pub use live::{Live, LiveOptions, QueryAnswer, Run};
pub use metrics::{Gauges, LiveMetrics};
pub use state::Received;
pub use timestamp::Incarnation;
pub use watch::{View, Watcher};
