//! `#[value]`, and the derives that it shares with `#[table]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Item, Path, Result, Token};

use crate::recover::with_error;

/// The item with the derives that a value needs.
pub(crate) fn expand(attribute: &TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(attribute, item.clone()) {
        Ok(expansion) => expansion,
        Err(error) => with_error(item, &error),
    }
}

fn try_expand(attribute: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !attribute.is_empty() {
        return Err(Error::new_spanned(attribute, "`#[value]` takes no arguments"));
    }
    let item = syn::parse2::<Item>(item)?;
    let attributes = match &item {
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        other => return Err(Error::new_spanned(other, "`#[value]` goes on a struct or an enum")),
    };
    let derives = derives(attributes);
    Ok(quote!(#derives #item))
}

/// The derive attribute of a value, without what the author derives already.
pub(crate) fn derives(attributes: &[Attribute]) -> TokenStream {
    let own = derived(attributes);
    let missing = |name: &str| !own.iter().any(|derived| derived == name);
    let mut paths = Vec::new();
    if missing("Clone") {
        paths.push(quote!(::core::clone::Clone));
    }
    if missing("Debug") {
        paths.push(quote!(::core::fmt::Debug));
    }
    let mut helpers = TokenStream::new();
    // A hand-written derive comes from the author's own `serde`, which a `crate` attribute would contradict.
    if missing("Serialize") && missing("Deserialize") {
        paths.push(quote!(::convoke::__private::serde::Serialize));
        paths.push(quote!(::convoke::__private::serde::Deserialize));
        helpers.extend(quote!(#[serde(crate = "::convoke::__private::serde")]));
    }
    if missing("JsonSchema") {
        paths.push(quote!(::convoke::__private::schemars::JsonSchema));
        helpers.extend(quote!(#[schemars(crate = "::convoke::__private::schemars")]));
    }
    quote!(#[derive(#(#paths),*)] #helpers)
}

fn derived(attributes: &[Attribute]) -> Vec<String> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("derive"))
        .filter_map(|attribute| attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated).ok())
        .flatten()
        .filter_map(|path| path.segments.last().map(|segment| segment.ident.to_string()))
        .collect()
}
