//! What a function gets besides its arguments. The types are the permissions: a query's context has nothing that writes,
//! and so a component of queries alone doesn't even import the writing part of the host.

use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::convoke::runtime::{calls, context};
use crate::database::{Reader, Writer};
use crate::error::Result;
use crate::fetch::{Request, Response};
use crate::log::Logger;
use crate::random::Rng;

/// What every context has.
macro_rules! common_methods {
    () => {
        /// The call's log.
        pub fn log(&self) -> Logger {
            Logger::new()
        }

        /// Milliseconds since 1970. In a query or a mutation time stands still.
        pub fn now(&self) -> f64 {
            context::now()
        }

        /// The call's source of randomness.
        pub fn random(&self) -> Rng {
            Rng::new()
        }

        /// The opaque id under which the host's log holds this call.
        pub fn request_id(&self) -> String {
            context::request_id()
        }
    };
}

/// The context of a query: reads.
#[derive(Debug)]
pub struct QueryCtx {
    reader: Reader,
}

/// The context of a mutation: reads and writes, in one transaction.
///
/// It gives way to a [`QueryCtx`], so that a helper that only reads serves both.
#[derive(Debug)]
pub struct MutationCtx {
    writer: Writer,
    query: QueryCtx,
}

/// The context of an action: calls functions and the outside. Each call has a transaction of its own.
#[derive(Debug)]
pub struct ActionCtx(());

impl QueryCtx {
    /// The database, for reading.
    pub fn db(&self) -> &Reader {
        &self.reader
    }

    common_methods!();
}

impl MutationCtx {
    /// The database.
    pub fn db(&self) -> &Writer {
        &self.writer
    }
}

impl Deref for MutationCtx {
    type Target = QueryCtx;

    fn deref(&self) -> &QueryCtx {
        &self.query
    }
}

impl ActionCtx {
    /// Calls a query of the project by its whole name: `ctx.run_query("messages:list", &args)`.
    pub fn run_query<T: DeserializeOwned>(&self, name: &str, args: impl Serialize) -> Result<T> {
        Ok(serde_json::from_str(&calls::run_query(name, &serde_json::to_string(&args)?)?)?)
    }

    /// Calls a mutation of the project by its whole name.
    pub fn run_mutation<T: DeserializeOwned>(&self, name: &str, args: impl Serialize) -> Result<T> {
        Ok(serde_json::from_str(&calls::run_mutation(name, &serde_json::to_string(&args)?)?)?)
    }

    /// Calls another action of the project by its whole name.
    pub fn run_action<T: DeserializeOwned>(&self, name: &str, args: impl Serialize) -> Result<T> {
        Ok(serde_json::from_str(&calls::run_action(name, &serde_json::to_string(&args)?)?)?)
    }

    /// Sends a request to the outside. A URL alone is a `GET`.
    pub fn fetch(&self, request: impl Into<Request>) -> Result<Response> {
        request.into().send()
    }

    common_methods!();
}

/// What the glue of a function makes before it calls. Authors can't: the constructors are the crate's own.
pub trait Context {
    /// The context of this call.
    fn of_this_call() -> Self;
}

impl Context for QueryCtx {
    fn of_this_call() -> Self {
        Self { reader: Reader::new() }
    }
}

impl Context for MutationCtx {
    fn of_this_call() -> Self {
        Self { writer: Writer::new(), query: QueryCtx::of_this_call() }
    }
}

impl Context for ActionCtx {
    fn of_this_call() -> Self {
        Self(())
    }
}
