//! The kinds of functions, and the words for them.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::Ident;

/// What an attribute makes of a function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Query,
    Mutation,
    Action,
    Rule,
}

impl Kind {
    /// The kind whose context has this name.
    pub(crate) fn of_context(name: &Ident) -> Option<Self> {
        [Self::Query, Self::Mutation, Self::Action].into_iter().find(|kind| name == kind.context_name())
    }

    /// The kind with its article, as it stands in a sentence.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Query => "a query",
            Self::Mutation => "a mutation",
            Self::Action => "an action",
            Self::Rule => "a rule",
        }
    }

    /// The name of the attribute.
    pub(crate) fn attribute(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Action => "action",
            Self::Rule => "rule",
        }
    }

    /// The type of the context, empty for a rule.
    pub(crate) fn context_name(self) -> &'static str {
        match self {
            Self::Query => "QueryCtx",
            Self::Mutation => "MutationCtx",
            Self::Action => "ActionCtx",
            Self::Rule => "",
        }
    }

    /// Why somebody would have taken this kind's context: the end of "make it a `#[mutation]` …".
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            Self::Query => "if it only reads",
            Self::Mutation => "to write",
            Self::Action => "to call functions and the outside",
            Self::Rule => "to compute from its arguments alone",
        }
    }

    /// The expression that makes the context, none for a rule.
    pub(crate) fn context(self) -> Option<TokenStream> {
        (self != Self::Rule).then(|| {
            let name = Ident::new(self.context_name(), Span::call_site());
            quote!(::convoke::__private::context::<::convoke::#name>())
        })
    }

    /// The value that the registration holds.
    pub(crate) fn variant(self) -> TokenStream {
        match self {
            Self::Query => quote!(::convoke::__private::Kind::Query),
            Self::Mutation => quote!(::convoke::__private::Kind::Mutation),
            Self::Action => quote!(::convoke::__private::Kind::Action),
            Self::Rule => quote!(::convoke::__private::Kind::Rule),
        }
    }
}
