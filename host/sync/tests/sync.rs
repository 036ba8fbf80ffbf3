//! Syncs of real databases.

#[path = "sync/access.rs"]
mod access;
#[path = "sync/apply.rs"]
mod apply;
#[path = "sync/failures.rs"]
mod failures;
#[path = "sync/migrations.rs"]
mod migrations;
#[path = "sync/poolers.rs"]
mod poolers;
#[path = "sync/support.rs"]
mod support;
