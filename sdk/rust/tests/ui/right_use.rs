//! Every form that the macros take.

use convoke::prelude::*;
use convoke::{Index, IndexField, Logger, Reader, UnknownFields};

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

#[table(
    "members",
    index(by_rank = [group, desc(joined_at)]),
    unique(by_email = [email]),
    version = 2,
    upcast = upgrades::upgrade_member,
    unknown = "keep",
    check,
)]
#[serde(rename_all = "camelCase")]
struct Member {
    email: String,
    group: String,
    joined_at: f64,
    #[serde(default)]
    desc: String,
    photo: Option<Bytes>,
    score: Float,
}

#[table("legacy_orders", unmanaged(key = order_id))]
struct LegacyOrder {
    #[serde(rename = "order-id")]
    order_id: i64,
}

#[projection(of = Member)]
#[serde(rename_all = "camelCase")]
struct Joined {
    joined_at: f64,
    #[serde(default)]
    desc: String,
    photo: Option<Bytes>,
}

#[projection(of = crate::Message)]
pub struct Sent {
    r#type: Option<Kind>,
    #[serde(rename = "sentAt")]
    sent_at: f64,
}

mod upgrades {
    use convoke::prelude::*;

    #[rule]
    pub fn upgrade_member(mut document: Value, from: u32) -> Result<Value> {
        ensure!(from == 1, "UNKNOWN_VERSION", "there is no version {from}");
        document["group"] = json!("all");
        Ok(document)
    }
}

/// Documented.
#[query]
fn page(ctx: &QueryCtx, group: String, pagination_opts: PaginationOptions) -> Result<Page<Doc<Member>>> {
    let here = field("email").exists().and(!field("desc").eq("gone").or(field("score").lt(0)));
    ctx.db().query::<Member>().index("by_rank").eq("group", &group).filter(here).paginate(pagination_opts)
}

#[query]
fn joined(ctx: &QueryCtx, options: PaginationOptions) -> Result<Page<Doc<Member, Joined>>> {
    ctx.db().query::<Member>().index("by_rank").select::<Joined>().eq("group", "all").paginate(options)
}

#[query]
fn sent(ctx: &QueryCtx, channel: String) -> Result<Option<(Id<Message>, f64)>> {
    let sent = ctx.db().query::<Message>().index("by_channel").eq("channel", &channel).select::<Sent>().first()?;
    Ok(sent.map(|sent| (sent.id().clone(), sent.sent_at)))
}

#[query]
fn totals(ctx: &QueryCtx) -> Result<(u64, Option<String>, Vec<(String, u64)>)> {
    let members = ctx.db().query::<Member>().index("by_rank");
    let (count, last) = members.clone().aggregate([Aggregate::count(), Aggregate::max("email")])?;
    Ok((count, last, members.group_by(["group"]).count()?))
}

#[mutation]
fn vote(ctx: &MutationCtx, id: Id<Member>) -> Result<u64> {
    ctx.transaction(|| ctx.db().update(&id, Change::new().inc("score", 1.5).append("tags", ["voted"])))?;
    let gone = ctx.db().query::<Member>().index("by_rank").eq("group", "gone").gt("joinedAt", 5);
    ctx.db().patch_where(gone.clone(), json!({ "photo": Unset }))?;
    Ok(ctx.sql("select 1 as n where $1 = 1", (1,))?.count() + ctx.db().delete_where(gone)?)
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
    assert_eq!(<Message as Table>::INDEXES[1].fields, ["author", "channel"].map(IndexField::asc));
    assert_eq!(<Message as Table>::INDEXES[2].fields, [IndexField::asc("type")]);
    assert_eq!(<User as Table>::INDEXES[0].fields, [IndexField::asc("fullName")]);
    let by_rank = Index::new("by_rank", const { &[IndexField::asc("group"), IndexField::desc("joinedAt")] });
    let by_email = Index::unique("by_email", const { &[IndexField::asc("email")] });
    assert_eq!(<Member as Table>::INDEXES, [by_rank, by_email]);
    assert_eq!((<Member as Table>::VERSION, <Member as Table>::UPCAST), (2, Some("upgrade_member")));
    assert_eq!((<Member as Table>::UNKNOWN, <Member as Table>::CHECK), (UnknownFields::Keep, true));
    assert_eq!(<LegacyOrder as Table>::UNMANAGED_KEY, Some("order-id"));
    assert_eq!((<User as Table>::VERSION, <User as Table>::UPCAST, <User as Table>::UNMANAGED_KEY), (1, None, None));
    assert_eq!(<User as Table>::UNKNOWN, UnknownFields::Refuse);
    assert_eq!(<Joined as Projection>::FIELDS, ["joinedAt", "desc", "photo"]);
    assert_eq!(<Sent as Projection>::FIELDS, ["type", "sentAt"]);
    let user = User { full_name: "Ada".to_owned() };
    assert_eq!(convoke::serde_json::to_string(&user).unwrap(), r#"{"fullName":"Ada"}"#);
    let message = Message { channel: "a".to_owned(), author: Id::from("u"), r#type: None, sent_at: 1.0 };
    let text = convoke::serde_json::to_string(&message).unwrap();
    assert_eq!(text, r#"{"channel":"a","author":"u","sentAt":1.0}"#);
    let names: Vec<_> = convoke::__private::inventory::iter::<convoke::__private::Function>
        .into_iter()
        .map(|function| function.name)
        .collect();
    assert_eq!(names.len(), 13);
    assert!(names.contains(&"total"));
    assert!(nested::total as usize != 0);
}
