//! Calls over HTTP, in both forms, and how they are refused.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use crate::harness::{TestHost, run};

#[test]
fn the_demo_sends_lists_edits_and_removes() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let mut ids = Vec::new();
        for body in ["one", "two", "three"] {
            let answer = host.mutation("messages:send", message("general", body)).await;
            ids.push(answer.data().as_str().expect("an id").to_owned());
        }
        host.mutation("messages:send", message("other", "elsewhere")).await.data();
        assert_eq!(bodies(&host, json!({ "channel": "general" })).await, ["one", "two", "three"]);
        assert_eq!(bodies(&host, json!({ "channel": "general", "limit": 2 })).await, ["two", "three"]);

        host.mutation("messages:edit", json!({ "id": ids[1], "body": "zwei" })).await.data();
        host.mutation("messages:remove", json!({ "id": ids[0] })).await.data();
        assert_eq!(bodies(&host, json!({ "channel": "general" })).await, ["zwei", "three"]);

        let answer = host.mutation("messages:remove", json!({ "id": ids[0] })).await;
        assert_eq!((answer.status >= 400, answer.body["ok"].clone()), (true, json!(false)));
    });
}

#[test]
fn transfers_keep_the_total_under_contention() {
    run(async {
        let host = TestHost::start(&["accounts"]).await;
        host.mutation("accounts:seed", json!({ "accounts": 4, "balance": 100 })).await.data();
        let transfers = (0..64u32).map(|n| {
            let args = json!({ "from": n % 4, "to": (n + 1 + n % 3) % 4, "amount": 1 + n % 5 });
            host.mutation("accounts:transfer", args)
        });
        for answer in futures_util::future::join_all(transfers).await {
            answer.data();
        }
        assert_eq!(host.query("accounts:total", json!({})).await.data(), 400);
        let overdraft = host.mutation("accounts:transfer", json!({ "from": 0, "to": 1, "amount": 100_000 })).await;
        assert_eq!(overdraft.code(), "INSUFFICIENT_FUNDS");
        assert_eq!(overdraft.status, 400);
        assert_eq!(overdraft.body["error"]["details"]["amount"], 100_000);
        assert_eq!(host.open_transactions().await, 0);
    });
}

#[test]
fn the_form_of_convex() {
    run(async {
        let host = TestHost::start(&["messages", "friendly"]).await;
        let call = |path: &str, args: Value| {
            json!({ "path": path, "args": args, "format": "convex_encoded_json" }).to_string()
        };

        let sent = host.post("/api/mutation", call("messages:send", json!([message("general", "hi")]))).await;
        assert_eq!((sent.status, &sent.body["status"]), (200, &json!("success")));
        assert_eq!(sent.body["logLines"], json!([]));
        let listed = host.post("/api/query", call("messages.js:list", json!({ "channel": "general" }))).await;
        assert_eq!(listed.body["value"][0]["body"], "hi");

        let logged = host.post("/api/query", call("friendly:logs", json!([{ "message": "seen" }]))).await;
        assert!(logged.body["logLines"].as_array().expect("lines").contains(&json!("[WARN] seen")), "{logged:?}");

        let big =
            host.post("/api/query", call("friendly:echo", json!([{ "value": { "$integer": "/////////38=" } }]))).await;
        assert_eq!(big.body["value"], json!({ "$integer": "/////////38=" }));

        let refused = host.post("/api/query", call("messages:list", json!([{ "channel": 1 }]))).await;
        assert_eq!((refused.status, &refused.body["status"]), (200, &json!("error")));
        let words = refused.body["errorMessage"].as_str().expect("a message");
        assert!(words.contains("ArgumentValidationError") && words.contains("`channel`"), "{words}");
        assert_eq!(refused.body.get("errorData"), None);

        let unknown = host.post("/api/query", call("messages:nothing", json!([{}]))).await;
        let words = unknown.body["errorMessage"].as_str().expect("a message");
        assert!(words.contains("Could not find public function for 'messages:nothing'"), "{words}");

        let failed = json!([{ "code": "NO_LUCK", "message": "not today", "data": { "tries": 3 } }]);
        let failed = host.post("/api/query", call("friendly:fails", failed)).await;
        assert_eq!(
            failed.body["errorData"],
            json!({ "code": "NO_LUCK", "message": "not today", "data": { "tries": 3 } })
        );
        // Exact in the data of an error as in a result.
        let failed = json!([{ "code": "NO_LUCK", "message": "not today", "data": { "$integer": "/////////38=" } }]);
        let failed = host.post("/api/query", call("friendly:fails", failed)).await;
        assert_eq!(failed.body["errorData"]["data"], json!({ "$integer": "/////////38=" }));

        for body in ["{", "[]", r#"{"args":{}}"#, r#"{"path":"messages:list","args":[1,2]}"#] {
            let answer = host.post("/api/query", body.to_owned()).await;
            assert_eq!((answer.status, &answer.body["code"]), (400, &json!("INVALID_ARGS")), "{body}");
        }
        let path = "/api/query?path=messages:list&args=%7B%22channel%22%3A%22general%22%7D";
        let answer = host.send(Method::GET, path, "".into()).await;
        assert_eq!(answer.body["value"][0]["body"], "hi");
    });
}

#[test]
fn each_wrong_call_has_its_own_error() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let cases: [(&str, &str, u16, &str, &str); 10] = [
            ("/api/query/messages:list", r#"{"channel":"#, 400, "INVALID_ARGS", "not valid JSON"),
            ("/api/query/messages:list", "[]", 400, "INVALID_ARGS", "expected an object"),
            ("/api/query/messages:list", "{}", 400, "INVALID_ARGS", "`channel`: expected a value, found nothing"),
            (
                "/api/query/messages:list",
                r#"{"channel":true}"#,
                400,
                "INVALID_ARGS",
                "expected a string, found the boolean true",
            ),
            (
                "/api/query/messages:list",
                r#"{"channel":"a","x":1}"#,
                400,
                "INVALID_ARGS",
                "`x`: expected no such field",
            ),
            ("/api/query/messages:nothing", "{}", 404, "NOT_FOUND", "no function `messages:nothing`"),
            ("/api/query/nothing:list", "{}", 404, "NOT_FOUND", "no component `nothing`"),
            ("/api/query/not%20a%20name", "{}", 404, "NOT_FOUND", "not a function's name"),
            ("/api/query/messages:send", "{}", 400, "INVALID_ARGS", "is a mutation, not a query"),
            ("/api/nothing", "{}", 404, "NOT_FOUND", "no such route"),
        ];
        for (path, body, status, code, words) in cases {
            let answer = host.post(path, body.to_owned()).await;
            assert_eq!((answer.status, answer.code()), (status, code), "{path} {body}");
            assert!(answer.message().contains(words), "{path} {body}: {}", answer.message());
        }
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let answer = host.send(method.clone(), "/api/mutation/messages:send", "".into()).await;
            assert_eq!((answer.status, answer.code()), (405, "METHOD_NOT_ALLOWED"), "{method}");
        }
        let not_text = host.post("/api/query/messages:list", vec![0xff, 0xfe]).await;
        assert_eq!((not_text.status, not_text.code()), (400, "INVALID_ARGS"));
    });
}

#[test]
fn a_body_has_a_limit() {
    run(async {
        let limits = convoke_model::Limits { body_bytes_max: 1000, ..convoke_model::Limits::default() };
        let host = TestHost::with_limits(&["friendly"], limits).await;
        for path in ["/api/query/friendly:echo", "/api/query"] {
            let answer = host.post(path, format!(r#"{{"value":"{}"}}"#, "x".repeat(1000))).await;
            assert_eq!(answer.status, 413, "{path}");
            assert!(answer.body.to_string().contains("PAYLOAD_TOO_LARGE"), "{path}");
        }
        host.query("friendly:echo", json!({ "value": "x".repeat(900) })).await.data();
    });
}

#[test]
fn numbers_that_are_whole_are_integers() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        let answer = host.post("/api/query/messages:list", r#"{"channel":"a","limit":5.0}"#.to_owned()).await;
        assert_eq!(answer.data(), &json!([]));
    });
}

#[test]
fn a_host_whose_connections_are_all_at_work_is_ready() {
    run(async {
        let host = TestHost::with(&["messages"], |config| config.connections_max = 2).await;
        let (psql, onlooker) = (host.psql().await, host.psql().await);
        psql.batch_execute("begin; lock table demo.messages in exclusive mode").await.expect("a lock");
        let blocked = (0..2).map(|_| host.mutation("messages:send", message("c", "b")));
        let watch = async {
            let waiting =
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
            let blocked = async {
                while onlooker.query_one(waiting, &[]).await.expect("a count").get::<_, i64>(0) < 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_mins(1), blocked).await.expect("both wait for the lock");
            let asked = (0..20).map(|_| host.send(Method::GET, "/readyz", "".into()));
            let answers = futures_util::future::join_all(asked).await;
            psql.batch_execute("rollback").await.expect("an end");
            answers
        };
        let (sent, answers) = tokio::join!(futures_util::future::join_all(blocked), watch);
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        for answer in sent {
            answer.data();
        }
    });
}

#[test]
fn health_readiness_the_page_and_the_description() {
    run(async {
        let host = TestHost::start(&[]).await;
        assert_eq!(host.send(Method::GET, "/healthz", "".into()).await.status, 200);
        let answer = host.send(Method::GET, "/readyz", "".into()).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body["reasons"], json!(["no functions are deployed yet"]));

        host.deploy(&["messages"]).await.expect("a deployment");
        assert_eq!(host.send(Method::GET, "/readyz", "".into()).await.status, 200);
        let (status, page) = host.send_text(Method::GET, "/", "".into()).await;
        assert!(status == 200 && page.contains("<html"), "{status}");
        assert_eq!(host.send_text(Method::GET, "/../Cargo.toml", "".into()).await.0, 404);
        let document = host.send(Method::GET, "/openapi.json", "".into()).await.body;
        assert_eq!(document["openapi"], "3.1.0");
        let operation = &document["paths"]["/api/query/messages:list"]["post"];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(schema["properties"]["channel"]["type"], "string");
    });
}

#[test]
fn an_action_calls_queries_and_mutations_and_only_allowed_hosts() {
    run(async {
        let host = TestHost::start(&["messages", "caller"]).await;
        let args = json!({
            "mutation": "messages:send", "mutation_args": message("general", "from an action"),
            "query": "messages:list", "query_args": { "channel": "general" },
        });
        let answer = host.action("caller:call_both", args).await;
        assert_eq!(answer.data()["query"][0]["body"], "from an action");

        let again = json!({ "name": "caller:call_action", "args": {} });
        let answer = host.action("caller:call_action", json!({ "name": "caller:call_action", "args": again })).await;
        assert_eq!(answer.code(), "INVALID_ARGS", "{answer:?}");

        for (url, code) in
            [("http://example.com/", "FORBIDDEN"), ("http://127.0.0.1:9/", "FORBIDDEN"), ("nonsense", "INVALID_ARGS")]
        {
            let answer = host.action("caller:fetch", json!({ "url": url })).await;
            assert_eq!(answer.code(), code, "{url}: {answer:?}");
        }
    });
}

#[test]
fn every_reference_in_the_openapi_document_resolves() {
    run(async {
        let host = TestHost::start(&[]).await;
        // A table of somebody else's, which one of them reads.
        let theirs =
            "create schema demo; create table demo.legacy_orders (id bigint primary key, supplier text not null)";
        host.psql().await.batch_execute(theirs).await.expect("a table");
        let modules = ["messages", "accounts", "friendly", "caller", "library=database-reference", "plans"];
        host.deploy(&modules).await.expect("a deployment");
        let document = host.send(Method::GET, "/openapi.json", "".into()).await.body;
        let mut references = Vec::new();
        collect_references(&document, &mut references);
        assert!(!references.is_empty(), "results of the demo have definitions");
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} is elsewhere"));
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    });
}

fn collect_references(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect_references(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, references)),
        _ => {}
    }
}

async fn bodies(host: &TestHost, args: Value) -> Vec<String> {
    let answer = host.query("messages:list", args).await;
    let list = answer.data().as_array().expect("a list");
    list.iter().map(|message| message["body"].as_str().expect("a body").to_owned()).collect()
}

fn message(channel: &str, body: &str) -> Value {
    json!({ "channel": channel, "author": "ada", "body": body })
}
