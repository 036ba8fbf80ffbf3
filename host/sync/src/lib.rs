//! Bringing a database to a project's schema, without ever losing anything.
//!
//! [`bootstrap`] moves the schema `convoke` on by its migrations and makes the project's role; [`plan`] compares the declared schema with the live
//! one, looks at the data, and says what it would do; [`apply`] does it, step by step, and keeps a log; [`drift`] names
//! what somebody changed by hand. A [`SyncPlan`] is made for one state of the database and refused in any other.
//!
//! Everything here runs on connections of the database's owner. What functions run under is the project's role, which
//! cannot change a table's shape at all.
//!
//! Invariant: no wasm, no HTTP, no building; a plan is computed from a [`convoke_model::Schema`] alone.

mod advance;
mod apply;
mod bootstrap;
mod catalog;
mod compare;
mod connect;
mod declared;
mod documents;
mod drift;
mod error;
mod hash;
mod holders;
mod incarnation;
mod inspect;
mod log;
mod migrations;
mod orphans;
mod plan;
mod planner;
mod precheck;
mod problem;
mod registry;
mod render;
mod role;
mod session;

pub use advance::advance;
pub use apply::{Applied, AppliedBy, ApplyOptions, Progress, TURN, apply};
pub use bootstrap::{Keys, Provisioned, Warning, bootstrap};
pub use drift::{Change, Drift, drift};
pub use error::{ReadOnly, SyncError};
pub use incarnation::incarnation;
pub use inspect::{Inspection, inspect};
pub use plan::{Class, Hazard, Orphan, OrphanKind, Plan as SyncPlan, Step, Work};
pub use planner::{PlanOptions, plan};
pub use problem::Problem;
pub use registry::{Numbers, current};
