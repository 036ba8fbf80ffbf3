//! HTTP: the routes of a project over its functions.
//!
//! A [`Process`] is made once: engines, the gate's TLS, a change feed a database, a budget of connections. A [`Host`] is opened
//! in it once a project: its store, its live queries, its limits, the deployment that it serves. [`serve`] puts it behind
//! a listener.
//!
//! Invariant: the only crate of the host that knows HTTP, both ways: the routes, and the gate to the outside.

mod arriving;
mod backfill;
mod body;
mod budget;
mod caller;
mod clean;
mod convex;
mod health;
mod host;
mod limits;
mod listener;
mod live;
mod metrics;
mod open_files;
mod openapi;
mod outbound;
mod process;
mod respond;
mod retention;
mod router;
mod socket;
mod subscribe;

pub use convoke_engine::CacheDirs;
pub use convoke_live::LiveLimits;
pub use convoke_sync::AppliedBy;
pub use host::{
    CONNECTIONS_MAX, ComponentSource, DeployError, Deployed, Host, HostConfig, ProjectConfig, STALL_MAX,
    declared_schema,
};
pub use limits::ServerLimits;
pub use listener::serve;
pub use outbound::{AllowList, AllowListError};
pub use process::{CONNECTIONS_MIN, ConnectionsError, OpenError, Process, ProcessConfig};
