#![allow(unused)]

use convoke::prelude::*;

#[table("messages")]
struct Message {
    channel: String,
    author: Option<String>,
    #[serde(rename = "sentAt")]
    sent_at: f64,
}

#[table("users")]
struct User {
    channel: String,
}

#[projection(of = Message)]
struct UnknownField {
    chanel: String,
}

#[projection(of = Message)]
struct OtherType {
    author: String,
}

#[projection(of = Message)]
struct OtherName {
    sent_at: f64,
}

#[projection(of = Message)]
struct SystemField {
    _id: String,
}

#[projection(of = Message)]
struct Path {
    #[serde(rename = "author.name")]
    author: Option<String>,
}

#[projection]
struct OfNothing {
    channel: String,
}

#[projection(Message)]
struct WithoutOf {
    channel: String,
}

#[projection(of = Message)]
struct Empty {}

#[projection(of = Message)]
enum Kind {
    Text,
}

#[projection(of = Message)]
struct Right {
    channel: String,
}

#[query]
fn of_another_table(ctx: &QueryCtx) -> Result<usize> {
    Ok(ctx.db().query::<User>().select::<Right>().collect()?.len())
}

#[query]
fn no_projection(ctx: &QueryCtx) -> Result<usize> {
    Ok(ctx.db().query::<User>().select::<User>().collect()?.len())
}

#[query]
fn counted(ctx: &QueryCtx) -> Result<u64> {
    ctx.db().query::<Message>().select::<Right>().count()
}

#[mutation]
fn deleted(ctx: &MutationCtx) -> Result<u64> {
    ctx.db().delete_where(ctx.db().query::<Message>().select::<Right>())
}

fn main() {}
