//! The fields of a struct that stands for documents, and the names under which they are stored.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::{Attribute, Error, Field, Ident, ItemStruct, LitStr, Result, Token, Type, parenthesized};

/// A field of the struct, under both of its names.
pub(crate) struct Column {
    pub(crate) ident: Ident,
    pub(crate) stored: String,
    pub(crate) span: Span,
}

/// The fields of a struct, where its names are in camel case or not.
pub(crate) fn columns(item: &ItemStruct, camel_case: bool) -> Result<Vec<Column>> {
    let named = item.fields.iter().filter_map(|field| field.ident.as_ref().map(|ident| (field, ident)));
    named
        .map(|(field, ident)| {
            let stored = match renamed(field)? {
                Some(name) => name,
                None if camel_case => to_camel_case(&ident.unraw().to_string()),
                None => ident.unraw().to_string(),
            };
            Ok(Column { ident: ident.clone(), stored, span: ident.span() })
        })
        .collect()
}

/// Whether a document can have a field of this name.
pub(crate) fn check_column(column: &Column) -> Result<()> {
    let Column { stored, span, .. } = column;
    let message = match stored.as_str() {
        "_id" => {
            "every document has an `_id` already; read it by `doc.id()` of the `Doc` that a query returns".to_owned()
        }
        "_creationTime" => {
            "every document has its `_creationTime` already; read it by `doc.creation_time()`".to_owned()
        }
        name if name.starts_with(['_', '$']) => {
            format!("`{name}`: names that start with `_` or `$` belong to the system; rename the field")
        }
        _ => return Ok(()),
    };
    Err(Error::new(*span, message))
}

/// The error for the name of a field that isn't there.
pub(crate) fn no_such_field(columns: &[Column], field: &Ident) -> Error {
    let known = columns.iter().map(|column| format!("`{}`", column.ident.unraw())).collect::<Vec<_>>().join(", ");
    Error::new_spanned(field, format!("the struct has no field `{field}`; it has {known}"))
}

/// The name under which a field is stored.
pub(crate) fn stored_name<'a>(columns: &'a [Column], field: &Ident) -> Option<&'a str> {
    columns.iter().find(|column| column.ident.unraw() == field.unraw()).map(|column| column.stored.as_str())
}

/// A `None` is a field that the document doesn't have, unless the author says by a `serde` attribute how it is stored.
pub(crate) fn omit_missing_options(item: &mut ItemStruct) {
    for field in &mut item.fields {
        let has_serde = field.attrs.iter().any(|attribute| attribute.path().is_ident("serde"));
        if is_option(&field.ty) && !has_serde {
            field
                .attrs
                .push(syn::parse_quote!(#[serde(default, skip_serializing_if = "::core::option::Option::is_none")]));
        }
    }
}

fn is_option(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|segment| segment.ident == "Option"),
        _ => false,
    }
}

/// The name that `#[serde(rename = "…")]` gives to a field.
fn renamed(field: &Field) -> Result<Option<String>> {
    serde_string(&field.attrs, "rename").map(|found| found.map(|name| name.value()))
}

/// Whether the struct's attributes say so.
pub(crate) fn renames_to_camel_case(attributes: &[Attribute]) -> Result<bool> {
    match serde_string(attributes, "rename_all")? {
        None => Ok(false),
        Some(rule) if rule.value() == "camelCase" => Ok(true),
        Some(rule) => Err(Error::new_spanned(
            rule,
            "only `rename_all = \"camelCase\"` is known here; give other names by `#[serde(rename = \"…\")]` on the field",
        )),
    }
}

/// The value of `#[serde(key = "…")]`.
fn serde_string(attributes: &[Attribute], key: &str) -> Result<Option<LitStr>> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident(key) && meta.input.peek(Token![=]) {
                found = Some(meta.value()?.parse::<LitStr>()?);
            } else if meta.input.peek(Token![=]) {
                meta.value()?.parse::<syn::Expr>()?;
            } else if meta.input.peek(syn::token::Paren) {
                let content;
                parenthesized!(content in meta.input);
                content.parse::<TokenStream>()?;
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// As serde does it, so that the manifest and the documents agree.
fn to_camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut raise = false;
    for letter in name.chars() {
        match letter {
            '_' => {}
            first if camel.is_empty() => camel.push(first.to_ascii_lowercase()),
            next if raise => camel.push(next.to_ascii_uppercase()),
            next => camel.push(next),
        }
        raise = letter == '_';
    }
    camel
}
