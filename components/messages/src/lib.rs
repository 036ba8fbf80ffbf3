//! The chat of the demo: messages in channels.

use convoke::prelude::*;

/// How many messages `list` returns when it isn't told.
const LIMIT_DEFAULT: u32 = 50;
/// The most that `list` returns: a page shows no more, and every subscriber gets them again at each change.
const LIMIT_MAX: u32 = 1_000;
/// A message is a few lines; a longer text belongs into a file.
const BODY_BYTES_MAX: usize = 16_384;

/// A message in a channel.
#[table("messages", index(by_channel = [channel]))]
pub struct Message {
    /// The channel's name.
    pub channel: String,
    /// Who wrote it.
    pub author: String,
    /// The text.
    pub body: String,
}

/// The newest messages of a channel, the newest last.
#[query]
fn list(
    ctx: &QueryCtx,
    channel: String,
    /// How many at most: 50 unless said otherwise, at most 1,000.
    limit: Option<u32>,
) -> Result<Vec<Doc<Message>>> {
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let error = Error::new("INVALID_LIMIT", format_args!("`limit` is 1 to {LIMIT_MAX}, not {limit}"));
        bail!(error.with_data(json!({ "limit": limit, "max": LIMIT_MAX })));
    }
    let mut newest = ctx.db().query::<Message>().index("by_channel").eq("channel", &channel).desc().take(limit)?;
    newest.reverse();
    Ok(newest)
}

/// The messages of a channel page by page, the newest first, for a list that grows while somebody scrolls.
#[query]
fn page(
    ctx: &QueryCtx,
    channel: String,
    #[serde(rename = "paginationOpts")] options: PaginationOptions,
) -> Result<Page<Doc<Message>>> {
    ctx.db().query::<Message>().index("by_channel").eq("channel", &channel).desc().paginate(options)
}

/// Adds a message to a channel.
#[mutation]
fn send(ctx: &MutationCtx, channel: String, author: String, body: String) -> Result<Id<Message>> {
    ensure!(!channel.trim().is_empty(), "EMPTY_CHANNEL", "a message needs a channel");
    ensure!(!author.trim().is_empty(), "EMPTY_AUTHOR", "a message needs an author");
    check_body(&body)?;
    ctx.db().insert(&Message { channel, author, body })
}

/// Changes the text of a message.
#[mutation]
fn edit(ctx: &MutationCtx, id: Id<Message>, body: String) -> Result<()> {
    check_body(&body)?;
    check_exists(ctx, &id)?;
    ctx.db().patch(&id, json!({ "body": body }))
}

/// Removes a message.
#[mutation]
fn remove(ctx: &MutationCtx, id: Id<Message>) -> Result<()> {
    check_exists(ctx, &id)?;
    ctx.db().delete(&id)
}

fn check_body(body: &str) -> Result<()> {
    ensure!(!body.trim().is_empty(), "EMPTY_BODY", "a message needs a body");
    ensure!(body.len() <= BODY_BYTES_MAX, "BODY_TOO_LONG", "a message has at most {BODY_BYTES_MAX} bytes");
    Ok(())
}

fn check_exists(ctx: &QueryCtx, id: &Id<Message>) -> Result<()> {
    match ctx.db().get(id)? {
        Some(_) => Ok(()),
        None => bail!(
            Error::new("MESSAGE_NOT_FOUND", format_args!("there is no message `{id}`")).with_data(json!({ "id": id }))
        ),
    }
}
