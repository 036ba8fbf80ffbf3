#![allow(unused)]

use convoke::prelude::*;

#[table("a")]
struct OwnId {
    _id: String,
}

#[table("b")]
struct OwnTime {
    #[serde(rename = "_creationTime")]
    created: f64,
}

#[table("c")]
struct Underscore {
    _hidden: String,
}

#[table("d")]
struct Dollar {
    #[serde(rename = "$price")]
    price: f64,
}

#[table("e")]
#[serde(rename_all = "kebab-case")]
struct OtherCase {
    full_name: String,
}

fn main() {}
