//! The integration tests, one module an area, in one binary: a real host, a real Postgres, real components.

mod accounting;
mod backfill;
mod calls;
mod clocks;
mod database;
mod documents;
mod door;
mod faults;
mod harness;
mod histories;
mod hostile;
mod hosts;
mod listener;
mod live;
mod loading;
mod pools;
mod projects;
mod reference;
mod requests;
mod socket_client;
mod sockets;
mod swaps;
mod things;
mod tidy;
mod tls;
