//! The one door: every call of a function enters by [`Invoker::enter`] and passes these layers, in this order.
//!
//! 1. `admission`: how many calls there may be, and until when this one may be;
//! 2. `version`: which function of which version answers;
//! 3. `metering`: how long the function's calls take, and how they end;
//! 4. `arguments`: parsed once, held to the function's schema;
//! 5. `kept`: a query's result that still holds, in place of a run;
//! 6. `run`: an instance, a database, attempts with the same clock and seed: `query`, `mutation`, `outside` for actions;
//! 7. the commit, in `mutation`: done, undone or unknown, and said so;
//! 8. `answer`: result, position, log, version, request id.
//!
//! Invariant: knows neither HTTP nor SQL; the one place that decides how a kind is run, and that runs a function.

mod admission;
mod answer;
mod arguments;
mod call;
mod caller;
mod commit_watch;
mod door;
mod kept;
mod metering;
mod mutation;
mod outside;
mod query;
mod run;
mod upcast;
mod version;

pub use answer::{Answer, RequestId, ResultText, VersionTag};
pub use call::{Call, Encoding};
pub use caller::{CallKey, CallOrigin, Caller, Identity};
pub use commit_watch::CommitWatch;
pub use convoke_store::{HeldSnapshot, NoteReads, SharedSnapshot};
pub use door::{Checked, Invoker};
pub use kept::{Asked, Keeper, KeptResult, KeptResults, Lookup, Ran};
pub use metering::Metering;
pub use outside::Gate;
