//! What a call read is what changes its result.

use convoke_model::{Database, DocumentId, Ids, Position, Read};
use serde_json::{Map, Value, json};

use crate::harness::{TestHost, run};
use crate::things::Things;

async fn reads(things: &Things, plan: Value) -> (Value, Vec<Read>) {
    let mut call = things.observed();
    let text = call.query(&plan.to_string()).await.expect("an answer");
    let observed = call.take_observed();
    let snapshot = observed.snapshot.expect("a snapshot");
    assert_eq!(snapshot.split(':').count(), 3, "{snapshot}");
    (serde_json::from_str(&text).expect("JSON"), observed.reads.reads)
}

/// Whether a document with this `n` would enter.
fn enters(read: &Read, n: Value, creation_time: f64) -> bool {
    let Read::Range { index, ranges, .. } = read else { panic!("no range: {read:?}") };
    let data: Map<String, Value> = [("n".to_owned(), n)].into_iter().collect();
    let position = Position::of(index, &data, creation_time, uuid::Uuid::max());
    ranges.iter().any(|range| range.contains(&position))
}

fn known(read: &Read) -> Option<usize> {
    match read {
        Read::Range { ids: Ids::Known(ids), .. } => Some(ids.len()),
        Read::Range { ids: Ids::Seen(seen), .. } => Some(seen.rows.len()),
        Read::Range { ids: Ids::Unknown, .. } => None,
        other => panic!("no range: {other:?}"),
    }
}

#[test]
fn a_limit_shrinks_the_range_to_what_was_scanned() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        for n in [1, 3, 5, 7] {
            things.insert(&json!({ "n": n }).to_string()).await;
        }
        let later = 9e15;
        let up = json!({ "table": "things", "index": "by_n", "limit": 2 });
        let (_, found) = reads(&things, up).await;
        let of = |read: &Read| (-1..9).filter(|n| enters(read, json!(n), later)).collect::<Vec<i64>>();
        assert_eq!((of(&found[0]), known(&found[0])), (vec![-1, 0, 1, 2], Some(2)));
        let down = json!({ "table": "things", "index": "by_n", "limit": 2, "order": "desc" });
        let (_, found) = reads(&things, down).await;
        assert_eq!(of(&found[0]), [5, 6, 7, 8]);
        let short = json!({ "table": "things", "index": "by_n", "limit": 9,
            "where": [{ "field": "n", "op": "gt", "value": 3 }, { "field": "n", "op": "lte", "value": 7 }] });
        let (_, found) = reads(&things, short).await;
        assert_eq!(of(&found[0]), [4, 5, 6, 7]);
        let some = json!({ "table": "things", "index": "by_n", "limit": 1,
            "where": [{ "field": "n", "op": "in", "value": [2, 5] }] });
        let (_, found) = reads(&things, some).await;
        assert_eq!(of(&found[0]), [2, 5], "several ranges are not shrunk");
        let offset = json!({ "table": "things", "index": "by_n", "limit": 1, "offset": 1 });
        let (_, found) = reads(&things, offset).await;
        assert_eq!((of(&found[0]), known(&found[0])), (vec![-1, 0, 1, 2], None));
        let count = json!({ "table": "things", "index": "by_n", "aggregate": [{ "op": "count" }] });
        let (_, found) = reads(&things, count).await;
        assert_eq!((of(&found[0]).len(), known(&found[0])), (10, None));
        let none = json!({ "table": "things", "index": "by_n", "limit": 0 });
        assert_eq!(reads(&things, none).await.1, []);
    });
}

#[test]
fn a_page_reads_between_its_cursors() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        for n in [1, 3, 5, 7] {
            things.insert(&json!({ "n": n }).to_string()).await;
        }
        let page =
            |cursor: &Value| json!({ "table": "things", "index": "by_n", "page": { "cursor": cursor }, "limit": 2 });
        let of = |read: &Read| (-1..9).filter(|n| enters(read, json!(n), 9e15)).collect::<Vec<i64>>();
        let (first, read) = reads(&things, page(&Value::Null)).await;
        assert_eq!(of(&read[0]), [-1, 0, 1, 2]);
        let (second, read) = reads(&things, page(&first["continueCursor"])).await;
        assert_eq!(of(&read[0]), [3, 4, 5, 6]);
        let (third, read) = reads(&things, page(&second["continueCursor"])).await;
        assert_eq!((third["isDone"].clone(), of(&read[0])), (json!(true), vec![7, 8]));
    });
}

#[test]
fn a_document_that_is_not_there_was_looked_at() {
    run(async {
        let host = TestHost::start(&[]).await;
        let things = Things::new(&host).await;
        let there = things.insert("{}").await;
        let gone = things.insert("{}").await;
        things.change(async |call| call.delete("things", &gone).await).await.expect("a delete");
        let mut call = things.observed();
        assert_eq!(call.get("things", &gone).await, Ok(None));
        call.get_many("things", std::slice::from_ref(&there)).await.expect("an answer");
        let reads = call.take_observed().reads.reads;
        let document = |id: &str| {
            let id = DocumentId::parse(id).expect("an id");
            Read::Document { table: id.table, id: id.uuid }
        };
        assert_eq!(reads, [document(&gone), document(&there)]);
    });
}
