//! Help, and what is typed wrong.

use insta::assert_snapshot;

use crate::support::Place;

#[test]
fn help() {
    assert_snapshot!(Place::empty().run(&["--help"]));
}

#[test]
fn help_of_dev() {
    assert_snapshot!(Place::empty().run(&["dev", "--help"]));
}

#[test]
fn help_of_build() {
    assert_snapshot!(Place::empty().run(&["build", "--help"]));
}

#[test]
fn help_of_sync() {
    assert_snapshot!(Place::empty().run(&["sync", "--help"]));
}

#[test]
fn help_of_run() {
    assert_snapshot!(Place::empty().run(&["run", "--help"]));
}

#[test]
fn help_of_doctor() {
    assert_snapshot!(Place::empty().run(&["doctor", "--help"]));
}

#[test]
fn every_command_has_an_example() {
    for command in ["dev", "build", "sync", "run", "doctor"] {
        let help = Place::empty().run(&[command, "--help"]);
        assert!(help.contains(&format!("  convoke {command}")), "{help}");
    }
}

#[test]
fn no_command() {
    let shown = Place::empty().run(&[]);
    assert!(shown.starts_with("exit code 2\n--- stdout: nothing\n"), "{shown}");
}

#[test]
fn an_unknown_command() {
    assert_snapshot!(Place::empty().run(&["buidl"]));
}

#[test]
fn an_unknown_option() {
    assert_snapshot!(Place::empty().run(&["dev", "--prot", "4000"]));
}

#[test]
fn a_port_that_is_none() {
    assert_snapshot!(Place::empty().run(&["dev", "--port", "99999"]));
}

#[test]
fn a_secret_in_the_environment_is_not_in_the_help() {
    let place = Place::empty();
    let shown = place.run_command(place.command(&["dev", "--help"]).env("DATABASE_URL", "postgres://me:hush@host/db"));
    assert!(shown.starts_with("exit code 0\n") && !shown.contains("hush"), "{shown}");
}
