//! What stands in the place of an item that a macro refused.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Error, FnArg, Item};

use crate::arguments::belongs_to_field;

/// The author's item and the error. The item stays, so that one mistake gives one error and not one more at every use;
/// it loses the attributes that only the macro could have made sense of.
pub(crate) fn with_error(item: TokenStream, error: &Error) -> TokenStream {
    let error = error.to_compile_error();
    let item = match syn::parse2::<Item>(item.clone()) {
        Ok(parsed) => strip(parsed).into_token_stream(),
        Err(_) => item,
    };
    quote!(#item #error)
}

fn strip(mut item: Item) -> Item {
    match &mut item {
        Item::Struct(item) => {
            item.attrs.retain(is_no_helper);
            item.fields.iter_mut().for_each(|field| field.attrs.retain(is_no_helper));
        }
        Item::Fn(item) => item.sig.inputs.iter_mut().for_each(|parameter| {
            if let FnArg::Typed(parameter) = parameter {
                parameter.attrs.retain(|attribute| !belongs_to_field(attribute));
            }
        }),
        _ => {}
    }
    item
}

fn is_no_helper(attribute: &Attribute) -> bool {
    attribute.path().is_ident("doc") || !belongs_to_field(attribute)
}
