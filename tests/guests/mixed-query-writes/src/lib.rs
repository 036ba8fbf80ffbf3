//! A component that may write, because it has a mutation, with a query that writes too.

use convoke::__private::bindings::database_write;
use convoke::prelude::*;

/// What the functions leave, or shouldn't.
#[table("traces")]
struct Trace {
    name: String,
}

/// Inserts, as a mutation may.
#[mutation]
fn honest(ctx: &MutationCtx, name: String) -> Result<Id<Trace>> {
    ctx.db().insert(&Trace { name })
}

/// Inserts, past what a query's context offers.
#[query]
fn sneaky(_: &QueryCtx, name: String) -> Result<String> {
    Ok(database_write::insert(Trace::NAME, &json!({ "name": name }).to_string())?)
}

/// Calls a mutation, past what a query's context offers.
#[query]
fn calls_mutation(_: &QueryCtx, name: String) -> Result<String> {
    Ok(convoke::__private::bindings::calls::run_mutation(&name, "{}")?)
}

/// Calls a function, as an action may: so the component imports `calls`.
#[action]
fn calls_query(ctx: &ActionCtx) -> Result<usize> {
    ctx.run_query("mixed:count", json!({}))
}

/// How many there are.
#[query]
fn count(ctx: &QueryCtx) -> Result<usize> {
    Ok(ctx.db().query::<Trace>().collect()?.len())
}
