//! What the benchmark's programs share: the tables, their statements, and documents as text.
//!
//! The statements are those that Convoke sends for the same functions (host/sql), written out by hand, so that a peer
//! and Convoke ask the same of Postgres.

pub mod document;
pub mod tables;
