use std::path::{Path, PathBuf};

use super::*;

fn parse(text: &str) -> Result<ProjectManifest, ManifestError> {
    ProjectManifest::parse(Path::new("convoke.toml"), text)
}

/// The error with its hint, as the command line prints it.
fn refused(text: &str) -> String {
    let error = parse(text).expect_err("must be refused");
    match &error.hint {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

#[test]
fn a_whole_manifest() {
    let manifest = parse(
        r#"
[project]
name = "demo"
site = "public"

[components]
messages = "components/messages"
"chat/rooms" = "prebuilt/rooms.wasm"

[limits]
call_ms_max = 500
queue_ms_max = 0

[outbound]
allow = ["https://API.example.com/", "https://*.stripe.com"]
"#,
    )
    .expect("valid");
    assert_eq!(manifest.name, "demo");
    assert_eq!(manifest.site, Some(PathBuf::from("public")));
    let modules: Vec<_> = manifest.components.iter().map(|(m, p)| (m.as_str(), p.to_str().expect("UTF-8"))).collect();
    assert_eq!(modules, [("chat/rooms", "prebuilt/rooms.wasm"), ("messages", "components/messages")]);
    assert_eq!(manifest.limits, Limits { call_ms_max: Some(500), queue_ms_max: Some(0), ..Limits::default() });
    assert_eq!(manifest.outbound_allow, ["https://api.example.com", "https://*.stripe.com"]);
}

#[test]
fn the_least_manifest() {
    let manifest = parse("[project]\nname = \"a\"\n").expect("valid");
    assert!(manifest.components.is_empty());
    assert_eq!(manifest.limits, Limits::default());
}

#[test]
fn no_toml() {
    insta::assert_snapshot!(refused("[project]\nname = demo\n"));
}

#[test]
fn no_project() {
    insta::assert_snapshot!(refused("# nothing\n"));
}

#[test]
fn no_name() {
    insta::assert_snapshot!(refused("[project]\nsite = \"public\"\n"));
}

#[test]
fn an_unknown_section() {
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n\n[component]\na = \"b\"\n"));
}

#[test]
fn an_unknown_limit() {
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n\n[limits]\ntimeout = 3\n"));
}

#[test]
fn a_limit_that_is_text() {
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n\n[limits]\ncall_ms_max = \"3s\"\n"));
}

#[test]
fn a_limit_that_stops_everything() {
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n\n[limits]\nlog_lines_max = 0\ninstances_max = 0\n"));
}

#[test]
fn more_memory_than_there_can_be() {
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n[limits]\nmemory_bytes_max = 5000000000\n"));
}

#[test]
fn a_limit_beyond_its_bound() {
    for (name, most) in [
        ("call_ms_max", 86_400_000_u64),
        ("action_ms_max", 86_400_000),
        ("memory_bytes_max", 4 << 30),
        ("result_bytes_max", 1 << 30),
        ("body_bytes_max", 1 << 30),
        ("log_lines_max", 100_000),
        ("host_calls_max", 1_000_000_000),
        ("instances_max", 4096),
        ("queue_ms_max", 86_400_000),
    ] {
        let with = |value: u64| format!("[project]\nname = \"a\"\n\n[limits]\n{name} = {value}\n");
        parse(&with(most)).expect(name);
        for value in [most + 1, i64::MAX.unsigned_abs()] {
            let words = refused(&with(value));
            let start = format!("convoke.toml:5: `{name}` is more than ");
            assert!(words.starts_with(&start) && words.ends_with(&format!("hint: the most is {most}")), "{words}");
        }
        // TOML's own numbers end at 2^63.
        assert!(refused(&with(u64::MAX)).starts_with("convoke.toml:5: "));
    }
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n[limits]\ninstances_max = 1000000\n"));
}

#[test]
fn a_bad_project_name() {
    insta::assert_snapshot!(refused("[project]\nname = \"My App\"\n"));
}

#[test]
fn a_project_name_that_is_taken() {
    insta::assert_snapshot!(refused("[project]\nname = \"convoke\"\n"));
}

#[test]
fn a_bad_module_name() {
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n\n[components]\ngood = \"x\"\nmy-module = \"y\"\n"));
}

#[test]
fn a_nested_module_without_quotes() {
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n\n[components]\nchat.rooms = \"y\"\n"));
}

#[test]
fn modules_that_differ_in_case_alone() {
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n\n[components]\nRooms = \"x\"\nrooms = \"y\"\n"));
}

#[test]
fn an_absolute_path() {
    insta::assert_snapshot!(refused("[project]\nname = \"a\"\n\n[components]\nrooms = \"/srv/rooms\"\n"));
}

#[test]
fn an_origin_with_a_path() {
    insta::assert_snapshot!(refused(
        "[project]\nname = \"a\"\n\n[outbound]\nallow = [\n  \"https://a.example.com\",\n  \"https://b.example.com/v1\",\n]\n"
    ));
}
