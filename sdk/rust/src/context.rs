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
use crate::sql::{self, SqlResult};
use crate::transaction;

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

    /// Runs one SQL statement in the call's own transaction: `ctx.sql("select $1::int as n", (5,))`.
    ///
    /// The parameters for `$1`, `$2` and so on are a tuple or an array, `()` for none. Values belong there and never
    /// into the text. A query may only read. The project has to allow SQL; it runs under the project's role.
    pub fn sql(&self, statement: &str, parameters: impl Serialize) -> Result<SqlResult> {
        sql::run(statement, &parameters)
    }

    common_methods!();
}

impl MutationCtx {
    /// The database.
    pub fn db(&self) -> &Writer {
        &self.writer
    }

    /// A transaction within the mutation's: all of the work's writes happen, or none. Where the work returns an error,
    /// its writes are undone, those before it stay, and the error comes back as a value to decide on.
    ///
    /// ```no_run
    /// # use convoke::prelude::*;
    /// # #[table("rooms", unique(by_name = [name]))]
    /// # struct Room { name: String }
    /// # fn example(ctx: &MutationCtx, name: String) -> Result<()> {
    /// let made = ctx.transaction(|| ctx.db().insert(&Room { name: name.clone() }));
    /// if made.is_err() {
    ///     ctx.log().info("the room is there already");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What Postgres has against the writes, such as a value that is not unique, is told at the end of the work at the
    /// latest, and undoes them too. Transactions nest.
    pub fn transaction<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        transaction::nested(work)
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
