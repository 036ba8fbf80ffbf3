//! HTTP: the routes of a project over its functions.
//!
//! A [`Host`] is made once a process: its engine, its store, the deployment that it serves. [`serve`] puts it behind a
//! listener.
//!
//! Invariant: the only crate of the host that knows HTTP, both ways: the routes, and the gate to the outside.

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
mod respond;
mod retention;
mod router;
mod socket;
mod subscribe;

pub use convoke_sync::AppliedBy;
pub use host::{
    CONNECTIONS_MAX, ComponentSource, DeployError, Deployed, Host, HostConfig, OpenError, STALL_MAX, declared_schema,
};
pub use limits::ServerLimits;
pub use listener::serve;
pub use outbound::{AllowList, AllowListError};
