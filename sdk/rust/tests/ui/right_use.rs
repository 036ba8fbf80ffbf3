//! Every form that the macros take.

use convoke::prelude::*;
use convoke::{Logger, Reader};

#[table("messages", index(by_channel = [channel], by_author = [author, channel]), index(by_kind = [r#type]))]
pub struct Message {
    /// Documented.
    pub channel: String,
    pub author: Id<User>,
    pub r#type: Option<Kind>,
    #[serde(rename = "sentAt")]
    pub sent_at: f64,
}

#[table("users", index(by_full_name = [full_name]))]
#[derive(PartialEq, Clone)]
#[serde(rename_all = "camelCase")]
struct User {
    full_name: String,
}

#[value]
pub enum Kind {
    Text,
    Picture { url: String },
}

/// Documented.
#[query]
fn list(
    ctx: &QueryCtx,
    /// Documented.
    channel: String,
    limit: Option<u32>,
    #[serde(default)] kinds: Vec<Kind>,
    r#type: Option<String>,
) -> Result<Vec<Doc<Message>>> {
    ctx.log().info(format_args!("{} {type:?}", kinds.len()));
    ctx.db().query::<Message>().index("by_channel").eq("channel", &channel).desc().take(limit.unwrap_or(50))
}

#[mutation]
fn send(ctx: &MutationCtx, mut channel: String, author: Id<User>) -> Result<Id<Message>> {
    channel.push('!');
    ensure!(exists(ctx, &author)?, "UNKNOWN_AUTHOR", "there is no user {author}");
    ctx.db().insert(&Message { channel, author, r#type: None, sent_at: ctx.now() })
}

#[mutation]
fn nothing(_: &MutationCtx) {}

#[action]
async fn notify(ctx: &ActionCtx, url: String) -> Result<u16> {
    let first: Value = ctx.run_query("messages:list", &json!({ "channel": "a" }))?;
    let answer = ctx.fetch(Request::post(url).json(&first))?;
    Ok(std::future::ready(answer.status()).await)
}

#[action]
fn plain(ctx: &convoke::ActionCtx) -> std::result::Result<String, convoke::Error> {
    let _: &Logger = &ctx.log();
    Ok(ctx.request_id())
}

/// An error of the author's own.
mod errors {
    pub struct Refused;

    impl From<Refused> for convoke::Error {
        fn from(_: Refused) -> Self {
            Self::new("REFUSED", "refused")
        }
    }
}

#[rule]
fn may_send(author: Id<User>, body: String) -> std::result::Result<bool, errors::Refused> {
    if body.is_empty() { Err(errors::Refused) } else { Ok(!author.as_str().is_empty()) }
}

mod nested {
    use convoke::prelude::*;

    #[query]
    pub fn total(ctx: &QueryCtx) -> Result<usize> {
        Ok(ctx.db().query::<super::Message>().collect()?.len())
    }
}

fn exists(ctx: &QueryCtx, user: &Id<User>) -> Result<bool> {
    let reader: &Reader = ctx.db();
    Ok(reader.get(user)?.is_some())
}

fn main() {
    assert_eq!(<Message as Table>::INDEXES[1].fields, ["author", "channel"]);
    assert_eq!(<Message as Table>::INDEXES[2].fields, ["type"]);
    assert_eq!(<User as Table>::INDEXES[0].fields, ["fullName"]);
    let user = User { full_name: "Ada".to_owned() };
    assert_eq!(convoke::serde_json::to_string(&user).unwrap(), r#"{"fullName":"Ada"}"#);
    let message = Message { channel: "a".to_owned(), author: Id::from("u"), r#type: None, sent_at: 1.0 };
    let text = convoke::serde_json::to_string(&message).unwrap();
    assert_eq!(text, r#"{"channel":"a","author":"u","sentAt":1.0}"#);
    let names: Vec<_> = convoke::__private::inventory::iter::<convoke::__private::Function>
        .into_iter()
        .map(|function| function.name)
        .collect();
    assert_eq!(names.len(), 7);
    assert!(names.contains(&"total"));
    assert!(nested::total as usize != 0);
}
