//! As much of Rust's grammar as the rules need: code without comments and literals, and names in it.

/// The code with comments, strings and characters blanked out, line by line as before.
pub(super) fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let blank = blank_length(rest, code.chars().next_back());
        let length = if blank == 0 { first.len_utf8() } else { blank };
        let (taken, after) = rest.split_at(length);
        if blank == 0 {
            code.push_str(taken);
        } else {
            code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// The length of the comment or literal that `rest` begins with, 0 when it begins with code.
fn blank_length(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if rest.starts_with('"') {
        return quoted_length(rest, '"');
    }
    if rest.starts_with('\'') {
        return character_length(rest);
    }
    let begins_a_word = !before.is_some_and(is_word);
    if begins_a_word { raw_string_length(rest) } else { 0 }
}

fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// A character literal, or 0 for a lifetime.
fn character_length(rest: &str) -> usize {
    let mut inside = rest.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted_length(rest, '\''),
        _ => 0,
    }
}

/// `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`, or 0.
fn raw_string_length(rest: &str) -> usize {
    let after = rest.trim_start_matches(['b', 'c']);
    let Some(after) = after.strip_prefix('r') else { return 0 };
    let text = after.trim_start_matches('#');
    let hashes = &after[..after.len() - text.len()];
    if !text.starts_with('"') || rest.len() - after.len() > 2 {
        return 0;
    }
    let end = format!("\"{hashes}");
    let opening = rest.len() - text.len() + 1;
    rest[opening..].find(&end).map_or(rest.len(), |at| opening + at + end.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_at(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// A name in the code, and what follows it.
pub(super) struct Found<'a> {
    pub(super) line: usize,
    pub(super) after: &'a str,
}

impl Found<'_> {
    /// Whether the name is the beginning of the path `name::item`.
    pub(super) fn is_followed_by(&self, item: &str) -> bool {
        let after = self.after.trim_start().strip_prefix("::").map(str::trim_start);
        after.and_then(|after| after.strip_prefix(item)).is_some_and(|end| !end.starts_with(is_word))
    }
}

/// Every place that names `name`, as a word of its own.
pub(super) fn names<'a>(code: &'a str, name: &str) -> impl Iterator<Item = Found<'a>> {
    let length = name.len();
    code.match_indices(name).filter_map(move |(at, _)| {
        let after = &code[at + length..];
        let whole = !code[..at].ends_with(is_word) && !after.starts_with(is_word);
        whole.then(|| Found { line: line_at(code, at), after })
    })
}

/// A module of the standard library that the code names.
pub(super) struct StdModule {
    pub(super) line: usize,
    pub(super) module: String,
}

/// The modules right under `std` that paths name, inside braces too: `use std::{fs, time::Duration}`.
pub(super) fn std_modules(code: &str) -> impl Iterator<Item = StdModule> {
    names(code, "std").flat_map(|found| {
        let after = found.after.trim_start().strip_prefix("::").unwrap_or_default().trim_start();
        let modules = match after.strip_prefix('{') {
            Some(group) => first_words(group),
            None => vec![word_at_the_start(after)],
        };
        modules.into_iter().map(move |module| StdModule { line: found.line, module })
    })
}

fn word_at_the_start(text: &str) -> String {
    text.trim_start().chars().take_while(|c| is_word(*c)).collect()
}

/// The first word of each entry of a group, up to its closing brace.
fn first_words(group: &str) -> Vec<String> {
    let mut words = vec![word_at_the_start(group)];
    let mut depth = 0_i32;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => words.push(word_at_the_start(&group[at + 1..])),
            _ => {}
        }
    }
    words
}

#[test]
fn comments_and_literals_are_no_code() {
    let source =
        "// wasmtime\nlet a = \"wasm\\\"time\"; /* a /* b */ c */ let r = r#\"x\"y\"#; let c = '\"'; fn f<'a>() {}\n";
    let code = code_of(source);
    assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), "let a = ; let r = ; let c = ; fn f<'a>() {}");
    assert_eq!(code.lines().count(), source.lines().count());
}

#[test]
fn names_are_whole_words() {
    let code = "use tokio_postgres::Config;\nuse tokio_postgres::{Client};\nlet my_tokio_postgres = 1;\n";
    let found: Vec<_> =
        names(code, "tokio_postgres").map(|found| (found.line, found.is_followed_by("Config"))).collect();
    assert_eq!(found, [(1, true), (2, false)]);
}

#[test]
fn grouped_imports_are_seen() {
    let code = "use std::{collections::{HashMap, BTreeMap}, fs, time::Duration};\nstd::env::var";
    let modules: Vec<_> = std_modules(code).map(|found| found.module).collect();
    assert_eq!(modules, ["collections", "fs", "time", "env"]);
}
