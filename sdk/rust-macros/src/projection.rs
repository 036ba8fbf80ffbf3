//! `#[projection(of = Table)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Fields, Ident, Item, ItemStruct, Path, Result, Token};

use crate::fields::{Column, check_column, columns, omit_missing_options, renames_to_camel_case};
use crate::recover::with_error;
use crate::value::derives;

const USAGE: &str = "say of which table's documents: `#[projection(of = Message)]`";

/// The struct, its derives, its `Projection`, and what holds it to the table.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(attribute, item.clone()) {
        Ok(expansion) => expansion,
        Err(error) => with_error(item, &error),
    }
}

fn try_expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut item = parse_struct(item)?;
    if attribute.is_empty() {
        return Err(Error::new_spanned(&item.ident, USAGE));
    }
    let Table(table) = syn::parse2(attribute)?;
    let columns = columns(&item, renames_to_camel_case(&item.attrs)?)?;
    for column in &columns {
        check_column(column)?;
        check_name(column)?;
    }
    omit_missing_options(&mut item);

    let ident = &item.ident;
    let derives = derives(&item.attrs);
    let fields = columns.iter().map(|column| &column.stored);
    let moved = columns.iter().map(|Column { ident, span, .. }| quote_spanned!(*span=> #ident: document.#ident));
    let named = columns.iter().map(|column| named_alike(&table, column));
    Ok(quote! {
        #derives
        #item

        impl ::convoke::Projection for #ident {
            type Of = #table;
            const FIELDS: &'static [&'static str] = &[#(#fields),*];
        }

        const _: fn(#table) -> #ident = |document| #ident { #(#moved),* };
        #(#named)*
    })
}

/// Only compiles where the table stores the field under the same name.
fn named_alike(table: &Path, column: &Column) -> TokenStream {
    let (field, stored) = (column.ident.unraw().to_string(), &column.stored);
    let message = format!(
        "the table stores `{field}` under another name than `{stored}`: give the field the `#[serde(rename = \"…\")]`, or \
         the struct the `rename_all`, that the table has"
    );
    quote_spanned!(column.span=>
        const _: () = ::convoke::__private::assert_stored::<#table>(#field, #stored, #message);
    )
}

/// `of = Message`.
struct Table(Path);

impl Parse for Table {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let advise = |error: Error| Error::new(error.span(), USAGE);
        let word = input.call(Ident::parse_any).map_err(advise)?;
        if word != "of" {
            return Err(Error::new(word.span(), USAGE));
        }
        input.parse::<Token![=]>().map_err(advise)?;
        let table = input.parse().map_err(advise)?;
        if input.is_empty() { Ok(Self(table)) } else { Err(input.error(USAGE)) }
    }
}

fn parse_struct(item: TokenStream) -> Result<ItemStruct> {
    let item = match syn::parse2::<Item>(item)? {
        Item::Struct(item) => item,
        other => return Err(Error::new(other.span(), "`#[projection]` goes on a struct with named fields")),
    };
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(&item.generics, "a projection is of one table; its struct can't be generic"));
    }
    match &item.fields {
        Fields::Named(fields) if !fields.named.is_empty() => Ok(item),
        Fields::Named(_) | Fields::Unnamed(_) | Fields::Unit => {
            let message = "a projection has some fields of a table: write `struct … { field: Type }`";
            Err(Error::new_spanned(&item.ident, message))
        }
    }
}

fn check_name(column: &Column) -> Result<()> {
    if !column.stored.contains('.') {
        return Ok(());
    }
    let message = format!("`{}`: a projection has top-level fields, and a name with a `.` is a path", column.stored);
    Err(Error::new(column.span, message))
}
