//! The beginnings of `convoke dev` that need neither Postgres nor a component.

use std::net::TcpListener;

use insta::assert_snapshot;

use crate::support::Place;

const NAME: &str = "[project]\nname = \"demo\"\n";

#[test]
fn no_project() {
    assert_snapshot!(Place::empty().run(&["dev"]));
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let place = Place::project(NAME).filter((port + 1).to_string(), "[PORT + 1]").filter(port.to_string(), "[PORT]");
    assert_snapshot!(place.run(&["dev", "--port", &port.to_string()]));
}

#[test]
fn two_projects_of_one_name() {
    let place = Place::empty();
    place.write("a/convoke.toml", NAME);
    place.write("b/convoke.toml", NAME);
    assert_snapshot!(place.run(&["dev", "a", "b"]));
}

#[test]
fn a_second_dev() {
    let place = Place::project(NAME);
    let lock = std::fs::File::create(place.write(".convoke/dev.lock", "")).expect("made");
    lock.try_lock().expect("free");
    std::fs::write(place.path().join(".convoke/dev.lock"), "4711").expect("written");
    assert_snapshot!(place.run(&["dev", "--port", "0"]));
}

#[test]
fn a_database_url_that_is_none() {
    let place = Place::project(NAME);
    let shown = place.run(&["dev", "--port", "0", "--once", "--database-url", "postgres://me:hush@host:port/db"]);
    assert!(shown.starts_with("exit code 1\n"), "{shown}");
    assert!(shown.contains("error: `DATABASE_URL` is no address of a Postgres server"), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");
}
