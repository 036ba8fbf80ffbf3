#![allow(unused)]

use convoke::prelude::*;

#[table]
struct Nameless {
    body: String,
}

#[table("my messages")]
struct Spaced {
    body: String,
}

#[table("_messages")]
struct System {
    body: String,
}

#[table("messages", unique(body))]
struct Unique {
    body: String,
}

fn main() {}
