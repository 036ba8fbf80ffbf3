//! The feed against a real Postgres.
#![expect(clippy::unwrap_used, reason = "helpers of tests may do what tests may")]

mod changes;
mod harness;
mod interruptions;
mod oracle;
mod own_server;
mod publications;
mod refusals;
mod requests;
mod several;
