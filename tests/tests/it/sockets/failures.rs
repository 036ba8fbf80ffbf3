//! Calls that fail on a socket.

use hyper::Method;
use hyper::body::Bytes;
use serde_json::json;

use super::Socket;
use crate::harness::{TestHost, run};

/// The digits of `[Request ID: …] Server Error`.
fn request_id(message: &str) -> &str {
    let id = message.strip_prefix("[Request ID: ").and_then(|rest| rest.split_once("] Server Error"));
    let (id, _) = id.unwrap_or_else(|| panic!("no request id: {message}"));
    assert!(id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{message}");
    id
}

#[test]
fn each_has_the_request_id_of_its_run() {
    run(async {
        let host = TestHost::start(&["hostile", "friendly", "messages"]).await;
        let mut socket = Socket::open(&host).await;
        let fails = json!({ "code": "FULL", "message": "no seat", "data": null });
        let mut ids = Vec::new();
        for (id, path, args, words) in [
            (0, "hostile:panic", json!({ "message": "boom" }), ""),
            (1, "friendly:fails", fails, "Uncaught ConvexError: no seat"),
            (2, "messages:list", json!({}), "ArgumentValidationError"),
            (3, "messages:nothing", json!({}), "Could not find public function for 'messages:nothing'"),
        ] {
            socket.subscribe(id, path, &args).await;
            let failed = socket.next_result().await;
            assert_eq!(failed["type"], "QueryFailed", "{failed}");
            let message = failed["errorMessage"].as_str().expect("words");
            assert!(message.contains(words) && !message.contains("boom"), "{message}");
            ids.push(request_id(message).to_owned());
        }
        socket.mutate(0, "messages:send", &json!({})).await;
        let failed = socket.next_of("MutationResponse").await;
        ids.push(request_id(failed["result"].as_str().expect("words")).to_owned());
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5, "each is of its own run");
    });
}

#[test]
fn a_unique_violation_is_an_answer_and_the_next_mutation_goes_on() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let unique = "create unique index once on demo.messages ((data->>'body'))";
        host.psql().await.batch_execute(unique).await.expect("an index");
        let mut socket = Socket::open(&host).await;
        for (id, body, succeeds) in [(0, "one", true), (1, "one", false), (2, "two", true)] {
            let args = json!({ "channel": "c", "author": "a", "body": body });
            socket.mutate(id, "messages:send", &args).await;
            let answer = socket.next_of("MutationResponse").await;
            assert_eq!((answer["requestId"].as_u64(), answer["success"].as_bool()), (Some(id.into()), Some(succeeds)));
            if !succeeds {
                let words = answer["result"].as_str().expect("words");
                assert!(words.contains("CONFLICT"), "{words}");
            }
        }
    });
}

#[test]
fn a_missing_document_is_no_missing_function() {
    run(async {
        let host = TestHost::start(&["friendly"]).await;
        // A function that passes on what it met.
        let mut socket = Socket::open(&host).await;
        let args = json!({ "code": "NOT_FOUND", "message": "no such seat", "data": null });
        socket.subscribe(0, "friendly:fails", &args).await;
        let failed = socket.next_result().await;
        let message = failed["errorMessage"].as_str().expect("words");
        assert!(message.contains("no such seat") && !message.contains("Could not find public function"), "{message}");
    });
}

#[test]
fn a_name_that_is_no_functions_leaves_nothing_behind() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut socket = Socket::open(&host).await;
        for (id, path) in [(0, "no\"such\nthing"), (1, "messages:nothing")] {
            socket.subscribe(id, path, &json!({})).await;
            while socket.next_result().await["type"] != "QueryFailed" {}
            socket.modify(&[json!({ "type": "Remove", "queryId": id })]).await;
        }
        socket.subscribe(2, "messages:list", &json!({ "channel": "c" })).await;
        while socket.next_result().await["type"] != "QueryUpdated" {}
        let (_, text) = host.send_text(Method::GET, "/metrics", Bytes::new()).await;
        assert!(text.contains("convoke_evaluations_total{function=\"messages:list\"} "), "{text}");
        assert!(!text.contains("such") && !text.contains("thing"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let value = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
            assert!(line.starts_with("convoke_") && value.is_some(), "{line}");
        }
        host.deploy(&["accounts"]).await.expect("a deployment");
        let (_, text) = host.send_text(Method::GET, "/metrics", Bytes::new()).await;
        assert!(!text.contains("convoke_evaluations_total{function=\"messages:list\"}"), "{text}");
    });
}
