#![allow(unused)]

use convoke::prelude::*;

#[table("messages")]
struct Message {
    body: String,
}

#[query]
fn sneaky(ctx: &QueryCtx, body: String) -> Result<Id<Message>> {
    ctx.db().insert(&Message { body })
}

fn main() {}
