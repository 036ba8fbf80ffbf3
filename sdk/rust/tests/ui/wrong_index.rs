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

#[table("g", unique(by_email = [mail]))]
struct UnknownUniqueField {
    email: String,
}

#[table("h", index(by_email = [desc(mail)]))]
struct UnknownDescendingField {
    email: String,
}

#[table("i", index(by_both = [desc(email, name)]))]
struct DescendingTwo {
    email: String,
    name: String,
}

#[table("j", index(by_email = [desc()]))]
struct DescendingNothing {
    email: String,
}

#[table("k", index(by_email = [asc(email)]))]
struct Ascending {
    email: String,
}

#[table("l", index(by_email = [lower(email)]))]
struct Expression {
    email: String,
}

#[table("m", index(by_email = [email]), unique(by_email = [email]))]
struct SameNameUnique {
    email: String,
}

#[table("n", index(by_email = [email, desc(email)]))]
struct SameFieldDescending {
    email: String,
}

#[table("o", unique = [email])]
struct UniqueWithoutName {
    email: String,
}

fn main() {}
