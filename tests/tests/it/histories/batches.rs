//! Receipts come in, batches are closed, reports are made of closed ones: what Fekete, O'Neil and O'Neil found that snapshots do not
//! keep true for a transaction that only reads. The schedule is made by a gate, so that it is the same in every run.

use std::sync::Arc;

use serde_json::json;

use super::{HeldGate, ask, make, start};
use crate::harness::run;

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
