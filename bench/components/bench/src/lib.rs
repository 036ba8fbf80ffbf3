//! Functions that isolate one part of a call: the call itself, its arguments and result, one read.

use convoke::prelude::*;

/// A message in a channel.
#[table("messages", index(by_channel = [channel]))]
pub struct Message {
    /// The channel's name.
    pub channel: String,
    /// Who wrote it.
    pub author: String,
    /// The text.
    pub body: String,
}

/// Nothing: what a call costs.
#[query]
fn empty(_ctx: &QueryCtx) -> Result<()> {
    Ok(())
}

/// Its argument: what crossing the boundary costs, there and back.
#[query]
fn echo(_ctx: &QueryCtx, value: Value) -> Result<Value> {
    Ok(value)
}

/// One document.
#[query]
fn get(ctx: &QueryCtx, id: Id<Message>) -> Result<Option<Doc<Message>>> {
    ctx.db().get(&id)
}
