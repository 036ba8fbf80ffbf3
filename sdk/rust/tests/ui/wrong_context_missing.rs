#![allow(unused)]

use convoke::prelude::*;

#[query]
fn nothing() -> u32 {
    0
}

#[mutation]
fn arguments_only(channel: String) -> u32 {
    0
}

#[action]
fn context_last(channel: String, ctx: &ActionCtx) -> u32 {
    0
}

fn main() {}
