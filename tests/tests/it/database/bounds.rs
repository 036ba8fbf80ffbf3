//! What a call may take of the host's memory and of Postgres'.

use convoke_model::{Code, Database, DatabaseError, Limits};
use convoke_store::Isolation;
use serde_json::json;

use crate::harness::{TestHost, run};
use crate::things::{Things, failure};

const ALL: &str = r#"{"table":"things"}"#;

/// 8 MB of documents, and reads of 3 MB at most.
async fn heavy(host: &TestHost) -> Things {
    let limits = Limits {
        read_bytes_max: 3_000_000,
        call_read_bytes_max: 6_000_000,
        host_read_bytes_max: 6_000_000,
        ..Limits::default()
    };
    let things = Things::limited(host, limits).await;
    let document = json!({ "text": "x".repeat(500_000) }).to_string();
    things
        .change(async |call| {
            for _ in 0..16 {
                call.insert("things", &document).await?;
            }
            Ok(())
        })
        .await
        .expect("a commit");
    things
}

#[test]
fn what_a_read_gives_is_bounded_in_bytes() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = heavy(&host).await;
        let mut calls = Vec::new();
        for isolation in [Isolation::SingleRead, Isolation::Snapshot, Isolation::Serializable, Isolation::SingleRead] {
            for _ in 0..2 {
                let mut call = things.call(isolation);
                calls.push(tokio::spawn(async move { call.query(ALL).await }));
            }
        }
        for call in calls {
            let error = call.await.expect("a call").expect_err("8 MB");
            assert!(matches!(error, DatabaseError::Failed(_)), "the call ends: {error:?}");
            assert_eq!(failure(error).code, Code::ReadLimit);
        }
        assert_eq!(things.store.read_bytes_held(), 0);
        assert_eq!(host.open_transactions().await, 0);

        let sql = "select data from things";
        let mut call = things.call(Isolation::Serializable);
        assert_eq!(failure(call.sql(sql, "[]").await.expect_err("8 MB")).code, Code::ReadLimit);
        drop(call);
        assert_eq!(things.query(json!({ "table": "things", "limit": 5 })).await.as_array().map(Vec::len), Some(5));
    });
}

#[test]
fn what_a_call_reads_is_bounded_in_bytes() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = heavy(&host).await;
        let mut call = things.call(Isolation::Snapshot);
        let five = r#"{"table":"things","limit":5}"#;
        for _ in 0..2 {
            call.query(five).await.expect("2.5 MB");
        }
        assert_eq!(failure(call.query(five).await.expect_err("7.5 MB together")).code, Code::ReadLimit);
        drop(call);
        assert_eq!(things.store.read_bytes_held(), 0);
    });
}

#[test]
fn prepared_statements_are_bounded() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        for number in 0..600 {
            let plan = json!({ "table": "things", "fields": [format!("f{number}")] }).to_string();
            things.call(Isolation::SingleRead).query(&plan).await.expect("an answer");
        }
        // One call after another has the same connection.
        let mut call = things.call(Isolation::Serializable);
        let text = call.sql("select count(*)::int as n from pg_prepared_statements", "[]").await.expect("a number");
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let count = answer["rows"][0]["n"].as_u64().expect("a number");
        assert!((100..300).contains(&count), "{count} statements");
    });
}
