#![allow(unused)]

use convoke::prelude::*;

#[table("a", version = 2)]
struct NoUpcast {
    body: String,
}

#[table("b", upcast = upgrade)]
struct NoVersion {
    body: String,
}

#[table("c", version = 0)]
struct VersionZero {
    body: String,
}

#[table("d", version = "2", upcast = upgrade)]
struct VersionText {
    body: String,
}

#[table("e", version = 2, upcast = "upgrade")]
struct UpcastText {
    body: String,
}

#[table("f", version = 2, upcast = upgrade, version = 3)]
struct VersionTwice {
    body: String,
}

#[table("g", unknown = "drop")]
struct UnknownPolicy {
    body: String,
}

#[table("h", unknown(keep))]
struct UnknownForm {
    body: String,
}

#[table("i", unmanaged)]
struct NoKey {
    body: String,
}

#[table("j", unmanaged(key = id))]
struct OtherKey {
    body: String,
}

#[table("k", unmanaged(primary = body))]
struct WrongKeyForm {
    body: String,
}

#[table("l", unmanaged(key = body), index(by_body = [body]))]
struct UnmanagedIndex {
    body: String,
}

#[table("m", unmanaged(key = body), check)]
struct UnmanagedCheck {
    body: String,
}

#[table("n", indexes(by_body = [body]))]
struct OtherWord {
    body: String,
}

#[rule]
fn upgrade(document: Value, from: u32) -> Result<Value> {
    Ok(document)
}

fn main() {}
