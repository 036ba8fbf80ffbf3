//! Reads.

use convoke::prelude::*;

use crate::schema::{Book, LegacyOrder, Loan, Member};

/// By id.
#[query]
fn book(ctx: &QueryCtx, id: Id<Book>) -> Result<Option<Doc<Book>>> {
    ctx.db().get(&id)
}

/// Several by id, in one reading.
#[query]
fn books_of(ctx: &QueryCtx, ids: Vec<Id<Book>>) -> Result<Vec<Option<Doc<Book>>>> {
    ctx.db().get_many(&ids)
}

/// The whole table, in the order of creation.
#[query]
fn all_books(ctx: &QueryCtx) -> Result<Vec<Doc<Book>>> {
    ctx.db().query::<Book>().collect()
}

/// Along an index of mixed directions: by genre, and in each the newest first.
#[query]
fn shelves(ctx: &QueryCtx) -> Result<Vec<Doc<Book>>> {
    ctx.db().query::<Book>().index("by_genre").collect()
}

/// An equality: a genre, the newest first, because that is the order of the index.
#[query]
fn genre(ctx: &QueryCtx, genre: String) -> Result<Vec<Doc<Book>>> {
    ctx.db().query::<Book>().index("by_genre").eq("genre", &genre).collect()
}

/// An equality and a range, against the order of the index: the oldest first.
#[query]
fn between(ctx: &QueryCtx, genre: String, from: u32, to: u32) -> Result<Vec<Doc<Book>>> {
    let books = ctx.db().query::<Book>().index("by_genre").eq("genre", &genre);
    books.gte("year", from).lt("year", to).desc().collect()
}

/// A range of the creation time.
#[query]
fn added_since(ctx: &QueryCtx, ms: f64) -> Result<Vec<Doc<Book>>> {
    ctx.db().query::<Book>().gt("_creationTime", ms).collect()
}

/// A range of the creation time behind the fields of an index.
#[query]
fn borrowed_since(ctx: &QueryCtx, book: Id<Book>, ms: f64) -> Result<Vec<Doc<Loan>>> {
    ctx.db().query::<Loan>().index("by_book").eq("book", &book).gt("_creationTime", ms).collect()
}

/// One of several values.
#[query]
fn genres(ctx: &QueryCtx, genres: Vec<String>) -> Result<Vec<Doc<Book>>> {
    ctx.db().query::<Book>().index("by_genre").is_in("genre", genres).collect()
}

/// The first ones.
#[query]
fn newest(ctx: &QueryCtx, count: u32) -> Result<Vec<Doc<Book>>> {
    ctx.db().query::<Book>().desc().take(count)
}

/// The first one, if there is any.
#[query]
fn first_loan(ctx: &QueryCtx, member: Id<Member>) -> Result<Option<Doc<Loan>>> {
    ctx.db().query::<Loan>().index("by_member").eq("member", &member).first()
}

/// The only one, if there is any.
#[query]
fn member_by_email(ctx: &QueryCtx, email: String) -> Result<Option<Doc<Member>>> {
    ctx.db().query::<Member>().index("by_email").eq("email", &email).unique()
}

/// A filter on any fields, on paths into them, and with `and`, `or` and `not`.
#[query]
fn bargains(ctx: &QueryCtx, genre: String, below: f64) -> Result<Vec<Doc<Book>>> {
    let cheap = field("price").lt(below).or(field("tags.0").eq("sale"));
    let books = ctx.db().query::<Book>().index("by_genre").eq("genre", &genre);
    books.filter(cheap.and(field("copies").eq(0).not())).collect()
}

/// Without a subtitle: `None` is stored as a missing field.
#[query]
fn without_subtitle(ctx: &QueryCtx) -> Result<Vec<Doc<Book>>> {
    ctx.db().query::<Book>().filter(field("subtitle").is_missing()).collect()
}

/// Past the first ones.
#[query]
fn after_the_first(ctx: &QueryCtx, skipped: u32) -> Result<Vec<Doc<Book>>> {
    ctx.db().query::<Book>().offset(skipped).collect()
}

/// What the back of a book shows.
#[projection(of = Book)]
pub struct Spine {
    pub title: String,
    pub year: u32,
    pub subtitle: Option<String>,
}

/// Some fields of each document.
#[query]
fn spines(ctx: &QueryCtx, genre: String) -> Result<Vec<Doc<Book, Spine>>> {
    ctx.db().query::<Book>().index("by_genre").eq("genre", &genre).select::<Spine>().collect()
}

/// What a member is called.
#[projection(of = Member)]
pub struct Called {
    pub name: String,
}

/// One field of one document.
#[query]
fn name_of(ctx: &QueryCtx, email: String) -> Result<Option<String>> {
    let member = ctx.db().query::<Member>().index("by_email").eq("email", &email).select::<Called>().unique()?;
    Ok(member.map(|member| member.into_fields().name))
}

/// Page by page, in the form that Convex' clients know.
#[query]
fn pages(ctx: &QueryCtx, #[serde(rename = "paginationOpts")] options: PaginationOptions) -> Result<Page<String>> {
    let page = ctx.db().query::<Book>().index("by_genre").paginate(options)?;
    Ok(page.map(|book| book.into_fields().title))
}

/// How many.
#[query]
fn count(ctx: &QueryCtx, genre: String) -> Result<u64> {
    ctx.db().query::<Book>().index("by_genre").eq("genre", &genre).count()
}

/// The sum and the mean of a field.
#[query]
fn prices(ctx: &QueryCtx) -> Result<(f64, Option<f64>)> {
    let books = ctx.db().query::<Book>();
    Ok((books.clone().sum("price")?, books.avg("price")?))
}

/// The lowest and the highest value of a field.
#[query]
fn years(ctx: &QueryCtx, genre: String) -> Result<(Option<u32>, Option<u32>)> {
    let books = ctx.db().query::<Book>().index("by_genre").eq("genre", &genre);
    Ok((books.clone().min("year")?, books.max("year")?))
}

/// Several values in one reading.
#[query]
fn summary(ctx: &QueryCtx) -> Result<(u64, f64, Option<u32>)> {
    let wanted = [Aggregate::count(), Aggregate::sum("price"), Aggregate::max("year")];
    ctx.db().query::<Book>().aggregate(wanted)
}

/// A value for each group.
#[query]
fn count_by_genre(ctx: &QueryCtx) -> Result<Vec<(String, u64)>> {
    ctx.db().query::<Book>().index("by_genre").group_by(["genre"]).count()
}

/// A value for each group by several fields.
#[query]
fn count_by_year(ctx: &QueryCtx) -> Result<Vec<((String, u32), u64)>> {
    ctx.db().query::<Book>().index("by_genre").group_by(["genre", "year"]).count()
}

/// Several values for each group.
#[query]
fn stock(ctx: &QueryCtx) -> Result<Vec<(String, (u64, f64))>> {
    let groups = ctx.db().query::<Book>().index("by_genre").group_by(["genre"]);
    groups.aggregate([Aggregate::count(), Aggregate::sum("copies")])
}

/// A table of somebody else's.
#[query]
fn orders(ctx: &QueryCtx, supplier: String) -> Result<Vec<LegacyOrder>> {
    let orders = ctx.db().query::<LegacyOrder>().filter(field("supplier").eq(supplier)).collect()?;
    Ok(orders.into_iter().map(Doc::into_fields).collect())
}
