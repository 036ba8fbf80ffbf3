#![allow(unused)]

use convoke::prelude::*;

#[query]
fn list<T: Table>(ctx: &QueryCtx) -> Result<Vec<Doc<T>>> {
    ctx.db().query::<T>().collect()
}

fn main() {}
