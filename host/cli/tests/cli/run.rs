//! `convoke run`, against a server that gives the answers of the contract.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use insta::assert_snapshot;

use crate::support::Place;

/// Answers one request after the other: each as `path body` is looked up by `answer`.
fn server(answer: impl Fn(&str, &str) -> (u16, &'static str) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut first = String::new();
            stream.read_line(&mut first).expect("a request");
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).expect("a header");
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("the body");
            let path = first.split(' ').nth(1).expect("a path");
            let (status, reply) = answer(path, &String::from_utf8(body).expect("UTF-8"));
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", reply.len());
            stream.get_mut().write_all((head + reply).as_bytes()).expect("written");
        }
    });
    url
}

const WRONG_KIND: &str = r#"{"ok":false,"error":{"code":"INVALID_ARGS","message":"`a:f` is a mutation, not a query: call it as a mutation","details":{"kind":"mutation","calledAs":"query"}}}"#;

#[test]
fn a_querys_result() {
    let url = server(|path, body| {
        assert_eq!((path, body), ("/api/query/chat/messages:list", r#"{"channel":"general"}"#));
        (200, r#"{"ok":true,"data":[{"body":"hello","n":1.0}]}"#)
    });
    assert_snapshot!(Place::empty().run(&["run", "chat/messages:list", r#"{"channel": "general"}"#, "--url", &url]));
}

#[test]
fn another_kind_is_found_out() {
    let url = server(|path, body| match path {
        "/api/query/a:f" => (400, WRONG_KIND),
        "/api/mutation/a:f" if body == "{}" => (200, r#"{"ok":true,"data":"id"}"#),
        _ => panic!("{path} {body}"),
    });
    assert_snapshot!(Place::empty().run(&["run", "a:f", "--url", &url]));
}

#[test]
fn a_kind_that_is_given_is_the_one() {
    let url = server(|_, _| (400, WRONG_KIND));
    assert_snapshot!(Place::empty().run(&["run", "a:f", "--kind", "query", "--url", &url]));
}

#[test]
fn an_unknown_function() {
    let url = server(|_, _| {
        (404, r#"{"ok":false,"error":{"code":"NOT_FOUND","message":"there is no function `a:g`: `a` has f"}}"#)
    });
    assert_snapshot!(Place::empty().run(&["run", "a:g", "--url", &url]));
}

#[test]
fn an_application_error() {
    let url = server(|_, _| {
        (400, r#"{"ok":false,"error":{"code":"OVERDRAFT","message":"not enough","details":{"missing":3}}}"#)
    });
    assert_snapshot!(Place::empty().run(&["run", "a:f", "--url", &url]));
}

#[test]
fn no_convoke_server() {
    let url = server(|_, _| (404, "<h1>not found</h1>"));
    let place = Place::empty().filter(url.clone(), "[URL]");
    assert_snapshot!(place.run(&["run", "a:f", "--url", &url]));
}

#[test]
fn no_server_at_all() {
    // Bound and let go: nobody listens there.
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port"));
    let place = Place::project("[project]\nname = \"demo\"\n").filter(url.clone(), "[URL]");
    place.write(".convoke/dev.json", format!("{{\"url\":\"{url}\",\"pid\":1}}"));
    let shown = place.run(&["run", "a:f"]);
    // The system's own words differ.
    let shown = shown.replace("caused by: Connection refused (os error 111)", "caused by: [REFUSED]");
    assert_snapshot!(shown.replace("caused by: Connection refused (os error 61)", "caused by: [REFUSED]"));
}

#[test]
fn the_address_of_dev_is_found_from_below() {
    let url = server(|_, _| (200, r#"{"ok":true,"data":null}"#));
    let place = Place::project("[project]\nname = \"demo\"\n");
    place.write(".convoke/dev.json", format!("{{\"url\":\"{url}\",\"pid\":1}}"));
    place.write("components/a/Cargo.toml", "");
    let shown = place.run_command(place.command(&["run", "a:f"]).current_dir(place.path().join("components/a")));
    assert_eq!(shown, "exit code 0\n--- stdout\nnull\n--- stderr: nothing\n");
    let shown = place.run_command(place.command(&["run", "a:f"]).env("CONVOKE_URL", "nonsense"));
    assert!(shown.starts_with("exit code 2"), "{shown}");
}

#[test]
fn a_name_that_is_none() {
    assert_snapshot!(Place::empty().run(&["run", "a b"]));
}

#[test]
fn arguments_that_are_no_object() {
    assert_snapshot!(Place::empty().run(&["run", "a:f", "[1]"]));
}
