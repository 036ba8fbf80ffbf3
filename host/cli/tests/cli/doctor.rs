//! `convoke doctor`. How the machine is differs; how it is said does not.

use std::net::TcpListener;

use crate::support::Place;

#[test]
fn findings_are_data() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let place = Place::project("[project]\nname = \"demo\"\n");
    // Nobody listens on port 1.
    let arguments = ["doctor", "--json", "--port", &port, "--database-url", "postgres://me:hush@127.0.0.1:1/db"];
    let output = place.command(&arguments).output().expect("`convoke` runs");
    let shown = place.show(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");

    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let finding = |check: &str| {
        let all = findings.as_array().expect("a list");
        all.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check}: {shown}")).clone()
    };
    assert_eq!(finding("project")["state"], "ok");
    assert_eq!(finding("cargo")["state"], "ok");
    for check in ["database", "port"] {
        assert_eq!(finding(check)["state"], "failed", "{shown}");
        assert!(!finding(check)["fix"].as_array().expect("a list").is_empty(), "{shown}");
    }
}

#[test]
fn findings_are_lines() {
    let place = Place::empty();
    let shown = place.run(&["doctor", "--port", "0", "--database-url", "nonsense"]);
    assert!(shown.starts_with("exit code 1\n--- stdout\nfailed   project    no `convoke.toml` in `[DIR]`"), "{shown}");
    assert!(shown.contains("\n                    fix: "), "{shown}");
    assert!(shown.contains("\nok       port       0 is free\n"), "{shown}");
    assert!(shown.contains("\nerror: 2 checks failed\n"), "{shown}");
}
