//! The database that functions see, against a real Postgres.

mod bounds;
mod forms;
mod order;
mod pages;
mod plans;
mod projections;
mod read_sets;
mod refusals;
mod sql;
mod writes;
