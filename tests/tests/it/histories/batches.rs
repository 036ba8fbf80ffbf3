//! Receipts come in, batches are closed, reports are made of closed ones: what Fekete, O'Neil and O'Neil found that snapshots do not
//! keep true for a transaction that only reads. The schedule is made by a gate, so that it is the same in every run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_model::{Database, DatabaseError};
use convoke_store::{CallOptions, Isolation, NoteReads, SharedSnapshot};
use serde_json::json;

use super::{HeldGate, ask, make, start};
use crate::harness::{TestHost, run};
use crate::things::Things;

#[test]
fn a_closed_batch_stays_as_it_was_reported() {
    run(async {
        let host = start().await;
        let (batch, gate) = (make(&host, "make_batch", json!({})).await, make(&host, "make_gate", json!({})).await);
        for shown_by in ["a call", "a call that is observed", "a subscription's result"] {
            let held = HeldGate::hold(&host, &gate).await;
            let receive = tokio::spawn({
                let (host, args) = (Arc::clone(&host), json!({ "batch": batch, "amount": 10, "gate": gate }));
                async move { make(&host, "receive", args).await }
            });
            // It has read which batch is open.
            held.until_waited_for().await;
            let closed = make(&host, "close", json!({ "batch": batch })).await.as_i64().expect("a number");
            let of_batch = json!({ "batch": batch });
            let reported = ask(&host, "books", &of_batch).await;
            assert_eq!(reported["open"], closed + 1);
            held.open().await;
            let received = receive.await.expect("a receipt").as_i64().expect("a number");
            let again = ask(&host, "books", &of_batch).await;
            assert_eq!(again["open"], closed + 1);
            assert_eq!(
                reported["closed"], again["closed"],
                "{shown_by}: a receipt for batch {closed} came after its report"
            );
            assert_eq!(received, closed + 1, "{shown_by}: the receipt is one of the next batch");
        }
    });
}

#[test]
fn a_report_holds_what_was_seen_before_it() {
    run(async {
        let host = start().await;
        let (batch, gate) = (make(&host, "make_batch", json!({})).await, make(&host, "make_gate", json!({})).await);
        for round in 1..=3 {
            let held = HeldGate::hold(&host, &gate).await;
            let report = tokio::spawn({
                let (host, args) = (Arc::clone(&host), json!({ "batch": batch, "gate": gate }));
                async move { make(&host, "report", args).await }
            });
            // It has read the total.
            held.until_waited_for().await;
            // This reads nothing, and so might be thought to concern nobody.
            make(&host, "count_in", json!({ "batch": batch, "amount": 10 })).await;
            let seen = ask(&host, "books", &json!({ "batch": batch })).await;
            assert_eq!(
                (&seen["total"], seen["reports"].as_array().map(Vec::len)),
                (&json!(10 * round), Some(round - 1))
            );
            held.open().await;
            let reported = report.await.expect("a report");
            assert_eq!(reported, seen["total"], "who saw the total before the report finds it in the report");
        }
    });
}

/// As a round of live queries reads it: several runs in one snapshot.
#[test]
fn what_runs_that_share_a_snapshot_show_stays_true() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::with(&host, json!([{ "name": "batches" }, { "name": "receipts" }])).await;
        let batch = things.change(async |call| call.insert("batches", r#"{"open":1}"#).await).await.expect("a batch");
        let mut receive = things.call(Isolation::Serializable);
        receive.get("batches", &batch).await.expect("an answer").expect("the batch that is open");
        things.change(async |call| call.patch("batches", &batch, r#"{"open":2}"#).await).await.expect("it is closed");
        let shared = SharedSnapshot::new();
        for _ in 0..2 {
            let reads = Some(NoteReads { journal: None, snapshot: Some(shared.clone()) });
            let (isolation, deadline) = (Isolation::Snapshot, Instant::now() + Duration::from_secs(20));
            let options = CallOptions { isolation, deadline, upcast: None, reads, position: false, key: None };
            let mut report = things.store.call(Arc::clone(&things.tables), options);
            report.get("batches", &batch).await.expect("an answer");
            let receipts = report.query(&json!({ "table": "receipts" }).to_string()).await;
            assert_eq!(receipts.as_deref(), Ok("[]"));
            report.commit().await.expect("an end");
        }
        drop(shared);
        let received = async {
            receive.insert("receipts", r#"{"batch":1}"#).await?;
            receive.commit().await
        };
        assert_eq!(received.await, Err(DatabaseError::Conflict), "the report had no such receipt");
    });
}
