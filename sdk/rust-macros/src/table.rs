//! `#[table("name", index(by_field = [field]))]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, Fields, Ident, Item, ItemStruct, LitStr, Result};

use crate::declaration::{Declaration, Index};
use crate::fields::{
    Column, check_column, columns, no_such_field, omit_missing_options, renames_to_camel_case, stored_name,
};
use crate::recover::with_error;
use crate::value::derives;

/// Postgres cuts identifiers at 63 bytes, and a cut name is another name.
const NAME_BYTES_MAX: usize = 63;

/// Every table has these by nature.
const INDEXES_RESERVED: [&str; 2] = ["by_id", "by_creation_time"];

/// The struct, its derives, its `Table` and its registration.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(attribute, item.clone()) {
        Ok(expansion) => expansion,
        Err(error) => with_error(item, &error),
    }
}

fn try_expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut item = parse_struct(item)?;
    let declaration = Declaration::of(attribute)?;
    check_name(&declaration.name)?;
    let camel_case = renames_to_camel_case(&item.attrs)?;
    let columns = columns(&item, camel_case)?;
    for column in &columns {
        check_column(column)?;
    }
    check_indexes(&declaration.indexes, &columns)?;
    declaration.check()?;
    omit_missing_options(&mut item);

    let ident = &item.ident;
    let derives = derives(&item.attrs);
    let name = &declaration.name;
    let indexes = declaration.indexes.iter().map(|index| index_of(index, &columns));
    let options = options(&declaration, &columns)?;
    let fields = columns.iter().map(|column| {
        let (field, stored) = (column.ident.unraw().to_string(), &column.stored);
        quote!((#field, #stored))
    });
    let upcast = declaration.upcast.as_ref().map(|upcast| {
        let path = &upcast.value;
        quote_spanned!(path.span()=> const _: () = ::convoke::__private::assert_upcast(#path);)
    });
    Ok(quote! {
        #derives
        #item

        impl ::convoke::Table for #ident {
            const NAME: &'static str = #name;
            const FIELDS: &'static [(&'static str, &'static str)] = &[#(#fields),*];
            const INDEXES: &'static [::convoke::Index] = &[#(#indexes),*];
            #options
        }

        #upcast

        ::convoke::__private::inventory::submit! { ::convoke::__private::TableEntry::of::<#ident>() }
    })
}

/// The index as a constant of the author's crate.
fn index_of(index: &Index, columns: &[Column]) -> TokenStream {
    let name = index.name.unraw().to_string();
    let fields = index.fields.iter().filter_map(|field| {
        let stored = stored_name(columns, &field.name)?;
        Some(if field.descending {
            quote!(::convoke::IndexField::desc(#stored))
        } else {
            quote!(::convoke::IndexField::asc(#stored))
        })
    });
    let constructor = if index.unique { quote!(unique) } else { quote!(new) };
    quote!(::convoke::Index::#constructor(#name, &[#(#fields),*]))
}

/// Those constants of the table that differ from what is usual.
fn options(declaration: &Declaration, columns: &[Column]) -> Result<TokenStream> {
    let mut constants = TokenStream::new();
    if let Some(version) = &declaration.version {
        let version = &version.value;
        constants.extend(quote!(const VERSION: u32 = #version;));
    }
    if let Some(name) = declaration.upcast.as_ref().and_then(|upcast| upcast.value.segments.last()) {
        let name = name.ident.unraw().to_string();
        constants
            .extend(quote!(const UPCAST: ::core::option::Option<&'static str> = ::core::option::Option::Some(#name);));
    }
    if let Some(unknown) = &declaration.unknown {
        let variant = &unknown.value;
        constants.extend(quote!(const UNKNOWN: ::convoke::UnknownFields = ::convoke::UnknownFields::#variant;));
    }
    if declaration.check.is_some() {
        constants.extend(quote!(
            const CHECK: bool = true;
        ));
    }
    if let Some(key) = &declaration.unmanaged_key {
        let Some(stored) = stored_name(columns, &key.value) else {
            return Err(no_such_field(columns, &key.value));
        };
        constants.extend(
            quote!(const UNMANAGED_KEY: ::core::option::Option<&'static str> = ::core::option::Option::Some(#stored);),
        );
    }
    Ok(constants)
}

fn parse_struct(item: TokenStream) -> Result<ItemStruct> {
    let item = match syn::parse2::<Item>(item)? {
        Item::Struct(item) => item,
        Item::Enum(other) => {
            let message = "a table's documents are a struct with named fields; an enum can be the type of a field";
            return Err(Error::new_spanned(other.ident, message));
        }
        other => return Err(Error::new_spanned(other, "`#[table]` goes on a struct with named fields")),
    };
    if !item.generics.params.is_empty() {
        let message = "a table has one type of documents; its struct can't be generic";
        return Err(Error::new_spanned(&item.generics, message));
    }
    match &item.fields {
        Fields::Named(_) => Ok(item),
        Fields::Unnamed(fields) => {
            Err(Error::new_spanned(fields, "the fields of a document have names: write `struct … { field: Type }`"))
        }
        Fields::Unit => Err(Error::new_spanned(&item.ident, "a table needs fields: write `struct … { field: Type }`")),
    }
}

fn check_name(name: &LitStr) -> Result<()> {
    let text = name.value();
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphabetic());
    let goes_on_well = text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if starts_well && goes_on_well && text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("a table's name is a letter, then letters, digits and `_`, at most {NAME_BYTES_MAX}: `messages`");
    Err(Error::new_spanned(name, message))
}

fn check_indexes(indexes: &[Index], columns: &[Column]) -> Result<()> {
    for (position, index) in indexes.iter().enumerate() {
        let name = index.name.unraw().to_string();
        if INDEXES_RESERVED.contains(&name.as_str()) {
            return Err(Error::new_spanned(
                &index.name,
                format!("every table has `{name}` already; choose another name"),
            ));
        }
        if indexes[..position].iter().any(|earlier| earlier.name == index.name) {
            return Err(Error::new_spanned(&index.name, format!("this table has an index `{name}` already")));
        }
        if index.fields.is_empty() {
            return Err(Error::new_spanned(&index.name, format!("an index needs fields: `{name} = [field]`")));
        }
        for (place, field) in index.fields.iter().enumerate() {
            check_index_field(columns, &field.name)?;
            if index.fields[..place].iter().any(|earlier| earlier.name == field.name) {
                return Err(Error::new_spanned(&field.name, format!("the index has `{}` twice", field.name)));
            }
        }
    }
    Ok(())
}

fn check_index_field(columns: &[Column], field: &Ident) -> Result<()> {
    if stored_name(columns, field).is_some() {
        return Ok(());
    }
    if field == "_creationTime" || field == "_id" {
        let message = "every index ends with the creation time and the id by itself; leave it out";
        return Err(Error::new_spanned(field, message));
    }
    Err(no_such_field(columns, field))
}
