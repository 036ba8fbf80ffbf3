//! docs/reference/database.md shows the functions of a guest of the tests, which compiles and runs: whoever changes the one
//! changes the other.

use std::fs;
use std::path::Path;

const PAGE: &str = "docs/reference/database.md";
const GUEST: &str = "tests/guests/database-reference/src";

#[test]
fn the_page_shows_the_guest_and_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join(PAGE)).expect("the page");
    let blocks = page.split("```rust\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
    let shown: Vec<&str> = blocks.flat_map(|(block, _)| items(block)).collect();
    let mut source = String::new();
    for entry in fs::read_dir(root.join(GUEST)).expect("the guest") {
        source.push_str(&fs::read_to_string(entry.expect("a file").path()).expect("a source"));
        source.push_str("\n\n");
    }
    // What has no body is the head of a file.
    let written: Vec<&str> = items(&source).filter(|item| item.ends_with("\n}")).collect();
    let only = |these: &[&str], those: &[&str]| -> Vec<String> {
        these.iter().filter(|item| !those.contains(item)).map(|item| (*item).to_owned()).collect()
    };
    assert_eq!(only(&shown, &written), Vec::<String>::new(), "only in {PAGE}");
    assert_eq!(only(&written, &shown), Vec::<String>::new(), "only in {GUEST}");
}

/// Functions and types with what stands above them. No empty line is within one.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").map(|item| item.trim_matches('\n'))
}
