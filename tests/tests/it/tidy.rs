//! The rules of the house that neither rustc nor clippy knows. A failure names every place at once, and what to do.

mod circles;
mod layers;
mod rust_source;
mod tree;

use rust_source::{code_of, names, std_modules};
use tree::{TextFile, Tree};

const FILE_LINES_MAX: usize = 600;

/// Who may name a crate that the architecture keeps in one place. Folders are relative to the root.
struct Reserved {
    name: &'static str,
    folders: &'static [&'static str],
    /// Folders that may name one item of the crate and nothing else.
    one_item: Option<(&'static [&'static str], &'static str)>,
}

const SPEAK_POSTGRES: [&str; 8] = [
    "host/postgres/",
    "host/store/",
    "host/sync/",
    "host/feed/",
    "host/jobs/",
    "host/local-postgres/",
    "bench/",
    "tests/",
];

const RESERVED: [Reserved; 5] = [
    Reserved { name: "tokio_postgres", folders: &SPEAK_POSTGRES, one_item: None },
    Reserved {
        name: "convoke_postgres",
        folders: &SPEAK_POSTGRES,
        // A connection string is parsed where it comes in, and handed down as a value.
        one_item: Some((&["host/server/", "host/cli/"], "Config")),
    },
    Reserved { name: "wasmtime", folders: &["host/engine/", "bench/"], one_item: None },
    Reserved { name: "axum", folders: &["host/server/", "bench/"], one_item: None },
    // The command line is a client of its own host; a test is one too.
    Reserved { name: "hyper", folders: &["host/server/", "host/cli/", "bench/", "tests/"], one_item: None },
];

/// What is pure, and what it must not name. These crates are also compiled into guests, where none of it works.
const PURE: [&str; 3] = ["host/model/src/", "host/sql/src/", "host/documents/src/"];
const IMPURE_STD: [&str; 4] = ["time", "fs", "net", "env"];

const COMMANDS_OF_THE_README: [&str; 2] = ["cargo run --release -- dev", "cargo test --workspace"];

#[test]
fn crates_stay_where_the_architecture_put_them() {
    let mut problems = Vec::new();
    for file in Tree::read().rust() {
        let code = code_of(&file.text);
        for reserved in &RESERVED {
            if !file.is_in(reserved.folders) {
                problems.extend(reserved.violations(file, &code));
            }
        }
    }
    report(&problems, "use the face of the crate that owns it (docs/design.md), or change the design first");
}

impl Reserved {
    fn violations(&self, file: &TextFile, code: &str) -> Vec<String> {
        let item = self.one_item.filter(|(folders, _)| file.is_in(folders)).map(|(_, item)| item);
        names(code, self.name)
            .filter(|found| !item.is_some_and(|item| found.is_followed_by(item)))
            .map(|found| match item {
                Some(item) => format!("{}:{}: only `{}::{item}` may be named here", file.path, found.line, self.name),
                None => format!("{}:{}: `{}`", file.path, found.line, self.name),
            })
            .collect()
    }
}

#[test]
fn what_is_pure_knows_neither_time_nor_io() {
    let mut problems = Vec::new();
    for file in Tree::read().rust().filter(|file| file.is_in(&PURE)) {
        let code = code_of(&file.text);
        problems.extend(names(&code, "tokio").map(|found| format!("{}:{}: `tokio`", file.path, found.line)));
        for found in std_modules(&code).filter(|found| IMPURE_STD.contains(&found.module.as_str())) {
            problems.push(format!("{}:{}: `std::{}`", file.path, found.line, found.module));
        }
    }
    report(&problems, "take the value as an argument; the caller reads the clock, the file, the environment");
}

#[test]
fn nobody_but_the_door_builds_a_run() {
    let mut problems = Vec::new();
    let who = ["host/invoke/", "host/store/", "tests/", "bench/"];
    for file in Tree::read().rust().filter(|file| !file.is_in(&who)) {
        let code = code_of(&file.text);
        problems
            .extend(names(&code, "CallOptions").map(|found| format!("{}:{}: `CallOptions`", file.path, found.line)));
        let calls = names(&code, "convoke_engine").filter(|found| found.is_followed_by("Call"));
        problems.extend(calls.map(|found| format!("{}:{}: `convoke_engine::Call`", file.path, found.line)));
    }
    report(&problems, "enter by `convoke_invoke::Invoker::enter`: what holds for every call is seen to there");
}

#[test]
fn files_stay_readable() {
    let mut problems = Vec::new();
    for file in Tree::read().rust() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", file.path));
        }
    }
    report(&problems, "give a part of it a name of its own");
}

#[test]
fn nothing_is_left_for_later() {
    // Written in pieces, so that this file passes its own test.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("dbg", "!(")];
    let mut problems = Vec::new();
    for file in Tree::read().texts() {
        for mark in marks {
            let lines = file.lines_with(mark, |before| !before.is_ascii_alphanumeric() && before != '_');
            problems.extend(lines.map(|line| format!("{}:{line}: {mark}", file.path)));
        }
    }
    report(&problems, "do it, or open an issue for it");
}

#[test]
fn no_path_of_one_machine() {
    let roots = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];
    // The sample path of a test; nobody's machine has it.
    let sample = concat!("/ho", "me/x/");
    let mut problems = Vec::new();
    for file in Tree::read().texts() {
        let file = file.without(sample);
        for root in roots {
            // `host/opt/x` and `https://example.org/home/` are no absolute paths.
            let lines = file.lines_with(root, |before| !before.is_ascii_alphanumeric() && !"_-./}".contains(before));
            problems.extend(lines.map(|line| format!("{}:{line}: {root}", file.path)));
        }
    }
    report(&problems, "take the path from the environment or from `CARGO_MANIFEST_DIR`");
}

#[test]
fn every_crate_says_what_it_is() {
    let tree = Tree::read();
    let problems: Vec<String> = tree
        .rust()
        .filter(|file| file.is_crate_root())
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| format!("{}: does not begin with `//!`", file.path))
        .collect();
    report(&problems, "say in the first lines what the crate is for, and what it does not know");
}

#[test]
fn links_between_documents_resolve() {
    let tree = Tree::read();
    let mut problems = Vec::new();
    for file in tree.texts().filter(|file| file.has_extension("md")) {
        for link in file.relative_links() {
            if !tree.exists_beside(file, &link.target) {
                problems.push(format!("{}:{}: `{}`", file.path, link.line, link.target));
            }
        }
    }
    report(&problems, "correct the link, or write the page");
}

#[test]
fn the_readme_has_the_two_commands() {
    let tree = Tree::read();
    let readme = tree.texts().find(|file| file.path == "README.md").map_or("", |file| file.text.as_str());
    let problems: Vec<String> = COMMANDS_OF_THE_README
        .iter()
        .filter(|command| !readme.contains(**command))
        .map(|command| format!("README.md: `{command}` is missing"))
        .collect();
    report(&problems, "the two commands must do everything, and be the first thing that a newcomer reads");
}

#[test]
fn files_of_a_crate_form_no_circle() {
    let problems = circles::problems(&Tree::read());
    report(&problems, "move what both need into a file of its own, or make one a child of the other");
}

#[test]
fn dependencies_point_downwards() {
    let problems = layers::problems(&Tree::read());
    report(&problems, "see `LAYERS` in tests/tests/it/tidy/layers.rs; move the code down, or pass a trait in");
}

#[track_caller]
fn report(problems: &[String], hint: &str) {
    assert!(problems.is_empty(), "\n  {}\nhint: {hint}\n", problems.join("\n  "));
}
