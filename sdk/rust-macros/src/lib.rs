//! The attribute macros of the Convoke SDK. Authors reach them as `convoke::query` and so on, never through this crate.
//!
//! Each macro leaves the author's item as it stands and adds a `const _` beside it that holds the glue: the struct of
//! the named arguments, the function that parses and calls, and the registration. Everything it names goes through
//! `::convoke::__private`, so that the author's `Cargo.toml` needs `convoke` alone.

mod arguments;
mod declaration;
mod fields;
mod function;
mod kind;
mod projection;
mod recover;
mod table;
mod value;

use proc_macro::TokenStream;

use crate::kind::Kind;

/// A query: reads the project's tables in one snapshot, and nothing else.
///
/// The first parameter is `ctx: &QueryCtx`; every further one is a named argument of any type that is `Deserialize`
/// and `JsonSchema`. An `Option<T>` may be missing or null. The function returns `convoke::Result<T>` or a plain `T`,
/// with a `T` that is `Serialize` and `JsonSchema`.
///
/// Doc comments of the function and of its parameters become descriptions in the manifest.
#[proc_macro_attribute]
pub fn query(attribute: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(Kind::Query, &attribute.into(), item.into()).into()
}

/// A mutation: reads and writes the project's tables in one transaction. All of its writes happen, or none.
///
/// As [`macro@query`], with `ctx: &MutationCtx`. A mutation that returns an error or panics writes nothing.
#[proc_macro_attribute]
pub fn mutation(attribute: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(Kind::Mutation, &attribute.into(), item.into()).into()
}

/// An action: calls queries, mutations and the outside; it has no transaction of its own.
///
/// As [`macro@query`], with `ctx: &ActionCtx`. It may be an `async fn`.
#[proc_macro_attribute]
pub fn action(attribute: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(Kind::Action, &attribute.into(), item.into()).into()
}

/// A rule: computes from its arguments alone, and takes no context.
#[proc_macro_attribute]
pub fn rule(attribute: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(Kind::Rule, &attribute.into(), item.into()).into()
}

/// A table, given by the struct of its documents: `#[table("messages", index(by_channel = [channel]))]`.
///
/// The struct gets `Serialize`, `Deserialize`, `JsonSchema`, `Clone`, `Debug` and `convoke::Table`. Its fields are the
/// document's, without `_id` and `_creationTime`, which every document has. An `Option` field that is `None` is left
/// out of the document. `#[serde(rename = "…")]` on a field and `#[serde(rename_all = "camelCase")]` on the struct
/// give other names to the stored fields; an index names the fields of the struct.
///
/// Every index has the creation time and the id appended, so that equal keys come in the order of creation.
///
/// Behind the name may stand, in any order:
///
/// - `index(by_rank = [group, desc(rank)])`: an index; the values of a field in `desc(…)` run the other way.
/// - `unique(by_email = [email])`: an index whose values no two documents share. A document that lacks one of the fields
///   is held to nothing.
/// - `version = 2, upcast = upgrade_user`: the documents' form has changed. The rule of that name turns older ones into
///   it: `#[rule] fn upgrade_user(document: Value, from: u32) -> Result<Value>`.
/// - `unknown = "keep"`: fields that the struct does not have are stored when a document is written; `"strip"` leaves
///   them out, and `"refuse"`, which is the default, refuses the write.
/// - `check`: Postgres checks the types of top-level fields too, so that hand-written SQL is held to them.
/// - `unmanaged(key = id)`: the table is somebody else's and never altered; its rows are known by this column.
#[proc_macro_attribute]
pub fn table(attribute: TokenStream, item: TokenStream) -> TokenStream {
    table::expand(attribute.into(), item.into()).into()
}

/// Some fields of a table's documents, to be read in the place of whole ones: `#[projection(of = Message)]`.
///
/// The struct gets what a [`macro@table`] gets, and `convoke::Projection` for `Query::select`. Its fields are fields of
/// the table's struct, of the same types and stored under the same names: what `#[serde(rename = "…")]`, `rename_all` and
/// `default` say there has to be said here too. One that the table does not have does not compile.
#[proc_macro_attribute]
pub fn projection(attribute: TokenStream, item: TokenStream) -> TokenStream {
    projection::expand(attribute.into(), item.into()).into()
}

/// A struct or enum that is an argument, a result, or a part of a document.
///
/// Derives `Serialize`, `Deserialize`, `JsonSchema`, `Clone` and `Debug`, those that the author doesn't derive himself.
#[proc_macro_attribute]
pub fn value(attribute: TokenStream, item: TokenStream) -> TokenStream {
    value::expand(&attribute.into(), item.into()).into()
}
