#![allow(unused)]

use convoke::prelude::*;

#[query]
async fn list(ctx: &QueryCtx) -> u32 {
    0
}

#[mutation]
async fn send(ctx: &MutationCtx) -> u32 {
    0
}

fn main() {}
