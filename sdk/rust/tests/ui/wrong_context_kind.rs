#![allow(unused)]

use convoke::prelude::*;

#[query]
fn writes(ctx: &MutationCtx) -> u32 {
    0
}

#[query]
fn fetches(ctx: &ActionCtx) -> u32 {
    0
}

#[mutation]
fn reads(ctx: &QueryCtx) -> u32 {
    0
}

#[action]
fn acts(ctx: &MutationCtx) -> u32 {
    0
}

#[rule]
fn decides(ctx: &QueryCtx) -> bool {
    true
}

fn main() {}
