//! The life of a call: the version that serves it, its database, its instance, its commit, its retries.
//!
//! Invariant: knows neither HTTP nor SQL; the one place that decides how a kind is run.

mod invoker;
mod outside;
mod upcast;

pub use convoke_store::{HeldSnapshot, SharedSnapshot};
pub use invoker::{Answer, Invoker, Observe, Request};
pub use outside::Gate;
