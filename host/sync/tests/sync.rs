//! Syncs of real databases.

#[path = "sync/access.rs"]
mod access;
#[path = "sync/apply.rs"]
mod apply;
#[path = "sync/support.rs"]
mod support;
