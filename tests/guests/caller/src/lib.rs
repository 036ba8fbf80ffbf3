//! Actions that call other functions and the outside.

use convoke::prelude::*;

/// What the two calls returned.
#[value]
struct Both {
    query: Value,
    mutation: Value,
}

/// Calls a mutation, then a query, each with a transaction of its own.
#[action]
async fn call_both(
    ctx: &ActionCtx,
    mutation: String,
    mutation_args: Value,
    query: String,
    query_args: Value,
) -> Result<Both> {
    let mutation = ctx.run_mutation(&mutation, &mutation_args)?;
    let query = ctx.run_query(&query, &query_args)?;
    Ok(Both { query, mutation })
}

/// Calls an action, which may be this one: calls nest as deep as the arguments do.
#[action]
fn call_action(ctx: &ActionCtx, name: String, args: Value) -> Result<Value> {
    ctx.run_action(&name, &args)
}

/// Calls a mutation and fails afterwards: what the mutation wrote stays.
#[action]
fn call_then_fail(ctx: &ActionCtx, mutation: String, args: Value) -> Result<()> {
    let _: Value = ctx.run_mutation(&mutation, &args)?;
    bail!("AFTERWARDS", "the action failed after its mutation");
}

/// Fetches a URL and returns the status.
#[action]
async fn fetch(ctx: &ActionCtx, url: String) -> Result<u16> {
    Ok(ctx.fetch(&url)?.status())
}
