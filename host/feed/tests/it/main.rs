//! The feed against a real Postgres.

mod changes;
mod harness;
mod interruptions;
mod oracle;
mod own_server;
mod publications;
