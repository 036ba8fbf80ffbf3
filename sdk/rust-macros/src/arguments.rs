//! The parameters after the context: the named arguments of a function.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Error, FnArg, Ident, Pat, PatType, Result, Type};

/// One named argument.
pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    /// Doc comments, and `serde` and `schemars` attributes: they move from the parameter to the field that stands for it.
    pub(crate) attributes: Vec<Attribute>,
}

impl Argument {
    /// Reads a parameter, and takes from it the attributes that the compiler wouldn't accept there.
    pub(crate) fn take(parameter: &mut FnArg) -> Result<Self> {
        let parameter = match parameter {
            FnArg::Receiver(receiver) => return Err(refuse_receiver(receiver)),
            FnArg::Typed(parameter) => parameter,
        };
        let name = name_of(parameter)?;
        check_type(&parameter.ty)?;
        let (attributes, kept) = parameter.attrs.drain(..).partition(belongs_to_field);
        parameter.attrs = kept;
        Ok(Self { name, ty: (*parameter.ty).clone(), attributes })
    }
}

/// The error for a `self` parameter.
pub(crate) fn refuse_receiver(receiver: &syn::Receiver) -> Error {
    Error::new_spanned(receiver, "a function of a component has no `self`; move it out of the `impl` block")
}

/// Whether a type mentions `impl Trait` anywhere.
pub(crate) fn mentions_impl(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "impl",
        TokenTree::Group(group) => mentions_impl(group.stream()),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

/// Whether an attribute of a parameter is meant for the field that stands for it.
pub(crate) fn belongs_to_field(attribute: &Attribute) -> bool {
    ["doc", "serde", "schemars"].iter().any(|name| attribute.path().is_ident(name))
}

fn name_of(parameter: &PatType) -> Result<Ident> {
    match &*parameter.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => Ok(pattern.ident.clone()),
        pattern => Err(Error::new_spanned(
            pattern,
            "an argument needs a name, by which callers give it; take the pattern apart in the body",
        )),
    }
}

fn check_type(ty: &Type) -> Result<()> {
    if mentions_impl(ty.to_token_stream()) {
        return Err(Error::new_spanned(ty, "an argument has one type; name it instead of `impl Trait`"));
    }
    if let Type::Reference(reference) = ty {
        let owned = match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => "`String`",
            Type::Slice(_) => "a `Vec`",
            _ => "the value itself",
        };
        return Err(Error::new_spanned(ty, format!("arguments are owned; take {owned} instead of a reference")));
    }
    Ok(())
}
