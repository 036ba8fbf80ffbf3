//! `convoke build`.

use insta::assert_snapshot;

use crate::support::Place;

const NAME: &str = "[project]\nname = \"demo\"\n";

/// The least that is a component: its header.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn package(place: &Place, name: &str, source: &str) {
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n"
    );
    place.write(&format!("components/{name}/Cargo.toml"), manifest);
    place.write(&format!("components/{name}/src/lib.rs"), source);
}

#[test]
fn no_project() {
    assert_snapshot!(Place::empty().run(&["build"]));
}

#[test]
fn no_directory() {
    assert_snapshot!(Place::empty().run(&["build", "nowhere"]));
}

#[test]
fn a_convoke_toml_with_a_mistake() {
    assert_snapshot!(Place::project("[project]\nname = \"demo\"\n\n[limits]\ncall_ms = 3\n").run(&["build"]));
}

#[test]
fn no_components() {
    assert_snapshot!(Place::project(NAME).run(&["build"]));
}

#[test]
fn a_component_that_is_not_there() {
    let place = Place::project(&format!("{NAME}[components]\nmessages = \"components/messages\"\n"));
    assert_snapshot!(place.run(&["build"]));
}

#[test]
fn finished_components() {
    let place = Place::project(&format!("{NAME}[components]\nmessages = \"a.wasm\"\n\"chat/rooms\" = \"b.wasm\"\n"));
    place.write("a.wasm", COMPONENT);
    place.write("b.wasm", COMPONENT);
    assert_snapshot!(place.run(&["build"]));
    assert_snapshot!("finished_components_again", place.run(&["build", "--json"]));
}

#[test]
fn a_file_that_is_no_component() {
    let place = Place::project(&format!("{NAME}[components]\nmessages = \"a.wasm\"\n"));
    place.write("a.wasm", b"\0asm\x01\0\0\0");
    assert_snapshot!(place.run(&["build"]));
}

#[test]
fn for_spin() {
    assert_snapshot!(Place::project(NAME).run(&["build", "--target", "spin"]));
}

#[test]
fn a_compilers_error() {
    let place = Place::project(&format!("{NAME}[components]\ncli_failing = \"components/cli_failing\"\n"));
    package(&place, "cli_failing", "pub fn f() -> u32 {\n    \"text\"\n}\n");
    let shown = place.run(&["build"]);
    assert!(shown.starts_with("exit code 1\n--- stdout: nothing\n"), "{shown}");
    assert!(shown.contains("error[E0308]: mismatched types\n --> components/cli_failing/src/lib.rs:2:5"), "{shown}");
    assert!(shown.ends_with("error: the components do not compile\n"), "{shown}");
    assert!(!shown.contains('\x1b'), "{shown}");
}

#[test]
fn a_package_is_built() {
    let place = Place::project(&format!("{NAME}[components]\ncli_good = \"components/cli_good\"\n"));
    package(&place, "cli_good", "fn unused() {}\n");
    let shown = place.run(&["build"]);
    assert!(shown.starts_with("exit code 0\n--- stdout\ncli_good  .convoke/build/cli_good.wasm  "), "{shown}");
    assert!(shown.contains("Compiling cli_good v0.1.0"), "{shown}");
    assert!(shown.contains("warning: function `unused` is never used"), "{shown}");
}
