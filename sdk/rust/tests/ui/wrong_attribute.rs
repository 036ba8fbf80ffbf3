#![allow(unused)]

use convoke::prelude::*;

#[query("list")]
fn list(ctx: &QueryCtx) -> u32 {
    0
}

#[value]
fn value() {}

fn main() {}
