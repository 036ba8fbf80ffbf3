//! Writes.

use convoke::prelude::*;

use crate::schema::{Book, LegacyOrder, Loan, Member};

/// One document.
#[mutation]
fn add_book(ctx: &MutationCtx, book: Book) -> Result<Id<Book>> {
    ctx.db().insert(&book)
}

/// Many documents at once.
#[mutation]
fn add_books(ctx: &MutationCtx, books: Vec<Book>) -> Result<Vec<Id<Book>>> {
    ctx.db().insert_many(&books)
}

/// Some fields of a document.
#[mutation]
fn reprice(ctx: &MutationCtx, id: Id<Book>, price: f64) -> Result<()> {
    ctx.db().patch(&id, json!({ "price": price }))
}

/// A field that is removed.
#[mutation]
fn drop_subtitle(ctx: &MutationCtx, id: Id<Book>) -> Result<()> {
    ctx.db().patch(&id, json!({ "subtitle": Unset }))
}

/// A whole document.
#[mutation]
fn correct_book(ctx: &MutationCtx, id: Id<Book>, book: Book) -> Result<()> {
    ctx.db().replace(&id, &book)
}

/// The removal of a document.
#[mutation]
fn remove_book(ctx: &MutationCtx, id: Id<Book>) -> Result<()> {
    ctx.db().delete(&id)
}

/// Binary data.
#[mutation]
fn set_cover(ctx: &MutationCtx, id: Id<Book>, cover: Bytes) -> Result<()> {
    ensure!(cover.len() <= 100_000, "COVER_TOO_LARGE", "a cover has at most 100,000 bytes");
    ctx.db().patch(&id, json!({ "cover": cover }))
}

/// Another document that refers to two.
#[mutation]
fn lend(ctx: &MutationCtx, member: Id<Member>, book: Id<Book>, due: f64) -> Result<Id<Loan>> {
    ctx.db().insert(&Loan { member, book, due, returned: None, renewals: None, notes: None, fine: None })
}

/// A change by what is there, without a reading and without a conflict.
#[mutation]
fn renew(ctx: &MutationCtx, id: Id<Loan>, until: f64, note: String) -> Result<()> {
    ctx.db().update(&id, Change::new().inc("renewals", 1).append("notes", [note]).max("due", until))
}

/// A patch of all documents of a query.
#[mutation]
fn fine_late_loans(ctx: &MutationCtx, member: Id<Member>, fine: f64) -> Result<u64> {
    let loans = ctx.db().query::<Loan>().index("by_member").eq("member", &member).lt("due", ctx.now());
    ctx.db().patch_where(loans.filter(field("returned").is_missing()), json!({ "fine": fine }))
}

/// The removal of all documents of a query, here of at most so many.
#[mutation]
fn forget_returned(ctx: &MutationCtx, at_most: u32) -> Result<u64> {
    let returned = ctx.db().query::<Loan>().filter(field("returned").exists());
    ctx.db().delete_where(returned.limit(at_most))
}

/// A unique index: a second member with the same address is refused.
#[mutation]
fn join(ctx: &MutationCtx, email: String, name: String) -> Result<Id<Member>> {
    ctx.db().insert(&Member { email, name })
}

/// A nested transaction: who is a member already is left as he is, and the others join.
#[mutation]
fn join_all(ctx: &MutationCtx, members: Vec<Member>) -> Result<usize> {
    let mut joined = 0;
    for member in &members {
        match ctx.transaction(|| ctx.db().insert(member)) {
            Ok(_) => joined += 1,
            Err(error) if error.code() == "CONFLICT" => ctx.log().info(format_args!("{} is known", member.email)),
            Err(error) => return Err(error),
        }
    }
    Ok(joined)
}

/// A nested transaction that is undone alone.
#[mutation]
fn try_to_add(ctx: &MutationCtx, book: Book, price_at_most: f64) -> Result<bool> {
    let added = ctx.transaction(|| {
        ctx.db().insert(&book)?;
        let total = ctx.db().query::<Book>().sum("price")?;
        ensure!(total <= price_at_most, "TOO_DEAR", "the books would cost {total} together");
        Ok(())
    });
    Ok(added.is_ok())
}

/// A row of a table of somebody else's.
#[mutation]
fn order(ctx: &MutationCtx, id: i64, supplier: String) -> Result<()> {
    ctx.db().insert(&LegacyOrder { id, supplier })?;
    Ok(())
}
