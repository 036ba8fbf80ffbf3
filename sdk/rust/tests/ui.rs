//! What authors see when they use the macros wrongly, and a component with everything used rightly.
//!
//! `TRYBUILD=overwrite cargo test -p convoke --test ui` accepts changed messages.

#[test]
fn wrong_use_fails_with_advice() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/right_use.rs");
    cases.compile_fail("tests/ui/wrong_*.rs");
}
