//! The database that functions see, against a real Postgres.

mod order;
mod pages;
mod plans;
mod projections;
mod read_sets;
mod sql;
mod writes;
