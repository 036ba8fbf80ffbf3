//! The tables.

use convoke::prelude::*;

/// A book.
#[table(
    "books",
    index(by_genre = [genre, desc(year)]),
    unique(by_isbn = [isbn]),
    check,
)]
pub struct Book {
    pub isbn: i64,
    pub title: String,
    pub genre: String,
    pub year: u32,
    pub price: f64,
    pub subtitle: Option<String>,
    #[serde(default = "one")]
    pub copies: u32,
    #[serde(default)]
    pub tags: Vec<String>,
    pub cover: Option<Bytes>,
}

fn one() -> u32 {
    1
}

/// Somebody who borrows books. Version 1 had `first` and `last` in the place of `name`.
#[table("members", unique(by_email = [email]), version = 2, upcast = upgrade_member, unknown = "keep")]
pub struct Member {
    pub email: String,
    pub name: String,
}

#[rule]
fn upgrade_member(mut document: Value, from: u32) -> Result<Value> {
    ensure!(from == 1, "UNKNOWN_VERSION", "there is no version {from} of a member");
    if let Some(fields) = document.as_object_mut() {
        let [first, last] = ["first", "last"].map(|name| fields.remove(name).unwrap_or_default());
        let name = format!("{} {}", first.as_str().unwrap_or_default(), last.as_str().unwrap_or_default());
        fields.insert("name".to_owned(), name.trim().into());
    }
    Ok(document)
}

/// A book that a member has, or had.
#[table("loans", index(by_member = [member, due]), index(by_book = [book]))]
pub struct Loan {
    pub member: Id<Member>,
    pub book: Id<Book>,
    pub due: f64,
    pub returned: Option<f64>,
    pub renewals: Option<i64>,
    pub notes: Option<Vec<String>>,
    pub fine: Option<f64>,
}

/// A table that another program owns.
#[table("legacy_orders", unmanaged(key = id))]
pub struct LegacyOrder {
    pub id: i64,
    pub supplier: String,
}
