//! Writers of every kind, at random.

use std::sync::Arc;
use std::time::Duration;

use convoke_invoke::{Call, CallOrigin, Caller, Encoding};
use convoke_model::Kind;
use convoke_server::Host;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

const KINDS: [&str; 4] = ["a", "b", "c", "d"];
/// Rows under these ids come and go all the time.
pub(super) const FIXED: [&str; 4] = [
    "01890000-0000-7000-8000-000000000001",
    "01890000-0000-7000-8000-000000000002",
    "01890000-0000-7000-8000-000000000003",
    "01890000-0000-7000-8000-000000000004",
];

/// What writers have done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    pub(super) committed: usize,
    pub(super) rolled_back: usize,
    /// Savepoints that were taken back, in transactions that went on.
    pub(super) undone: usize,
    pub(super) prepared_and_committed: usize,
    pub(super) prepared_and_rolled_back: usize,
    /// Mutations that their function refused.
    pub(super) refused: usize,
}

impl Written {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            committed: self.committed + other.committed,
            rolled_back: self.rolled_back + other.rolled_back,
            undone: self.undone + other.undone,
            prepared_and_committed: self.prepared_and_committed + other.prepared_and_committed,
            prepared_and_rolled_back: self.prepared_and_rolled_back + other.prepared_and_rolled_back,
            refused: self.refused + other.refused,
        }
    }
}

/// A writer's own randomness, and when it stops.
pub(super) struct Writer {
    random: StdRng,
    until: Instant,
    pause: Duration,
}

impl Writer {
    pub(super) fn new(seed: u64, until: Instant, pause: Duration) -> Self {
        Self { random: StdRng::seed_from_u64(seed), until, pause }
    }

    /// Statements by themselves.
    pub(super) async fn autocommit(mut self, psql: Client) -> Written {
        let mut written = Written::default();
        while self.goes_on().await {
            let statement = self.statement();
            written.committed += usize::from(run(&psql, &statement).await);
        }
        written
    }

    /// Transactions with savepoints, some of which are taken back, and some in two phases.
    pub(super) async fn transactions(mut self, psql: Client, name: &str) -> Written {
        let mut written = Written::default();
        let mut prepared = 0_u32;
        while self.goes_on().await {
            let mut statements = vec!["begin".to_owned()];
            for number in 0..self.random.random_range(1..5) {
                let statement = self.statement();
                statements.push(match self.random.random_range(0..5) {
                    0 => format!("savepoint s{number}; {statement}; rollback to s{number}"),
                    1 => format!("savepoint s{number}; {statement}; release s{number}"),
                    2 => {
                        let inner = self.statement();
                        format!("savepoint s{number}; {statement}; savepoint t; {inner}; rollback to t")
                    }
                    _ => statement,
                });
            }
            let text = statements.join("; ");
            let undone = text.matches("rollback to").count();
            let prepares = self.random.random_bool(0.25);
            prepared += u32::from(prepares);
            let commits = if prepares { !prepared.is_multiple_of(3) } else { self.random.random_bool(0.75) };
            let end = if commits { "commit" } else { "rollback" };
            if prepares {
                let name = format!("'{name}{prepared}'");
                if !run(&psql, &format!("{text}; prepare transaction {name}")).await {
                    continue;
                }
                sleep(Duration::from_millis(self.random.random_range(0..20))).await;
                let ended = psql.batch_execute(&format!("{end} prepared {name}")).await;
                ended.expect("the end of what was prepared");
                written.prepared_and_committed += usize::from(commits);
                written.prepared_and_rolled_back += usize::from(!commits);
            } else if run(&psql, &text).await {
                sleep(Duration::from_millis(self.random.random_range(0..5))).await;
                psql.batch_execute(end).await.expect("the end of a transaction");
            } else {
                continue;
            }
            written.committed += usize::from(commits);
            written.rolled_back += usize::from(!commits);
            written.undone += if commits { undone } else { 0 };
        }
        written
    }

    /// Mutations through a host.
    pub(super) async fn mutations(mut self, host: Arc<Host>, psql: Client) -> Written {
        let mut written = Written::default();
        while self.goes_on().await {
            let rows = psql
                .query("select convoke.id('demo.things', _id) from demo.things order by random() limit 4", &[])
                .await
                .expect("ids");
            let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let args = json!({ "steps": self.steps(&ids, 0) }).to_string();
            let call = Call { kind: Kind::Mutation, path: "plans:apply", args: &args, encoding: Encoding::Clean };
            let answer = host.invoker().enter(&Caller::new(CallOrigin::Http), call).await;
            written.committed += usize::from(answer.result.is_ok());
            written.refused += usize::from(answer.result.is_err());
        }
        written
    }

    async fn goes_on(&mut self) -> bool {
        sleep(self.pause.mul_f64(self.random.random_range(0.0..2.0))).await;
        Instant::now() < self.until
    }

    fn steps(&mut self, ids: &[String], depth: u32) -> Vec<Value> {
        let count = self.random.random_range(1..4);
        (0..count).map(|_| self.step(ids, depth)).collect()
    }

    fn step(&mut self, ids: &[String], depth: u32) -> Value {
        let kind = self.kind();
        let rank = self.rank();
        let of_kind = |op: &str, rank: i64| {
            json!({ "table": "things", "index": "by_kind", "where": [
                { "field": "kind", "op": "eq", "value": kind }, { "field": "rank", "op": op, "value": rank },
            ] })
        };
        match (self.random.random_range(0..12), ids.choose(&mut self.random)) {
            (0..3, Some(id)) => json!({ "patch": "things", "id": id, "fields": { "rank": rank } }),
            (3, Some(id)) => json!({ "patch": "things", "id": id, "fields": { "kind": kind } }),
            (4..6, Some(id)) => json!({ "delete": "things", "id": id }),
            (6, _) => json!({ "patchWhere": of_kind("eq", rank), "fields": { "rank": rank + 1 } }),
            (7, _) => json!({ "deleteWhere": of_kind("gte", 18) }),
            (8, _) => json!({ "insert": "others", "document": { "n": rank } }),
            (9, _) if depth < 3 => json!({ "nest": self.steps(ids, depth + 1), "undo": self.random.random_bool(0.5) }),
            (10, _) if self.random.random_bool(0.1) => json!({ "fail": true }),
            (11, Some(id)) => json!({ "patch": "things", "id": id, "fields": { "flag": rank % 3 == 0 } }),
            _ => json!({ "insert": "things", "document": { "kind": kind, "rank": rank, "flag": rank % 2 == 0 } }),
        }
    }

    fn kind(&mut self) -> &'static str {
        KINDS.choose(&mut self.random).expect("a kind")
    }

    fn rank(&mut self) -> i64 {
        self.random.random_range(0..20)
    }

    fn statement(&mut self) -> String {
        let (kind, rank) = (self.kind(), self.rank());
        let one = "_id = (select _id from demo.things order by random() limit 1)";
        let fixed = FIXED.choose(&mut self.random).expect("an id");
        let padding = "(select string_agg(md5(random()::text), '') from generate_series(1, 160))";
        match self.random.random_range(0..114) {
            0..3 => format!(
                "insert into demo.things (data) select jsonb_build_object('kind', '{kind}', 'rank', ({rank} + n) % 20) \
                 from generate_series(0, 4) n"
            ),
            3..16 => format!("insert into demo.things (data) values ('{{\"kind\":\"{kind}\",\"rank\":{rank}}}')"),
            16..28 => format!("update demo.things set data = data || '{{\"rank\":{rank}}}' where {one}"),
            28..34 => format!("update demo.things set data = data || '{{\"kind\":\"{kind}\"}}' where {one}"),
            34..38 => {
                format!("update demo.things set data = data || '{{\"kind\":\"{kind}\"}}' where data->'rank' = '{rank}'")
            }
            38..44 => format!("delete from demo.things where {one}"),
            44..50 => format!("delete from demo.things where data->'rank' = '{rank}' and data->>'kind' = '{kind}'"),
            50..54 => format!(
                "insert into demo.things (data) select jsonb_build_object('kind', '{kind}', 'rank', {rank}, \
                 'padding', {padding})"
            ),
            // The log leaves out fields that are stored out of line and that an update does not touch.
            54..58 => "update demo.things set _creation_time = _creation_time + 1000 where _id = (select _id from \
                 demo.things where data ? 'padding' order by random() limit 1)"
                .to_owned(),
            58..60 => format!("update demo.things set data = data where {one}"),
            // What reads of other fields do not look at.
            100..110 => format!("update demo.things set data = data || '{{\"note\":{rank}}}' where {one}"),
            110..114 => format!("update demo.things set data = data || '{{\"flag\":true}}' where {one}"),
            60..66 => format!(
                "insert into demo.things (_id, data) values ('{fixed}', '{{\"kind\":\"{kind}\",\"rank\":{rank}}}') \
                 on conflict (_id) do update set data = excluded.data"
            ),
            66..70 => format!("delete from demo.things where _id = '{fixed}'"),
            70..72 => format!("update demo.things set _id = convoke.uuid_v7() where {one}"),
            72..75 => format!("update demo.things set data = data - 'rank' where {one}"),
            75..81 => format!("insert into demo.others (data) values ('{{\"n\":{rank}}}')"),
            81..86 => format!("delete from demo.others where (data->>'n')::int >= {rank}"),
            86..91 => {
                format!("insert into demo.plain values ({rank}, {rank}) on conflict (id) do update set v = plain.v + 1")
            }
            91..95 => format!("delete from demo.plain where id = {rank}"),
            95..97 => format!(
                "delete from demo.things where _creation_time < (select max(_creation_time) - 4000 from \
                 demo.things) and data->>'kind' <> '{kind}'"
            ),
            97 => "truncate demo.things".to_owned(),
            98 => "truncate demo.others, demo.plain".to_owned(),
            _ => format!("update demo.things set data = data || '{{\"flag\":true}}' where data->>'kind' = '{kind}'"),
        }
    }
}

/// Runs statements; says whether they went well. Writers get into each other's way, and that is part of it.
async fn run(psql: &Client, statements: &str) -> bool {
    let Err(error) = psql.batch_execute(statements).await else { return true };
    let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
    assert!(["40001", "40P01", "23505", "55P03"].contains(&code.as_str()), "{statements}: {error:?}");
    psql.batch_execute("rollback").await.expect("a rollback");
    false
}

/// What is asked, by the kind under whose name it is.
type Asked = (&'static str, Value);

/// Questions of every kind.
pub(super) fn questions(fixed: &[String]) -> Vec<Asked> {
    let mut questions = questions_for_documents();
    questions.extend(questions_for_fields());
    questions.extend(other_questions());
    questions.extend(fixed.iter().map(|id| ("point", json!({ "table": "things", "id": id }))));
    questions
}

fn kind(value: &str) -> Value {
    json!({ "field": "kind", "op": "eq", "value": value })
}

fn rank(op: &str, value: i64) -> Value {
    json!({ "field": "rank", "op": op, "value": value })
}

#[expect(clippy::needless_pass_by_value, reason = "it is made for the call")]
fn things(index: &str, conditions: Value) -> Value {
    json!({ "table": "things", "index": index, "where": conditions })
}

#[expect(clippy::needless_pass_by_value, reason = "it is made for the call")]
fn with(mut plan: Value, more: Value) -> Value {
    let more = more.as_object().expect("an object").clone();
    plan.as_object_mut().expect("an object").extend(more);
    json!({ "plan": plan })
}

fn questions_for_documents() -> Vec<Asked> {
    let missing = json!({ "field": "kind", "op": "eq", "value": { "$undefined": null } });
    vec![
        ("range", with(things("by_kind", json!([kind("a")])), json!({}))),
        ("range", with(things("by_kind", json!([kind("b"), rank("gte", 5), rank("lt", 12)])), json!({}))),
        ("range", with(things("by_rank", json!([rank("gt", 15)])), json!({}))),
        ("range", with(things("by_mixed", json!([kind("c"), rank("lte", 6)])), json!({ "order": "desc" }))),
        ("range", with(things("by_kind", json!([missing])), json!({}))),
        ("range", json!({ "plan": { "table": "others", "index": "by_n" } })),
        ("limit", with(things("by_rank", json!([])), json!({ "limit": 3 }))),
        ("limit", with(things("by_rank", json!([])), json!({ "limit": 3, "order": "desc" }))),
        ("limit", with(things("by_mixed", json!([kind("a")])), json!({ "limit": 2 }))),
        ("limit", with(things("by_creation_time", json!([])), json!({ "limit": 5, "order": "desc" }))),
        ("filter", with(things("by_kind", json!([kind("d")])), json!({ "filter": rank("lt", 7) }))),
        (
            "filter",
            with(
                things("by_mixed", json!([kind("b")])),
                json!({ "limit": 2,
                "filter": { "not": { "field": "flag", "op": "eq", "value": true } } }),
            ),
        ),
        // A page that was shown keeps its end, so that what it holds depends on when: these end where the table does.
        ("page", with(things("by_kind", json!([kind("a")])), json!({ "limit": 5000, "page": { "cursor": null } }))),
        (
            "page",
            with(things("by_rank", json!([])), json!({ "limit": 5000, "order": "desc", "page": { "cursor": null } })),
        ),
    ]
}

fn questions_for_fields() -> Vec<Asked> {
    vec![
        ("fields", with(things("by_kind", json!([kind("a")])), json!({ "fields": ["flag"] }))),
        ("fields", with(things("by_rank", json!([])), json!({ "fields": ["kind"], "limit": 3 }))),
        (
            "fields",
            with(things("by_creation_time", json!([])), json!({ "fields": ["kind"], "limit": 5, "order": "desc" })),
        ),
        ("fields", json!({ "plan": { "table": "things", "fields": ["padding"] } })),
        (
            "fields",
            with(
                things("by_mixed", json!([kind("b")])),
                json!({ "fields": ["_id"], "filter": { "not": { "field": "flag", "op": "eq", "value": true } } }),
            ),
        ),
        (
            "page_of_fields",
            with(
                things("by_rank", json!([])),
                json!({ "fields": ["flag"], "limit": 5000, "page": { "cursor": null } }),
            ),
        ),
        ("offset", with(things("by_rank", json!([])), json!({ "fields": ["kind"], "offset": 1, "limit": 2 }))),
    ]
}

fn other_questions() -> Vec<Asked> {
    vec![
        (
            "several",
            with(
                things("by_kind", json!([{ "field": "kind", "op": "in", "value": ["a", "c"] }, rank("gt", 10)])),
                json!({ "limit": 6 }),
            ),
        ),
        ("aggregate", with(things("by_kind", json!([kind("a")])), json!({ "aggregate": [{ "op": "count" }] }))),
        (
            "aggregate",
            with(
                things("by_kind", json!([kind("b"), rank("gt", 3)])),
                json!({ "aggregate": [
                { "op": "sum", "field": "rank" }, { "op": "max", "field": "rank" }, { "op": "min", "field": "rank" }] }),
            ),
        ),
        ("offset", with(things("by_rank", json!([])), json!({ "offset": 2, "limit": 2 }))),
        ("by_sql", json!({ "statement": super::oracle::COUNT_PLAIN })),
        ("by_sql", json!({ "statement": super::oracle::COUNT_THINGS })),
        (
            "pair",
            json!({ "first": things("by_kind", json!([kind("a")])), "second": things("by_kind", json!([kind("b")])) }),
        ),
        (
            "pair",
            json!({ "first": { "table": "others", "limit": 2 }, "second": things("by_rank", json!([rank("eq", 3)])) }),
        ),
    ]
}

/// Some of so many questions.
pub(super) fn choose(random: &mut StdRng, questions: usize, count: usize) -> Vec<usize> {
    rand::seq::index::sample(random, questions, count).into_vec()
}
