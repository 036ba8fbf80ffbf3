//! For the code that the macros write. Nothing here is for authors, and any version may change it.

#![allow(missing_docs, reason = "for the macros alone")]

pub use {inventory, schemars, serde};

pub use crate::bindings::convoke::runtime as bindings;
pub use crate::context::Context;
pub use crate::dispatch::{
    Argument, Fallible, Reply, arguments, assert_argument, assert_stored, assert_upcast, block_on, reply,
};
pub use crate::manifest::{Function, Kind, TableEntry};
pub use crate::schema::{schema_of_arguments, schema_of_result};

/// The context of this call.
pub fn context<C: Context>() -> C {
    C::of_this_call()
}
