//! Definitions in a form that can be compared: Postgres prints them with parentheses and casts of its own.

/// Casts that Postgres writes out and that change nothing in what Convoke generates.
const CASTS: [&str; 3] = ["::text", "::jsonb", "::numeric"];

/// A definition without what differs between how it is written and how Postgres prints it: spaces, parentheses, casts of
/// literals, the case of words. What is quoted stays as it is.
pub(crate) fn comparable(definition: &str) -> String {
    let mut out = String::with_capacity(definition.len());
    let mut quote: Option<char> = None;
    for character in definition.chars() {
        match quote {
            Some(end) => {
                out.push(character);
                if character == end {
                    quote = None;
                }
            }
            None if character == '\'' || character == '"' => {
                quote = Some(character);
                out.push(character);
            }
            None if character.is_whitespace() || character == '(' || character == ')' => {}
            None => out.extend(character.to_lowercase()),
        }
    }
    CASTS.iter().fold(out, |text, cast| without(&text, cast))
}

/// Without the casts to `cast`; `::text[]` is another type.
fn without(text: &str, cast: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(cast) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let after = &after[cast.len()..];
        if after.starts_with(|next: char| next == '[' || next == '_' || next.is_alphanumeric()) {
            // `::text[]` and the end of a longer name stay; `::jsonbin` cannot follow.
            if after.starts_with('[') || after.starts_with('_') {
                out.push_str(cast);
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_and_what_postgres_prints_are_the_same() {
        for (written, printed) in [
            (
                "convoke.key(data->'Channel'), convoke.key(data->'at') desc, _creation_time, _id",
                "(convoke.key((data -> 'Channel'::text)), convoke.key((data -> 'at'::text)) DESC, _creation_time, _id)",
            ),
            (
                "data ? 'f' and (case when jsonb_typeof(data->'f') = 'number' then (data->'f')::numeric = \
                 trunc((data->'f')::numeric) else false end)",
                "((data ? 'f'::text) AND CASE\n    WHEN (jsonb_typeof((data -> 'f'::text)) = 'number'::text) THEN \
                 (((data -> 'f'::text))::numeric = trunc(((data -> 'f'::text))::numeric))\n    ELSE false\nEND)",
            ),
        ] {
            assert_eq!(comparable(written), comparable(printed));
        }
        assert_ne!(comparable("data->'a'"), comparable("data->'A'"));
        assert_ne!(comparable("x::text[]"), comparable("x[]"));
    }
}
