#![allow(unused)]

use convoke::prelude::*;

#[query]
fn list(ctx: &QueryCtx, (channel, limit): (String, u32)) -> u32 {
    0
}

#[query]
fn unnamed(ctx: &QueryCtx, _: String) -> u32 {
    0
}

fn main() {}
