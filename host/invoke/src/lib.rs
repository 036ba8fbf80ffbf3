//! The life of a call: the version that serves it, its database, its instance, its commit, its retries.
//!
//! Invariant: knows neither HTTP nor SQL; the one place that decides how a kind is run.

mod invoker;
mod outside;

pub use invoker::{Answer, Invoker, Request};
pub use outside::Gate;
