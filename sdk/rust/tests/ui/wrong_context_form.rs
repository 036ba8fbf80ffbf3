#![allow(unused)]

use convoke::prelude::*;

#[query]
fn by_value(ctx: QueryCtx) -> u32 {
    0
}

#[mutation]
fn mutable(ctx: &mut MutationCtx) -> u32 {
    0
}

fn main() {}
