#![allow(unused)]

use convoke::prelude::*;

#[table("a", version = 2, upcast = missing)]
struct Missing {
    body: String,
}

#[table("b", version = 2, upcast = other_arguments)]
struct OtherArguments {
    body: String,
}

#[table("c", version = 2, upcast = no_result)]
struct NoResult {
    body: String,
}

#[rule]
fn other_arguments(document: Value) -> Result<Value> {
    Ok(document)
}

#[rule]
fn no_result(document: Value, from: u32) -> Value {
    document
}

fn main() {}
