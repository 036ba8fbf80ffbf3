//! A library: every part of the database API, one function each. docs/reference/database.md shows these functions.

mod read;
mod schema;
mod sql;
mod write;
