#![allow(unused)]

use convoke::prelude::*;

#[table("a", index(by_chanel = [chanel]))]
struct UnknownField {
    channel: String,
    author: String,
}

#[table("b", index(by_channel = [channel]), index(by_channel = [author]))]
struct SameName {
    channel: String,
    author: String,
}

#[table("c", index(by_channel = [channel, channel]))]
struct SameField {
    channel: String,
}

#[table("d", index(by_nothing = []))]
struct NoField {
    channel: String,
}

#[table("e", index(by_time = [_creationTime]))]
struct SystemField {
    channel: String,
}

#[table("f", index(by_creation_time = [channel]))]
struct ReservedName {
    channel: String,
}

fn main() {}
