//! Write Convoke functions in Rust.
//!
//! ```
//! use convoke::prelude::*;
//!
//! /// A message in a channel.
//! #[table("messages", index(by_channel = [channel]))]
//! pub struct Message {
//!     pub channel: String,
//!     pub author: String,
//!     pub body: String,
//! }
//!
//! /// The newest messages of a channel, the newest last.
//! #[query]
//! fn list(ctx: &QueryCtx, channel: String, limit: Option<u32>) -> Result<Vec<Doc<Message>>> {
//!     let newest = ctx.db().query::<Message>().index("by_channel").eq("channel", &channel).desc();
//!     let mut newest = newest.take(limit.unwrap_or(50))?;
//!     newest.reverse();
//!     Ok(newest)
//! }
//!
//! #[mutation]
//! fn send(ctx: &MutationCtx, channel: String, author: String, body: String) -> Result<Id<Message>> {
//!     ensure!(!body.is_empty(), "EMPTY_MESSAGE", "a message needs a body");
//!     ctx.db().insert(&Message { channel, author, body })
//! }
//! ```
//!
//! The crate of a component is a `cdylib` built for `wasm32-wasip2`; there is nothing else to export or to register.
//! Outside WASM everything compiles, for `cargo check` and unit tests of what needs no host; a call to the host panics.

#![warn(missing_docs)]

mod aggregate;
mod bindings;
mod bytes;
mod change;
mod context;
mod database;
mod dispatch;
mod document;
mod error;
mod fetch;
mod filter;
mod float;
mod id;
mod log;
mod manifest;
mod page;
mod plan;
mod query;
mod random;
mod schema;
mod sql;
mod table;
mod transaction;

#[doc(hidden)]
pub mod __private;

pub use convoke_macros::{action, mutation, projection, query, rule, table, value};
pub use schemars::{self, JsonSchema};
pub use serde_json::{self, Value, json};

pub use crate::aggregate::{Aggregate, Grouped};
pub use crate::bytes::Bytes;
pub use crate::change::{Amount, Change};
pub use crate::context::{ActionCtx, MutationCtx, QueryCtx};
pub use crate::database::{Reader, Writer};
pub use crate::document::Doc;
pub use crate::error::{Error, Result};
pub use crate::fetch::{Request, Response};
pub use crate::filter::{Field, Filter, field};
pub use crate::float::Float;
pub use crate::id::Id;
pub use crate::log::Logger;
pub use crate::page::{Page, PageStatus, PaginationOptions};
pub use crate::query::Query;
pub use crate::random::{Integer, Rng};
pub use crate::sql::SqlResult;
pub use crate::table::{Index, IndexField, Projection, Table, UnknownFields, Unset};

/// What a component's code starts with: `use convoke::prelude::*;`.
pub mod prelude {
    pub use crate::{
        ActionCtx, Aggregate, Bytes, Change, Doc, Error, Filter, Float, Id, JsonSchema, MutationCtx, Page,
        PaginationOptions, Projection, QueryCtx, Request, Response, Result, Table, Unset, Value, action, bail, ensure,
        field, json, mutation, projection, query, rule, table, value,
    };
}
