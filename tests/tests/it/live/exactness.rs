//! A subscription runs again exactly when something was written into what it read, and what a client sees together is
//! of one moment.
//!
//! Writers of every kind (mutations and plain SQL, savepoints, rollbacks, transactions in two phases, many rows, truncates)
//! change the tables of one database at random, through two hosts and past them, while clients
//! watch several queries each. An oracle follows the log on its own and tells what every query gives after every
//! transaction. Then it is found that
//!
//! - whatever was shown at a position is what each of the client's queries gives there: nothing of two moments,
//! - every result that was kept holds at the position from which it is said to hold,
//! - the last thing shown is the last state: no change was missed,
//! - before every further run of a query, a transaction that its last snapshot lacks wrote into what it had read.
//!
//! `CONVOKE_EXACTNESS_SECONDS` and `CONVOKE_EXACTNESS_SEED` make it longer, and another one.

mod oracle;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use convoke_feed::{ChangeKind, Feed, FeedEvent, FeedOptions, Transaction};
use convoke_live::{Evaluation, Live, QueryKey, Run, Watcher};
use convoke_model::{DocumentId, Limits};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use oracle::{Before, Catalog, History, Question, Rows};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use workload::{Writer, Written};

use crate::harness::{TestHost, run};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a client was shown.
struct Shown {
    client: u64,
    position: u64,
    results: Vec<(usize, Arc<Evaluation>)>,
}

/// Where everything happens.
struct Scene {
    hosts: [TestHost; 2],
    questions: Arc<Vec<Question>>,
    catalog: Catalog,
}

#[test]
fn what_is_shown_is_exact() {
    run(async {
        let seconds = setting("CONVOKE_EXACTNESS_SECONDS").unwrap_or(6);
        let seed = setting("CONVOKE_EXACTNESS_SEED").unwrap_or_else(rand::random);
        let scene = Scene::set().await;
        let mut runs: Vec<_> = scene.lives().iter().map(Live::runs).collect();
        let (tell_end, end) = watch::channel(None);
        let truth = follow(&scene.hosts[0], end.clone()).await;
        let watching: Vec<_> = (0..8).map(|client| scene.watch(client, seed, end.clone())).collect();
        let written = scene.write(seed, Duration::from_secs(seconds)).await;

        tell_end.send(Some(position(&scene.hosts[0]).await)).expect("listeners");
        let mut shown = Vec::new();
        for watched in watching {
            shown.extend(watched.await.unwrap_or_else(|error| panic!("seed {seed}: {error}")));
        }
        let transactions = truth.await.expect("the feed");
        check_coverage(seed, seconds, written, &transactions);
        let mut ran = Vec::new();
        for (host, runs) in runs.iter_mut().enumerate() {
            while let Ok(run) = runs.try_recv() {
                ran.push((host, run));
            }
        }
        let last = scene.check_results(seed, &transactions, &shown, &ran);
        scene.check_rows(seed, &last).await;
        scene.check_runs(seed, &transactions, &ran);
    });
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Where the log ends.
async fn position(host: &TestHost) -> u64 {
    let row = host.psql().await.query_one("select pg_current_wal_flush_lsn()", &[]).await.expect("a position");
    row.get::<_, tokio_postgres::types::PgLsn>(0).into()
}

/// All transactions, from now until the end that is told.
async fn follow(host: &TestHost, mut end: watch::Receiver<Option<u64>>) -> JoinHandle<Vec<Arc<Transaction>>> {
    let mut feed = Feed::start(FeedOptions::new(host.postgres.clone())).subscribe("convoke_demo", "demo");
    let started = timeout(PATIENCE, feed.next()).await;
    assert!(matches!(started, Ok(Some(FeedEvent::Started(_)))), "{started:?}");
    tokio::spawn(async move {
        let mut transactions = Vec::new();
        let mut position = 0;
        let request = feed.position_request();
        while end.borrow().is_none_or(|end| position < end) {
            let event = tokio::select! {
                event = feed.next() => event,
                _ = end.changed() => {
                    request.send();
                    continue;
                }
            };
            match event.expect("a feed") {
                FeedEvent::Transaction(transaction) => {
                    position = transaction.end_lsn;
                    transactions.push(transaction);
                }
                FeedEvent::Position(reached) => position = position.max(reached),
                other => panic!("{other:?}"),
            }
        }
        transactions
    })
}

impl Scene {
    async fn set() -> Self {
        let first = TestHost::start(&[]).await;
        let psql = first.psql().await;
        // A table made by hand is followed from the next deploy on. Made later, it would have everything run again.
        psql.batch_execute(
            "create schema if not exists demo; create table demo.plain (id int primary key, v int); \
             grant select on demo.plain to public",
        )
        .await
        .expect("a table");
        first.deploy(&["plans"]).await.expect("a deployment");
        let second = TestHost::beside(&first, &["plans"]).await;
        let rows = psql.query("select name, number from convoke.tables where project = 'demo'", &[]).await;
        let rows = rows.expect("numbers");
        let numbers: BTreeMap<String, u32> =
            rows.iter().map(|row| (row.get(0), row.get::<_, i32>(1).unsigned_abs())).collect();
        let id = |uuid: &&str| DocumentId { table: numbers["things"], uuid: uuid.parse().expect("a UUID") }.to_string();
        let fixed: Vec<String> = workload::FIXED.iter().map(id).collect();
        let questions = workload::questions(&fixed).into_iter();
        let questions = questions.map(|(path, args)| Question { path: format!("plans:{path}"), args }).collect();
        let scene = Self { hosts: [first, second], questions: Arc::new(questions), catalog: Catalog { numbers } };
        for host in &scene.hosts {
            host.until_streaming(true).await;
        }
        scene
    }

    fn lives(&self) -> [Live; 2] {
        [0, 1].map(|host: usize| self.hosts[host].host.live().expect("live queries").clone())
    }

    /// Runs all writers.
    async fn write(&self, seed: u64, time: Duration) -> Written {
        let until = Instant::now() + time;
        let writer = |number: u64| Writer::new(seed ^ number, until, Duration::from_millis(40));
        let host = &self.hosts[0];
        let writers: Vec<BoxFuture<'_, Written>> = vec![
            writer(1).autocommit(host.psql().await).boxed(),
            writer(2).transactions(host.psql().await, "x").boxed(),
            writer(3).transactions(host.psql().await, "y").boxed(),
            writer(4).mutations(Arc::clone(&self.hosts[0].host), host.psql().await).boxed(),
            writer(5).mutations(Arc::clone(&self.hosts[1].host), host.psql().await).boxed(),
        ];
        join_all(writers).await.into_iter().fold(Written::default(), Written::and)
    }

    /// One client: several queries, now and then others, until what it is shown is the end.
    fn watch(&self, client: u64, seed: u64, mut end: watch::Receiver<Option<u64>>) -> JoinHandle<Vec<Shown>> {
        let live = self.lives()[client as usize % 2].clone();
        let questions = Arc::clone(&self.questions);
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(client + 100));
        tokio::spawn(async move {
            let count = random.random_range(1..6);
            let mut asked = workload::choose(&mut random, questions.len(), count);
            let mut watcher = Watcher::new(live.clone());
            for (number, question) in asked.iter().enumerate() {
                watcher.add(number as u32, &key(&live, &questions[*question])).expect("room");
            }
            let mut shown: Vec<Shown> = Vec::new();
            let mut last = 0;
            let mut swap_at = Instant::now() + Duration::from_secs(1);
            let mut give_up = None;
            loop {
                let wanted = *end.borrow();
                if let Some(view) = watcher.view(last.max(wanted.unwrap_or_default())) {
                    assert!(view.position >= last, "a position goes back");
                    last = view.position;
                    let results = view.results.into_iter();
                    let results = results.map(|(number, result)| (asked[number as usize], result)).collect();
                    shown.push(Shown { client, position: last, results });
                    if wanted.is_some() {
                        return shown;
                    }
                }
                if wanted.is_some() {
                    let give_up = give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
                    assert!(Instant::now() < *give_up, "client {client} does not hear of a change: {asked:?}");
                } else if Instant::now() > swap_at {
                    swap_at += Duration::from_millis(random.random_range(200..2000));
                    let (number, question) = (random.random_range(0..count), random.random_range(0..questions.len()));
                    asked[number] = question;
                    watcher.add(number as u32, &key(&live, &questions[question])).expect("room");
                }
                tokio::select! {
                    () = watcher.changed() => {}
                    _ = end.changed() => {}
                    () = sleep(Duration::from_millis(250)) => {}
                }
            }
        })
    }

    /// Goes through the transactions one by one; gives all rows at the end.
    fn check_results(
        &self,
        seed: u64,
        transactions: &[Arc<Transaction>],
        shown: &[Shown],
        ran: &[(usize, Run)],
    ) -> Rows {
        let mut claims: Vec<(u64, String, usize, Arc<Evaluation>)> = Vec::new();
        for Shown { client, position, results } in shown {
            let claim = |(question, result): &(usize, Arc<Evaluation>)| {
                (*position, format!("shown to client {client}"), *question, Arc::clone(result))
            };
            claims.extend(results.iter().map(claim));
        }
        for (host, run) in ran.iter().filter(|(_, run)| run.received.is_kept()) {
            let position = run.evaluation.from;
            // A transaction may be in the log before it is visible: the host hears of it before it shows the result.
            if missing(transactions, &run.evaluation, position).next().is_some() {
                continue;
            }
            claims.push((position, format!("kept by host {host}"), self.question(run), Arc::clone(&run.evaluation)));
        }
        claims.sort_by_key(|(position, ..)| *position);
        let mut rows = Rows::default();
        let mut transactions = transactions.iter().peekable();
        let mut applied: Vec<&Arc<Transaction>> = Vec::new();
        // What each question gives until the next transaction.
        let mut known: BTreeMap<usize, Value> = BTreeMap::new();
        for (position, who, question, evaluation) in claims {
            while let Some(transaction) = transactions.next_if(|next| next.end_lsn <= position) {
                rows.apply(transaction);
                applied.push(transaction);
                known.clear();
            }
            let asked = &self.questions[question];
            let wanted = known.entry(question).or_insert_with(|| rows.answer(asked, &self.catalog));
            let text = evaluation.result.as_ref().unwrap_or_else(|failure| panic!("seed {seed}: {failure:?}"));
            let found: Value = serde_json::from_str(text).expect("JSON");
            assert!(
                oracle::same(&found, wanted),
                "seed {seed}: {who} at {position}, from {}: {asked:?}\n found {}\nwanted {}\nafter {:?}\nbefore {:?}",
                evaluation.from,
                short(&found),
                short(wanted),
                applied.iter().rev().take(5).map(|it| told(it, &evaluation)).collect::<Vec<_>>(),
                transactions.clone().take(3).map(|it| told(it, &evaluation)).collect::<Vec<_>>(),
            );
        }
        transactions.for_each(|transaction| rows.apply(transaction));
        rows
    }

    /// The oracle's rows at the end are those of the tables.
    async fn check_rows(&self, seed: u64, rows: &Rows) {
        let psql = self.hosts[0].psql().await;
        for table in ["things", "others"] {
            let text = format!("select _id, data::text from demo.{table} order by _id");
            let found = psql.query(&text, &[]).await.expect("rows");
            let found: Vec<(uuid::Uuid, Value)> =
                found.iter().map(|row| (row.get(0), serde_json::from_str(row.get(1)).expect("a document"))).collect();
            assert_eq!(rows.documents(table), found, "seed {seed}: {table}");
        }
    }

    /// Before each further run, something was written into what the one before had read and had not seen.
    fn check_runs(&self, seed: u64, transactions: &[Arc<Transaction>], ran: &[(usize, Run)]) {
        let mut before: BTreeMap<(usize, u64), &Run> = BTreeMap::new();
        let history = History::of(transactions.iter().map(|transaction| &**transaction));
        let mut checked = 0;
        for (host, run) in ran {
            let Some(last) = before.insert((*host, run.entry), run) else { continue };
            let question = &self.questions[self.question(run)];
            let text = last.evaluation.result.as_ref().expect("a result");
            let result: Value = serde_json::from_str(text).expect("JSON");
            let snapshot = last.evaluation.snapshot.as_ref().expect("a snapshot");
            let seen = Before { history: &history, snapshot };
            let is_justified = missing(transactions, &last.evaluation, run.evaluation.from)
                .any(|missed| oracle::concerns(missed, question, &result, &seen));
            assert!(
                is_justified,
                "seed {seed}: host {host} ran {question:?} at {} though its result of {} ({:?}) held: {}",
                run.evaluation.from,
                last.evaluation.from,
                last.received,
                short(&result)
            );
            checked += 1;
        }
        assert!(checked > 20, "seed {seed}: only {checked} queries ran again");
    }

    fn question(&self, run: &Run) -> usize {
        let args: Value = serde_json::from_str(&run.key.args).expect("JSON");
        let is_asked = |question: &Question| *question.path == *run.key.path && question.args == args;
        self.questions.iter().position(is_asked).expect("a question")
    }
}

/// Every kind of write has been among them, or the rest proves less than it says.
fn check_coverage(seed: u64, seconds: u64, written: Written, transactions: &[Arc<Transaction>]) {
    let all = (written.committed + written.rolled_back) as u64;
    assert!(all > 10 * seconds, "seed {seed}: only {all} transactions");
    let Written { rolled_back, undone, prepared_and_committed, prepared_and_rolled_back, .. } = written;
    for (kind, count) in [
        ("rolled back", rolled_back),
        ("with a savepoint that was taken back", undone),
        ("prepared and committed", prepared_and_committed),
        ("prepared and rolled back", prepared_and_rolled_back),
    ] {
        assert!(count > 0, "seed {seed}: no transaction was {kind}: {written:?}");
    }
    let changes = || transactions.iter().flat_map(|transaction| &transaction.changes);
    let is_seen = [
        changes().any(|change| matches!(change.kind, ChangeKind::Insert { .. })),
        changes().any(|change| matches!(change.kind, ChangeKind::Update { .. })),
        changes().any(|change| matches!(change.kind, ChangeKind::Delete { .. })),
        changes().any(|change| matches!(change.kind, ChangeKind::Truncate)),
        transactions.iter().any(|transaction| transaction.changes.len() > 3),
    ];
    assert_eq!(is_seen, [true; 5], "seed {seed}: inserts, updates, deletes, truncates, many rows at once");
}

/// How far behind a snapshot's position a transaction may lie that it lacks: visibility comes after the log.
const WINDOW: u64 = 1 << 20;

fn key(live: &Live, question: &Question) -> QueryKey {
    live.key(&question.path, &question.args.to_string(), None).expect("a key")
}

/// The transactions up to a position that a result does not contain.
fn missing<'a>(
    transactions: &'a [Arc<Transaction>],
    evaluation: &'a Evaluation,
    position: u64,
) -> impl Iterator<Item = &'a Arc<Transaction>> {
    let snapshot = evaluation.snapshot.as_ref().expect("a snapshot");
    let begin = transactions.partition_point(|transaction| transaction.end_lsn + WINDOW < evaluation.from);
    let until = transactions[begin..].iter().take_while(move |transaction| transaction.end_lsn <= position);
    until.filter(|transaction| !snapshot.contains_xid(transaction.xid))
}

/// A transaction in a failure's words: where it ends, its id, whether the result contains it, and what it wrote.
fn told(transaction: &Arc<Transaction>, evaluation: &Evaluation) -> (u64, u32, Option<bool>, Vec<String>) {
    let contains = evaluation.snapshot.as_ref().map(|snapshot| snapshot.contains_xid(transaction.xid));
    let wrote = transaction.changes.iter().take(4).map(|change| {
        let mut text = format!("{} {:?}", change.relation.name, change.kind);
        text.truncate(300);
        text
    });
    (transaction.end_lsn, transaction.xid, contains, wrote.collect())
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    text.truncate(600);
    text
}

#[test]
fn an_error_goes_away_with_the_rows_that_made_it() {
    run(async {
        let limits = Limits { rows_max: 2, ..Limits::default() };
        let host = TestHost::with_limits(&["plans"], limits).await;
        let live = host.host.live().expect("live queries").clone();
        let psql = host.psql().await;
        let fill = "insert into demo.others (data) select jsonb_build_object('n', n) from generate_series(0, 4) n";
        psql.batch_execute(fill).await.expect("rows");
        let statement = "select 1 / ((data->>'n')::int) as x from others";
        let asked = [json!({ "plan": { "table": "others" } }), json!({ "statement": statement })];
        let mut watchers = Vec::new();
        for args in &asked {
            let mut watcher = Watcher::new(live.clone());
            watcher.add(0, &live.key("plans:code", &args.to_string(), None).expect("a key")).expect("room");
            watchers.push(watcher);
        }
        let mut before = Vec::new();
        for watcher in &watchers {
            before.push(next(watcher, |_| true).await);
        }
        assert_eq!(before[0], json!("INVALID_ARGS"));
        assert!(before[1].is_string(), "{before:?}");
        psql.batch_execute("delete from demo.others where data->'n' <> '3'").await.expect("a delete");
        next(&watchers[0], Value::is_null).await;
        next(&watchers[1], Value::is_null).await;
    });
}

#[test]
fn queries_that_never_hold_together_are_shown_together() {
    run(async {
        let host = TestHost::start(&["plans"]).await;
        let live = host.host.live().expect("live queries").clone();
        let psql = host.psql().await;
        // So slow that a change comes between any two runs of theirs.
        let asked = ["count(*)", "coalesce(max((data->>'n')::int) + 1, 0)"]
            .map(|what| json!({ "statement": format!("select {what} as n from others, pg_sleep(0.03)") }));
        let writer = tokio::spawn(async move {
            for n in 0..1_500 {
                let insert = "insert into demo.others (data) values (jsonb_build_object('n', $1::int))";
                psql.execute(insert, &[&n]).await.expect("a row");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let mut watcher = Watcher::new(live.clone());
        for (number, args) in asked.iter().enumerate() {
            watcher
                .add(number as u32, &live.key("plans:by_sql", &args.to_string(), None).expect("a key"))
                .expect("room");
        }
        let mut seen = Vec::new();
        while !writer.is_finished() {
            if let Some(view) = watcher.view(seen.last().map_or(0, |(position, _)| *position)) {
                let result = |number: usize| -> Value {
                    let text = view.results[number].1.result.as_ref().expect("a result");
                    serde_json::from_str(text).expect("JSON")
                };
                assert_eq!(result(0), result(1), "of one moment");
                if seen.last().is_none_or(|(_, last)| *last != result(0)) {
                    seen.push((view.position, result(0)));
                }
            }
            let _ = timeout(Duration::from_millis(100), watcher.changed()).await;
        }
        assert!(seen.len() >= 3, "while the writer wrote, only {seen:?}");
    });
}

/// The next result that is as wanted.
async fn next(watcher: &Watcher, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            if let Some(view) = watcher.view(0) {
                let text = view.results[0].1.result.as_ref().expect("a result");
                let result = serde_json::from_str(text).expect("JSON");
                if wanted(&result) {
                    return result;
                }
            }
            watcher.changed().await;
        }
    };
    timeout(PATIENCE, found).await.expect("the result")
}
