//! Which files of a crate name each other. A circle of files is one file in several places: nobody can read a part of it
//! alone. Only a module and what lies within it may name each other.

use std::collections::{BTreeMap, BTreeSet};

use super::rust_source::{code_of, names};
use super::tree::Tree;

/// How many circles a crate has at most: those that were there before the rule. The numbers only ever get smaller; a crate
/// that is not here has none.
const KNOWN: [(&str, usize); 12] = [
    ("host/cli", 1),
    ("host/convex", 4),
    ("host/feed", 1),
    ("host/invoke", 4),
    ("host/live", 2),
    ("host/local-postgres", 1),
    ("host/model", 4),
    ("host/server", 2),
    ("host/sql", 1),
    ("host/store", 1),
    ("host/sync", 12),
    ("sdk/rust", 5),
];

/// From a module, by its path within the crate, to those that it names.
type Arrows = BTreeMap<String, BTreeSet<String>>;

pub(super) fn problems(tree: &Tree) -> Vec<String> {
    let mut crates: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for file in tree.rust() {
        if let Some((name, module)) = place_of(&file.path) {
            crates.entry(name).or_default().insert(module, without_tests(&code_of(&file.text)).to_owned());
        }
    }
    let mut problems = Vec::new();
    for (name, files) in &crates {
        let circles = circles(&arrows(files));
        let known = KNOWN.iter().find(|(known, _)| known == name).map_or(0, |(_, known)| *known);
        if circles.len() <= known {
            continue;
        }
        problems.push(format!("{name}: {} circles, at most {known}", circles.len()));
        problems.extend(circles.into_iter().map(|circle| format!("{name}: {circle}")));
    }
    problems
}

/// The crate of a file and its module there: `host/live` and `index::rows`. Tests beside the code may name what they like.
fn place_of(path: &str) -> Option<(&str, String)> {
    let (name, file) = path.split_once("/src/")?;
    let module = file.strip_suffix(".rs")?;
    let is_test =
        module == "tests" || module.contains("/tests") || module.ends_with("_tests") || module.starts_with("bin/");
    let module = module.strip_suffix("/mod").unwrap_or(module);
    let module = if matches!(module, "lib" | "main") { String::new() } else { module.replace('/', "::") };
    (!is_test).then_some((name, module))
}

fn without_tests(code: &str) -> &str {
    code.split("#[cfg(test)]").next().unwrap_or(code)
}

fn arrows(files: &BTreeMap<String, String>) -> Arrows {
    let mut arrows = Arrows::new();
    for (module, code) in files {
        let from_crate = names(code, "crate").flat_map(|found| paths(found.after));
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let from_parent = names(code, "super").flat_map(|found| paths(found.after)).map(|path| joined(parent, &path));
        let targets = from_crate.chain(from_parent).map(|path| file_of(files, &path));
        let others =
            targets.filter(|target| target != module && !is_within(target, module) && !is_within(module, target));
        arrows.insert(module.clone(), others.collect());
    }
    arrows
}

/// The paths behind `crate` or `super`: `::a::{b, c::D}` is `a::b` and `a::c::D`.
fn paths(after: &str) -> Vec<String> {
    let Some(rest) = after.trim_start().strip_prefix("::") else { return Vec::new() };
    let rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        return entries(group).into_iter().flat_map(|entry| paths(&format!("::{entry}"))).collect();
    }
    let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if word.is_empty() {
        return Vec::new();
    }
    let inner = paths(&rest[word.len()..]);
    if inner.is_empty() { vec![word] } else { inner.iter().map(|path| joined(&word, path)).collect() }
}

/// What is between a brace and the one that closes it, by its outermost commas.
fn entries(group: &str) -> Vec<&str> {
    let mut entries = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                entries.push(group[start..at].trim());
                return entries;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                entries.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    entries
}

fn joined(outer: &str, inner: &str) -> String {
    if outer.is_empty() { inner.to_owned() } else { format!("{outer}::{inner}") }
}

/// The file that holds what a path names: the longest beginning of it that is one.
fn file_of(files: &BTreeMap<String, String>, path: &str) -> String {
    let mut rest = path;
    while !files.contains_key(rest) {
        let Some((shorter, _)) = rest.rsplit_once("::") else { return String::new() };
        rest = shorter;
    }
    rest.to_owned()
}

fn is_within(inner: &str, outer: &str) -> bool {
    outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"))
}

/// Each arrow that leads back to where it came from, with the way back, once a circle.
fn circles(arrows: &Arrows) -> Vec<String> {
    let mut seen: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    let mut found = Vec::new();
    for from in arrows.keys() {
        if let Some(way) = way_back(arrows, from)
            && seen.insert(way.iter().copied().collect())
        {
            found.push(format!("{} -> {from}", way.join(" -> ")));
        }
    }
    found
}

/// The shortest way from a module to itself, that module first.
fn way_back<'a>(arrows: &'a Arrows, from: &'a str) -> Option<Vec<&'a str>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut due = std::collections::VecDeque::from([from]);
    while let Some(at) = due.pop_front() {
        for next in arrows.get(at).into_iter().flatten() {
            if next == from {
                let mut way = vec![at];
                while let Some(last) = way.last().filter(|last| **last != from) {
                    way.push(before[last]);
                }
                way.reverse();
                return Some(way);
            }
            if !before.contains_key(next.as_str()) {
                before.insert(next, at);
                due.push_back(next);
            }
        }
    }
    None
}

#[test]
fn a_circle_is_found_and_a_child_is_none() {
    let files = [
        ("", "mod a; mod b; mod c; use crate::a::X;"),
        ("a", "use crate::{b::{Y, Z}, c}; mod inner;"),
        ("a::inner", "use super::X; use crate::c::C;"),
        ("b", "fn f() { super::c::g() }"),
        ("c", "use crate::a::X;"),
    ];
    let files: BTreeMap<_, _> = files.map(|(module, code)| (module.to_owned(), code.to_owned())).into();
    assert_eq!(circles(&arrows(&files)), ["a -> c -> a", "b -> c -> a -> b"]);
}
