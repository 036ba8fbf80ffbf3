//! `#[query]`, `#[mutation]`, `#[action]` and `#[rule]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Item, ItemFn, Result, ReturnType, Signature, Type};

use crate::arguments::{Argument, mentions_impl, refuse_receiver};
use crate::kind::Kind;
use crate::recover::with_error;

/// The author's function and its glue.
pub(crate) fn expand(kind: Kind, attribute: &TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(kind, attribute, item.clone()) {
        Ok(expansion) => expansion,
        Err(error) => with_error(item, &error),
    }
}

fn try_expand(kind: Kind, attribute: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !attribute.is_empty() {
        let message = format!("`#[{0}]` takes no arguments; write `#[{0}]`", kind.attribute());
        return Err(Error::new_spanned(attribute, message));
    }
    let mut function = parse_function(kind, item)?;
    check_signature(kind, &function.sig)?;
    check_context(kind, &function.sig)?;
    let skipped = usize::from(kind != Kind::Rule);
    let arguments = function.sig.inputs.iter_mut().skip(skipped).map(Argument::take).collect::<Result<Vec<_>>>()?;
    Ok(glue(kind, &function, &arguments))
}

fn parse_function(kind: Kind, item: TokenStream) -> Result<ItemFn> {
    let message = format!("`#[{}]` goes on a function", kind.attribute());
    match syn::parse2::<Item>(item)? {
        Item::Fn(function) => Ok(function),
        Item::Struct(other) => {
            Err(Error::new_spanned(other.ident, format!("{message}; a struct becomes a table by `#[table(\"…\")]`")))
        }
        Item::Enum(other) => Err(Error::new_spanned(other.ident, message)),
        other => Err(Error::new_spanned(other, message)),
    }
}

fn check_signature(kind: Kind, signature: &Signature) -> Result<()> {
    let noun = kind.noun();
    if let Some(asyncness) = &signature.asyncness
        && kind != Kind::Action
    {
        let message = format!("{noun} is not `async`: nothing in it waits; remove `async`, or make it an `#[action]`");
        return Err(Error::new_spanned(asyncness, message));
    }
    if let Some(unsafety) = &signature.unsafety {
        return Err(Error::new_spanned(unsafety, format!("{noun} is called by the host and can't be `unsafe`")));
    }
    if !signature.generics.params.is_empty() {
        let message = format!("{noun} can't be generic: callers choose its arguments at run time; name the types");
        return Err(Error::new_spanned(&signature.generics, message));
    }
    if let ReturnType::Type(_, ty) = &signature.output
        && mentions_impl(ty.to_token_stream())
    {
        let message = format!("the result of {noun} has one type; name it instead of `impl Trait`");
        return Err(Error::new_spanned(ty, message));
    }
    Ok(())
}

/// The first parameter must be the kind's context; a rule has none.
fn check_context(kind: Kind, signature: &Signature) -> Result<()> {
    let wanted = kind.context_name();
    let noun = kind.noun();
    let ty = match signature.inputs.first() {
        Some(FnArg::Receiver(receiver)) => return Err(refuse_receiver(receiver)),
        Some(FnArg::Typed(parameter)) => &*parameter.ty,
        None if kind == Kind::Rule => return Ok(()),
        None => {
            let message = format!("{noun} takes a context first: add `ctx: &{wanted}`");
            return Err(Error::new(signature.paren_token.span.join(), message));
        }
    };
    match (context_of(ty), kind) {
        (None, Kind::Rule) => Ok(()),
        (Some(_), Kind::Rule) => {
            let message = "a rule computes from its arguments alone and takes no context; make it a `#[query]` to read";
            Err(Error::new_spanned(ty, message))
        }
        (None, _) => {
            Err(Error::new_spanned(ty, format!("{noun} takes a context first: put `ctx: &{wanted}` before this")))
        }
        (Some(found), _) if found != kind => {
            let message = format!(
                "{noun} takes `&{wanted}`; make it {article} `#[{attribute}]` {purpose}",
                article = if found == Kind::Action { "an" } else { "a" },
                attribute = found.attribute(),
                purpose = found.purpose(),
            );
            Err(Error::new_spanned(ty, message))
        }
        (Some(_), _) => match ty {
            Type::Reference(reference) if reference.mutability.is_none() => Ok(()),
            _ => Err(Error::new_spanned(ty, format!("{noun} takes its context by shared reference: `&{wanted}`"))),
        },
    }
}

fn context_of(ty: &Type) -> Option<Kind> {
    match ty {
        Type::Reference(reference) => context_of(&reference.elem),
        Type::Path(path) => Kind::of_context(&path.path.segments.last()?.ident),
        _ => None,
    }
}

/// The function as the author wrote it, and beside it what the host needs to call it.
fn glue(kind: Kind, function: &ItemFn, arguments: &[Argument]) -> TokenStream {
    let ident = &function.sig.ident;
    let name = ident.unraw().to_string();
    let conditions = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let structure = arguments_struct(function, arguments);
    let checks = arguments.iter().map(|argument| {
        let ty = &argument.ty;
        quote_spanned!(ty.span()=> ::convoke::__private::assert_argument::<#ty>();)
    });
    let names = arguments.iter().map(|argument| &argument.name);
    let context = kind.context().map(|make| quote!(&#make,));
    let called = quote!(#ident(#context #(arguments.#names),*));
    let called = match &function.sig.asyncness {
        Some(_) => quote!(::convoke::__private::block_on(#called)?),
        None => called,
    };
    let unit = syn::parse_quote!(());
    let output = match &function.sig.output {
        ReturnType::Default => &unit,
        ReturnType::Type(_, ty) => &**ty,
    };
    let (result, returned) = if is_result(output) {
        (
            quote_spanned!(output.span()=> <#output as ::convoke::__private::Fallible>::into_result(#called)?),
            quote_spanned!(output.span()=> <#output as ::convoke::__private::Fallible>::Value),
        )
    } else {
        (called, output.to_token_stream())
    };
    let reply = quote_spanned!(output.span()=> ::convoke::__private::reply::<#returned>);
    let returns = quote_spanned!(output.span()=> ::convoke::__private::schema_of_result::<#returned>);
    let kind = kind.variant();
    quote! {
        #[allow(
            clippy::needless_pass_by_value,
            clippy::unnecessary_wraps,
            clippy::unused_async,
            reason = "the caller of a function is the host, which decides how arguments and results cross"
        )]
        #function

        #(#conditions)*
        const _: () = {
            #structure

            const _: fn() = || { #(#checks)* };

            fn call(arguments: &str) -> ::convoke::Result<::std::string::String> {
                #[allow(unused_variables, reason = "a function may have no arguments")]
                let arguments: __ConvokeArguments = ::convoke::__private::arguments(arguments)?;
                #reply(&#result)
            }

            ::convoke::__private::inventory::submit! {
                ::convoke::__private::Function {
                    name: #name,
                    kind: #kind,
                    call,
                    args: ::convoke::__private::schema_of_arguments::<__ConvokeArguments>,
                    returns: #returns,
                }
            }
        };
    }
}

fn arguments_struct(function: &ItemFn, arguments: &[Argument]) -> TokenStream {
    let docs = function.attrs.iter().filter(|attribute: &&Attribute| attribute.path().is_ident("doc"));
    let fields = arguments.iter().map(|Argument { name, ty, attributes }| quote!(#(#attributes)* #name: #ty));
    quote! {
        #(#docs)*
        #[derive(::convoke::__private::serde::Deserialize, ::convoke::__private::schemars::JsonSchema)]
        #[serde(crate = "::convoke::__private::serde", deny_unknown_fields)]
        #[schemars(crate = "::convoke::__private::schemars")]
        struct __ConvokeArguments { #(#fields),* }
    }
}

/// By its name: a `Result` is itself serialisable, so its type alone doesn't tell the two meanings apart.
fn is_result(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|segment| segment.ident == "Result"),
        _ => false,
    }
}
