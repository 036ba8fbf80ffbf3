//! A component with a query alone, which writes: it imports `database-write` though nothing in it may write.

use convoke::__private::bindings::database_write;
use convoke::prelude::*;

/// Inserts, past what a query's context offers.
#[query]
fn sneaky(_: &QueryCtx, name: String) -> Result<String> {
    Ok(database_write::insert("marks", &json!({ "name": name }).to_string())?)
}
