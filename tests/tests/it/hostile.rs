//! Guests that misbehave: each ends in its own error within its limit, while other calls go on.

use std::time::{Duration, Instant};

use convoke_model::Limits;
use serde_json::{Value, json};

use crate::accounting::{live_bytes, peak_bytes, restart_peak};
use crate::harness::{Answer, TestHost, run, run_alone, wat_bytes};

fn limits() -> Limits {
    Limits {
        call_ms_max: 1_500,
        result_bytes_max: 4 << 20,
        host_calls_max: 20_000,
        instances_max: 8,
        queue_ms_max: 5_000,
        ..Limits::default()
    }
}

/// A function of the guest `hostile`, its kind, its arguments, the error that it must end in.
fn misdeeds() -> Vec<(&'static str, &'static str, Value, &'static str, u16)> {
    vec![
        ("query", "memory_bomb", json!({}), "MEMORY_LIMIT", 500),
        ("query", "deep_recursion", json!({}), "STACK_LIMIT", 500),
        ("query", "deep_recursion_in_memory", json!({}), "INTERNAL", 500),
        ("query", "panic", json!({ "message": "a secret" }), "INTERNAL", 500),
        ("query", "host_call_flood", json!({ "calls": 1_000_000 }), "HOST_CALL_LIMIT", 500),
        ("query", "log_flood", json!({ "lines": 1_000_000 }), "LOG_LIMIT", 500),
        ("query", "long_log_line", json!({ "bytes": 2_000_000 }), "LOG_LIMIT", 500),
        ("query", "large_result", json!({ "bytes": 5 << 20 }), "RESULT_LIMIT", 500),
        ("query", "not_json", json!({}), "INVALID_RESULT", 500),
        ("query", "huge_result", json!({}), "INTERNAL", 500),
        ("query", "not_utf8", json!({}), "INTERNAL", 500),
        ("query", "error_not_json", json!({}), "FORGED", 400),
        ("query", "long_error_message", json!({ "bytes": 1 << 20 }), "ERROR_LIMIT", 500),
        ("query", "long_error_code", json!({ "bytes": 1_000 }), "ERROR_LIMIT", 500),
        ("query", "long_error_data", json!({ "bytes": 2 << 20 }), "ERROR_LIMIT", 500),
        ("query", "long_panic", json!({ "bytes": 2 << 20 }), "INTERNAL", 500),
        ("query", "aliased_arguments", json!({ "ids": 10_000, "bytes": 1 << 20 }), "INTERNAL", 500),
        ("mutation", "trap_after_write", json!({ "name": "trap" }), "INTERNAL", 500),
        ("mutation", "error_after_write", json!({ "name": "error" }), "AFTER_WRITE", 400),
        ("mutation", "large_document", json!({ "bytes": 2_000_000 }), "INVALID_ARGS", 400),
        ("mutation", "write_flood", json!({ "writes": 1_000_000 }), "HOST_CALL_LIMIT", 500),
    ]
}

#[test]
fn each_misdeed_ends_in_its_own_error() {
    run(async {
        // None of them is to end by the deadline, on however slow a machine.
        let limits = Limits { call_ms_max: 60_000, ..limits() };
        let host = TestHost::with_limits(&["hostile"], limits).await;
        for (kind, function, args, code, status) in misdeeds() {
            let answer = host.post(&format!("/api/{kind}/hostile:{function}"), args.to_string()).await;
            assert_eq!((answer.code(), answer.status), (code, status), "{function}: {answer:?}");
            assert!(!answer.body.to_string().contains("secret"), "{function} leaks: {answer:?}");
            if code == "INTERNAL" {
                assert_eq!(answer.message(), "internal error");
                assert_eq!(answer.body["error"]["details"].as_object().map(serde_json::Map::len), Some(1));
            }
        }
        for name in ["trap", "error"] {
            assert_eq!(host.query("hostile:count", json!({ "name": name })).await.data(), 0, "{name} left a row");
        }
        host.mutation("hostile:write", json!({ "name": "honest" })).await.data();
        assert_eq!(host.query("hostile:count", json!({ "name": "honest" })).await.data(), 1);
        assert_eq!(host.open_transactions().await, 0);
    });
}

#[test]
fn endless_loops_end_at_the_deadline_and_others_go_on() {
    run(async {
        let host = TestHost::with_limits(&["hostile", "friendly"], limits()).await;
        let loops = async {
            let loops = (0..6).map(|_| host.query("hostile:endless_loop", json!({})));
            futures_util::future::join_all(loops).await
        };
        let others = async {
            let end = Instant::now() + Duration::from_secs(1);
            let mut answered = 0;
            while Instant::now() < end {
                host.query("friendly:echo", json!({ "value": answered })).await.data();
                answered += 1;
            }
            answered
        };
        let (loops, others) = tokio::join!(loops, others);
        assert!(loops.iter().all(|answer| (answer.code(), answer.status) == ("DEADLINE_EXCEEDED", 504)), "{loops:?}");
        assert!(others > 0);
    });
}

#[test]
fn a_full_pool_waits_and_then_refuses() {
    run(async {
        let limits = Limits { instances_max: 1, queue_ms_max: 200, ..limits() };
        let host = TestHost::with_limits(&["hostile"], limits).await;
        let loops = (0..3).map(|_| host.query("hostile:endless_loop", json!({})));
        let mut codes: Vec<(String, u16)> = futures_util::future::join_all(loops)
            .await
            .iter()
            .map(|answer: &Answer| (answer.code().to_owned(), answer.status))
            .collect();
        codes.sort();
        let expected = [("DEADLINE_EXCEEDED", 504), ("OVERLOADED", 503), ("OVERLOADED", 503)];
        assert_eq!(codes, expected.map(|(code, status)| (code.to_owned(), status)));
    });
}

#[test]
fn a_table_grows_no_further_than_its_limit() {
    run(async {
        let host = TestHost::with_limits(&[], limits()).await;
        host.deploy_bytes("bomb", wat_bytes("table_bomb.wat")).await.expect("a deployment");
        let answer = host.query("bomb:table_bomb", json!({})).await;
        assert_eq!((answer.code(), answer.status), ("TABLE_LIMIT", 500), "{answer:?}");
    });
}

#[test]
fn memories_and_tables_of_an_instance_count_together() {
    run(async {
        let host = TestHost::with_limits(&[], limits()).await;
        host.deploy_bytes("two", wat_bytes("two_modules.wat")).await.expect("a deployment");
        for (function, code) in [("memories", "MEMORY_LIMIT"), ("tables", "TABLE_LIMIT")] {
            let answer = host.query(&format!("two:{function}"), json!({})).await;
            assert_eq!((answer.code(), answer.status), (code, 500), "{answer:?}");
        }
        // There are as many as all instances may have, so that none fails for want of one.
        let roomy = Limits { memory_bytes_max: 128 << 20, table_elements_max: 40_000, ..limits() };
        let host = TestHost::with_limits(&[], Limits { instances_max: 2, ..roomy }).await;
        host.deploy_bytes("two", wat_bytes("two_modules.wat")).await.expect("a deployment");
        let calls = (0..24).map(|_| host.query("two:memories", json!({})));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.data(), &Value::Null);
        }
    });
}

#[test]
fn a_query_cannot_write_though_its_component_can() {
    run(async {
        let host = TestHost::with_limits(&["mixed=mixed-query-writes"], limits()).await;
        host.mutation("mixed:honest", json!({ "name": "a" })).await.data();
        for function in ["sneaky", "calls_mutation"] {
            let answer = host.query(&format!("mixed:{function}"), json!({ "name": "b" })).await;
            assert_eq!((answer.code(), answer.status), ("FORBIDDEN", 403), "{function}: {answer:?}");
        }
        assert_eq!(host.query("mixed:count", json!({})).await.data(), 1);
    });
}

/// Ten thousand of them, and what the host holds is as it was; and while they run it holds no more than their memory.
#[test]
fn ten_thousand_misdeeds_leave_memory_flat_and_no_transaction_open() {
    const AT_ONCE: usize = 8;
    let limits = Limits { memory_bytes_max: 8 << 20, host_calls_max: 500, log_lines_max: 100, ..limits() };
    run_alone(async |postgres| {
        let host = TestHost::on(postgres, &["hostile"], |config| config.limits = limits.clone()).await;
        let round = async || {
            for (kind, function, args, ..) in misdeeds() {
                let body = args.to_string();
                let path = format!("/api/{kind}/hostile:{function}");
                let answers = (0..AT_ONCE).map(|_| host.post(&path, body.clone()));
                for answer in futures_util::future::join_all(answers).await {
                    assert_eq!(answer.body["ok"], false, "{function}");
                }
            }
        };
        let calls_a_round = misdeeds().len() * AT_ONCE;
        for _ in 0..8 {
            round().await;
        }
        let before = live_bytes();
        restart_peak();
        for _ in 0..10_000usize.div_ceil(calls_a_round) {
            round().await;
        }
        let (grown, peak) = (live_bytes() - before, peak_bytes() - before);
        // Some hundred bytes a call would be a leak.
        assert!(grown < 1 << 20, "grew by {grown} bytes");
        // What each hands over at once is no more than its memory, which the answer's text and the log have a part of.
        let most = (AT_ONCE * 2 * limits.memory_bytes_max).cast_signed();
        assert!(peak < most, "held {peak} bytes");
        assert_eq!(host.open_transactions().await, 0);
        assert_eq!(host.query("hostile:count", json!({ "name": "trap" })).await.data(), 0);
    });
}
