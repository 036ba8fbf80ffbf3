#![allow(unused)]

use convoke::prelude::*;

struct Opaque;

#[query]
fn impl_argument(ctx: &QueryCtx, channel: impl Into<String>) -> u32 {
    0
}

#[query]
fn nested_impl_argument(ctx: &QueryCtx, channels: Vec<impl Into<String>>) -> u32 {
    0
}

#[query]
fn borrowed_argument(ctx: &QueryCtx, channel: &str) -> u32 {
    0
}

#[query]
fn not_deserialize(ctx: &QueryCtx, channel: String, opaque: Opaque) -> u32 {
    0
}

fn main() {}
