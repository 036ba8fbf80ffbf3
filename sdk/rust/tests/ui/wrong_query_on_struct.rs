#![allow(unused)]

use convoke::prelude::*;

#[query]
struct Message {
    body: String,
}

fn main() {}
