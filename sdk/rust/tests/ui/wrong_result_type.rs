#![allow(unused)]

use convoke::prelude::*;

struct Opaque;

#[query]
fn not_serialize(ctx: &QueryCtx) -> Opaque {
    Opaque
}

#[query]
fn not_serialize_in_result(ctx: &QueryCtx) -> Result<Opaque> {
    Ok(Opaque)
}

#[query]
fn error_of_another_type(ctx: &QueryCtx) -> std::result::Result<u32, String> {
    Ok(0)
}

#[query]
fn impl_result(ctx: &QueryCtx) -> impl Iterator<Item = u32> {
    std::iter::empty()
}

fn main() {}
