//! What stands in the parentheses of `#[table(…)]`.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::token::Paren;
use syn::{Error, Ident, LitInt, LitStr, Path, Result, Token, bracketed, parenthesized};

/// What can stand behind the name.
const OPTIONS: &str = "`index(by_field = [field])`, `unique(by_field = [field])`, `version = 2`, `upcast = function`, \
                       `unknown = \"keep\"`, `check`, `unmanaged(key = field)`";

const UNMANAGED: &str = "write `unmanaged(key = id)`, with the field that identifies a row";

/// A table's name and what is said about it.
pub(crate) struct Declaration {
    pub(crate) name: LitStr,
    pub(crate) indexes: Vec<Index>,
    pub(crate) version: Option<Setting<LitInt>>,
    pub(crate) upcast: Option<Setting<Path>>,
    /// The variant of `UnknownFields`.
    pub(crate) unknown: Option<Setting<Ident>>,
    pub(crate) check: Option<Setting<()>>,
    pub(crate) unmanaged_key: Option<Setting<Ident>>,
}

/// A value with the word that it belongs to.
pub(crate) struct Setting<V> {
    pub(crate) word: Ident,
    pub(crate) value: V,
}

/// `by_rank = [group, desc(rank)]`.
pub(crate) struct Index {
    pub(crate) name: Ident,
    pub(crate) fields: Vec<IndexField>,
    pub(crate) unique: bool,
}

/// `rank` or `desc(rank)`.
pub(crate) struct IndexField {
    pub(crate) name: Ident,
    pub(crate) descending: bool,
}

impl Declaration {
    /// Reads the attribute.
    pub(crate) fn of(attribute: TokenStream) -> Result<Self> {
        if attribute.is_empty() {
            return Err(Error::new(Span::call_site(), "a table needs a name: `#[table(\"messages\")]`"));
        }
        syn::parse2(attribute)
    }

    /// What must and must not go together.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_version()?;
        let Some(unmanaged) = &self.unmanaged_key else { return Ok(()) };
        let words = [
            self.indexes.first().map(|index| &index.name),
            self.version.as_ref().map(|version| &version.word),
            self.upcast.as_ref().map(|upcast| &upcast.word),
            self.unknown.as_ref().map(|unknown| &unknown.word),
            self.check.as_ref().map(|check| &check.word),
        ];
        match words.into_iter().flatten().next() {
            None => Ok(()),
            Some(word) => {
                let message = format!(
                    "`{word}` does not go with `{}`: the table is somebody else's, and Convoke never alters it",
                    unmanaged.word
                );
                Err(Error::new_spanned(word, message))
            }
        }
    }

    fn check_version(&self) -> Result<()> {
        let version = match &self.version {
            Some(version) => version.value.base10_parse::<u32>()?,
            None => 1,
        };
        match (&self.version, &self.upcast) {
            (Some(setting), _) if version == 0 => Err(Error::new_spanned(&setting.value, "versions count from 1")),
            (Some(setting), None) if version > 1 => {
                let message = format!(
                    "version {version} needs a rule that turns older documents into it: add `upcast = upgrade`, and write \
                     `#[rule] fn upgrade(document: Value, from: u32) -> Result<Value>`"
                );
                Err(Error::new_spanned(&setting.value, message))
            }
            (_, Some(upcast)) if version == 1 => {
                let message = "there is nothing older than version 1; say which version the struct is: `version = 2`";
                Err(Error::new_spanned(&upcast.word, message))
            }
            _ => Ok(()),
        }
    }

    fn parse_option(&mut self, word: Ident, input: ParseStream<'_>) -> Result<()> {
        match word.to_string().as_str() {
            "index" => self.indexes.extend(indexes(&word, input)?),
            "unique" => {
                let indexes = indexes(&word, input)?;
                self.indexes.extend(indexes.into_iter().map(|index| Index { unique: true, ..index }));
            }
            "version" => set(&mut self.version, word, input, |input| value(input, "`version = 2`"))?,
            "upcast" => set(&mut self.upcast, word, input, |input| value(input, "`upcast = upgrade`"))?,
            "unknown" => set(&mut self.unknown, word, input, unknown)?,
            "check" => set(&mut self.check, word, input, |_| Ok(()))?,
            "unmanaged" if !input.peek(Paren) => return Err(Error::new_spanned(word, UNMANAGED)),
            "unmanaged" => set(&mut self.unmanaged_key, word, input, key)?,
            _ => return Err(Error::new_spanned(word, format!("what can stand here is {OPTIONS}"))),
        }
        Ok(())
    }
}

impl Parse for Declaration {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut declaration = Self {
            name: input.parse()?,
            indexes: Vec::new(),
            version: None,
            upcast: None,
            unknown: None,
            check: None,
            unmanaged_key: None,
        };
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            let word = input.call(Ident::parse_any)?;
            declaration.parse_option(word, input)?;
        }
        Ok(declaration)
    }
}

/// Fills a setting that may be said once.
fn set<V>(
    slot: &mut Option<Setting<V>>,
    word: Ident,
    input: ParseStream<'_>,
    parse: impl FnOnce(ParseStream<'_>) -> Result<V>,
) -> Result<()> {
    if slot.is_some() {
        return Err(Error::new_spanned(&word, format!("`{word}` is said twice")));
    }
    let value = parse(input)?;
    *slot = Some(Setting { word, value });
    Ok(())
}

/// `= value`, and what to write where it is something else.
fn value<V: Parse>(input: ParseStream<'_>, example: &str) -> Result<V> {
    let advise = |error: Error| Error::new(error.span(), format!("write {example}"));
    input.parse::<Token![=]>().map_err(advise)?;
    input.parse::<V>().map_err(advise)
}

fn unknown(input: ParseStream<'_>) -> Result<Ident> {
    const EXAMPLES: &str = "`unknown = \"keep\"`, `unknown = \"strip\"` or `unknown = \"refuse\"`";
    let policy: LitStr = value(input, EXAMPLES)?;
    let variant = match policy.value().as_str() {
        "keep" => "Keep",
        "strip" => "Strip",
        "refuse" => "Refuse",
        _ => return Err(Error::new_spanned(policy, format!("write {EXAMPLES}"))),
    };
    Ok(Ident::new(variant, policy.span()))
}

fn key(input: ParseStream<'_>) -> Result<Ident> {
    let content;
    parenthesized!(content in input);
    let advise = |error: Error| Error::new(error.span(), UNMANAGED);
    let word = content.call(Ident::parse_any).map_err(advise)?;
    if word != "key" {
        return Err(Error::new_spanned(word, UNMANAGED));
    }
    content.parse::<Token![=]>().map_err(advise)?;
    let key = content.call(Ident::parse_any).map_err(advise)?;
    if content.is_empty() { Ok(key) } else { Err(content.error(UNMANAGED)) }
}

fn indexes(word: &Ident, input: ParseStream<'_>) -> Result<Vec<Index>> {
    if !input.peek(Paren) {
        return Err(Error::new_spanned(word, format!("write `{word}(by_field = [field])`")));
    }
    let content;
    parenthesized!(content in input);
    if !content.peek2(Token![=]) {
        return Err(content.error(format_args!("write `{word}(by_field = [field])`: an index has a name")));
    }
    Ok(Punctuated::<Index, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}

impl Parse for Index {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.parse()?;
        input.parse::<Token![=]>()?;
        let content;
        bracketed!(content in input);
        let fields = Punctuated::<IndexField, Token![,]>::parse_terminated(&content)?;
        Ok(Self { name, fields: fields.into_iter().collect(), unique: false })
    }
}

impl Parse for IndexField {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.call(Ident::parse_any)?;
        if !input.peek(Paren) {
            return Ok(Self { name, descending: false });
        }
        let content;
        parenthesized!(content in input);
        match name.to_string().as_str() {
            "desc" if content.is_empty() => Err(Error::new_spanned(name, "`desc(…)` takes the name of a field")),
            "desc" => {
                let field = content.call(Ident::parse_any)?;
                if content.is_empty() {
                    return Ok(Self { name: field, descending: true });
                }
                Err(content.error("`desc(…)` takes one field; write `desc(a), desc(b)` for two"))
            }
            "asc" => Err(Error::new_spanned(name, "a field ascends by itself; write its name alone")),
            _ => Err(Error::new_spanned(name, "write a field as `field`, or as `desc(field)` to turn its order round")),
        }
    }
}
