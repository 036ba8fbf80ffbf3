#![allow(unused)]

use convoke::prelude::*;

#[table("kinds")]
enum Kind {
    Text,
}

#[table("pairs")]
struct Pair(String, String);

#[table("empties")]
struct Empty;

#[table("boxes")]
struct Boxed<T> {
    content: T,
}

#[table("functions")]
fn function() {}

fn main() {}
