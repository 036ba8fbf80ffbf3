//! Plan and apply: what is made, what is kept, what happens to runs that meet or are killed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use convoke_model::Index;
use convoke_sync::{Applied, ApplyOptions, Class, Hazard, Progress, SyncError, apply, current, drift, plan};
use serde_json::{Value, json};

use crate::support::{Database, connect, demo, notes, object, options, run, schema};

#[test]
fn an_empty_database_gets_all_of_it_and_a_second_run_does_nothing() {
    run(async {
        let database = Database::new().await;
        let plan = database.plan(demo()).await;
        assert!(plan.is_additive(), "{plan}");
        let applied = database.apply(&plan, demo()).await.expect("applied");
        assert_eq!(applied.ran, plan.steps.len());
        let mut numbered = schema(demo());
        applied.numbers.fill(&mut numbered);
        assert!(numbered.tables.values().all(|table| table.number > 10_000), "{numbered:?}");

        let again = database.plan(demo()).await;
        assert!(again.is_empty() && again.drift.is_empty() && again.orphans.is_empty(), "{again}");
        let applied = database.apply(&again, demo()).await.expect("applied");
        assert_eq!(applied.ran, 0);
        let outcomes = database.value("select string_agg(outcome, ' ' order by id) from convoke.sync_log").await;
        assert_eq!(outcomes, "done nothing");
        let numbers = current(&database.admin, "demo", &schema(demo())).await.expect("asked");
        assert_eq!(numbers, Some(applied.numbers));
        assert_eq!(current(&database.admin, "demo", &schema(notes(json!([])))).await.expect("asked"), None);
    });
}

#[test]
fn what_is_made_is_what_was_declared() {
    run(async {
        let database = Database::with(demo()).await;
        let definition = database.value("pg_get_indexdef('demo.messages_by_channel_idx'::regclass)").await;
        assert_eq!(
            definition,
            "CREATE INDEX messages_by_channel_idx ON demo.messages USING btree \
             (convoke.key((data -> 'channel'::text)), _creation_time, _id)"
        );
        let unique = database.value("pg_get_indexdef('demo.users_by_email_key'::regclass)").await;
        assert_eq!(
            unique,
            "CREATE UNIQUE INDEX users_by_email_key ON demo.users USING btree (convoke.key((data -> 'email'::text))) \
             WHERE (data ?& ARRAY['email'::text])"
        );
        database
            .run("insert into demo.users (data) values ('{\"email\": \"a\"}'), ('{\"email\": \"b\", \"age\": 3}')")
            .await;
        let client = database.client().await;
        for (wrong, constraint) in [
            (r#"{"email": "a"}"#, "users_by_email_key"),
            (r#"{"age": 3}"#, "users_email_check"),
            (r#"{"email": 7}"#, "users_email_check"),
            (r#"{"email": "c", "age": 1.5}"#, "users_age_check"),
            ("[]", "users_data_check"),
        ] {
            let error = client
                .batch_execute(&format!("insert into demo.users (data) values ('{wrong}')"))
                .await
                .expect_err(wrong);
            let error = error.as_db_error().expect("an error of the server");
            assert_eq!(error.constraint(), Some(constraint), "{wrong}");
        }
    });
}

#[test]
fn the_log_says_who_did_what_and_when() {
    run(async {
        let database = Database::with(demo()).await;
        let row = database
            .client()
            .await
            .query_one(
                "select actor, host, tool, outcome, finished >= started, jsonb_array_length(steps) = jsonb_array_length(plan->'steps'), \
                 hash = plan->>'hash', target = plan->>'target' from convoke.sync_log",
                &[],
            )
            .await
            .expect("one run");
        assert_eq!(row.get::<_, String>(0), "postgres (ada)");
        assert_eq!((row.get(1), row.get(2), row.get(3)), ("lab", "convoke test", "done"));
        for column in 4..8 {
            assert!(row.get::<_, bool>(column), "column {column}");
        }
    });
}

#[test]
fn of_two_at_once_one_waits_and_does_nothing() {
    run(async {
        let database = Database::new().await;
        let (one, two) = (database.plan(demo()).await, database.plan(demo()).await);
        let (one, two) = tokio::join!(database.apply(&one, demo()), database.apply(&two, demo()));
        let (one, two) = (one.expect("applied"), two.expect("applied"));
        let (first, second) = if one.ran > 0 { (one, two) } else { (two, one) };
        assert!(first.ran > 0 && second.ran == 0, "{first:?} {second:?}");
        assert_eq!(first.numbers, second.numbers);
    });
}

/// Applies, and drops the run when step `stop` begins (`before`) or has ended.
async fn killed(database: &Database, tables: Value, stop: usize, before: bool) -> Option<Applied> {
    let plan = database.plan(tables.clone()).await;
    let schema = schema(tables);
    let (send, mut stopped) = tokio::sync::mpsc::unbounded_channel();
    let mut watch = |progress: Progress<'_>| {
        let at = match progress {
            Progress::Step { position, .. } if before => position,
            Progress::Done { position, .. } if !before => position,
            _ => return,
        };
        if at == stop {
            send.send(()).expect("heard");
        }
    };
    let options = options();
    let run = apply(&database.admin, &plan, &schema, &options, &mut watch);
    tokio::select! {
        biased;
        _ = stopped.recv() => None,
        done = run => Some(done.expect("applied")),
    }
}

#[test]
fn a_run_that_is_killed_anywhere_is_taken_up() {
    run(async {
        let mut changed = demo();
        changed[0]["indexes"] = json!([
            { "name": "by_channel", "fields": ["channel", { "field": "body", "order": "desc" }] },
            { "name": "by_body", "fields": ["body"] },
        ]);
        changed[0]["version"] = json!(3);
        changed[0]["check"] = json!(true);
        let whole = Database::with(demo()).await;
        whole.sync(changed.clone()).await.expect("synced");
        let expected = whole.fingerprint(changed.clone()).await;
        for before in [true, false] {
            for stop in 1.. {
                let database = Database::with(demo()).await;
                database
                    .run("insert into demo.messages (data) select jsonb_build_object('channel', 'c', 'body', n::text) from generate_series(1, 50) n")
                    .await;
                let ended = killed(&database, changed.clone(), stop, before).await.is_some();
                // The cancelled statement may still be on its way out.
                let applied = loop {
                    match database.sync(changed.clone()).await {
                        Err(SyncError::Stale { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                        other => break other.expect("taken up"),
                    }
                };
                let plan = database.plan(changed.clone()).await;
                assert_eq!(plan.base, expected, "killed at {stop}: {plan}");
                assert!(plan.is_empty() && plan.drift.is_empty(), "killed at {stop}: {plan}");
                if ended {
                    assert!(stop > 6 && applied.ran == 0, "{stop}");
                    break;
                }
            }
        }
    });
}

#[test]
fn a_table_that_is_dropped_from_the_schema_is_kept_and_listed() {
    run(async {
        let database = Database::with(demo()).await;
        database.run("insert into demo.messages (data) values ('{\"channel\": \"c\", \"body\": \"b\"}')").await;
        let rest = json!([demo()[1]]);
        let plan = database.plan(rest.clone()).await;
        assert!(plan.steps.is_empty(), "{plan}");
        assert_eq!(plan.orphans.iter().map(convoke_sync::Orphan::path).collect::<Vec<_>>(), ["messages"]);
        database.apply(&plan, rest.clone()).await.expect("applied");
        assert_eq!(database.value("select count(*) from demo.messages").await, "1");
        assert_eq!(database.plan(rest.clone()).await.orphans.len(), 1);

        let dropping = database.plan_dropping(rest.clone(), &["messages"]).await;
        assert!(!dropping.is_additive());
        assert_eq!(dropping.steps[0].class, Class::Destructive);
        assert!(dropping.steps[0].hazards.contains(&Hazard::DeletesData));
        database.apply(&dropping, rest.clone()).await.expect("dropped");
        assert_eq!(database.value("select to_regclass('demo.messages')").await, "");
        let after = database.plan(rest).await;
        assert!(after.is_empty() && after.orphans.is_empty() && after.drift.is_empty(), "{after}");
    });
}

#[test]
fn an_index_and_a_field_are_dropped_by_name_only() {
    run(async {
        let database = Database::with(demo()).await;
        database
            .run("insert into demo.messages (data) select jsonb_build_object('channel', 'c', 'body', n::text) from generate_series(1, 2500) n")
            .await;
        let mut less = demo();
        less[0]["indexes"] = json!([]);
        less[0]["schema"] = object(&json!({ "channel": { "type": "string" } }), &["channel"]);
        let plan = database.plan(less.clone()).await;
        assert!(plan.steps.is_empty(), "{plan}");
        let paths: Vec<String> = plan.orphans.iter().map(convoke_sync::Orphan::path).collect();
        assert_eq!(paths, ["messages.by_channel", "messages.body"]);
        assert_eq!(plan.orphans[1].rows, Some(2500));
        database.apply(&plan, less.clone()).await.expect("applied");
        assert_eq!(database.value("select count(*) from demo.messages where data ? 'body'").await, "2500");
        let ran =
            database.sync_dropping(less.clone(), &["messages.by_channel", "messages.body"]).await.expect("dropped").ran;
        assert_eq!(ran, 2);
        assert_eq!(database.value("select count(*) from demo.messages where data ? 'body'").await, "0");
        assert_eq!(database.value("select to_regclass('demo.messages_by_channel_idx')").await, "");
        let after = database.plan(less).await;
        assert!(after.is_empty() && after.orphans.is_empty() && after.drift.is_empty(), "{after}");
    });
}

#[test]
fn hand_made_changes_are_named() {
    run(async {
        let database = Database::with(demo()).await;
        database
            .run(
                "alter table demo.messages add column seen boolean; \
                 create index handmade on demo.messages (_creation_time); \
                 alter table demo.messages add constraint short check (length(data->>'body') < 100); \
                 alter table demo.messages alter column _id drop default; \
                 create function demo.noop() returns trigger language plpgsql as 'begin return new; end'; \
                 create trigger watch before insert on demo.messages for each row execute function demo.noop(); \
                 create table demo.aside (id int primary key); \
                 drop index demo.users_by_email_idx; \
                 alter table demo.users drop constraint users_age_check",
            )
            .await;
        let named: Vec<String> = drift(&database.admin, "demo")
            .await
            .expect("asked")
            .iter()
            .map(|drift| format!("{:?} {} {} {}", drift.change, drift.table, drift.kind, drift.name))
            .collect();
        let expected = [
            "Extra aside table aside",
            "Extra messages column seen",
            "Changed messages column _id",
            "Extra messages constraint short",
            "Extra messages index handmade",
            "Extra messages trigger watch",
            "Missing users index users_by_email_idx",
            "Missing users constraint users_age_check",
        ];
        for line in expected {
            assert!(named.iter().any(|named| named == line), "{line} is not in {named:#?}");
        }
        assert_eq!(named.len(), expected.len(), "{named:#?}");
        // What is missing is made again, what is extra stays.
        let plan = database.plan(demo()).await;
        assert_eq!(plan.drift.len(), expected.len());
        database.apply(&plan, demo()).await.expect("applied");
        let left = drift(&database.admin, "demo").await.expect("asked");
        assert_eq!(left.len(), expected.len() - 2, "{left:#?}");
        assert_eq!(database.value("select count(*) from demo.aside").await, "0");
    });
}

#[test]
fn a_plan_for_another_state_is_refused() {
    run(async {
        let database = Database::with(demo()).await;
        let mut more = demo();
        more[0]["indexes"] = json!([{ "name": "by_body", "fields": ["body"] }]);
        let plan = database.plan(more.clone()).await;
        database.run("alter table demo.messages add column seen boolean").await;
        let error = database.apply(&plan, more.clone()).await.expect_err("stale");
        assert!(matches!(error, SyncError::Stale { .. }), "{error}");
        let error = database.apply(&plan, demo()).await.expect_err("another schema");
        assert!(matches!(error, SyncError::OtherSchema), "{error}");
        assert_eq!(database.value("select to_regclass('demo.messages_by_body_idx')").await, "");
    });
}

#[test]
fn an_index_that_failed_is_repaired() {
    run(async {
        let database = Database::with(demo()).await;
        database.run("insert into demo.messages (data) values ('{\"channel\": \"c\", \"body\": \"b\"}')").await;
        database
            .run("update pg_index set indisvalid = false where indexrelid = 'demo.messages_by_channel_idx'::regclass")
            .await;
        let plan = database.plan(demo()).await;
        assert_eq!(plan.drift[0].name, "messages_by_channel_idx");
        assert_eq!(plan.steps.len(), 2, "{plan}");
        database.apply(&plan, demo()).await.expect("repaired");
        let valid = "select indisvalid from pg_index where indexrelid = 'demo.messages_by_channel_idx'::regclass";
        assert_eq!(database.value(valid).await, "true");
        assert!(database.plan(demo()).await.is_empty());
    });
}

#[test]
fn an_index_of_another_definition_is_replaced() {
    run(async {
        let database = Database::with(demo()).await;
        let mut other = demo();
        other[0]["indexes"] = json!([{ "name": "by_channel", "fields": ["channel", "body"] }]);
        let plan = database.plan(other.clone()).await;
        assert!(plan.is_additive() && plan.drift.is_empty(), "{plan}");
        assert!(plan.steps.iter().all(|step| step.hazards.contains(&Hazard::ReplacesIndex)), "{plan}");
        database.apply(&plan, other.clone()).await.expect("replaced");
        let definition = database.value("pg_get_indexdef('demo.messages_by_channel_idx'::regclass)").await;
        assert!(definition.contains("'body'::text"), "{definition}");
        assert!(database.plan(other.clone()).await.is_empty());
        // By hand, too.
        database
            .run("drop index demo.messages_by_channel_idx; create index messages_by_channel_idx on demo.messages ((data->>'channel'))")
            .await;
        let plan = database.plan(other.clone()).await;
        assert_eq!(plan.drift[0].change, convoke_sync::Change::Changed, "{plan}");
        database.apply(&plan, other.clone()).await.expect("replaced");
        assert!(database.plan(other).await.drift.is_empty());
        assert_eq!(
            database.value("select count(*) from pg_class where relname like 'messages_by_channel%'").await,
            "1"
        );
    });
}

#[test]
fn what_is_unique_no_longer_is_not_refused() {
    run(async {
        let database = Database::with(demo()).await;
        let mut loose = demo();
        loose[1]["indexes"][0]["unique"] = json!(false);
        loose[1]["check"] = json!(false);
        let plan = database.plan(loose.clone()).await;
        assert!(
            plan.is_additive() && plan.steps.iter().any(|step| step.hazards.contains(&Hazard::RelaxesCheck)),
            "{plan}"
        );
        database.apply(&plan, loose.clone()).await.expect("applied");
        database
            .run("insert into demo.users (data) values ('{\"email\": \"a\"}'), ('{\"email\": \"a\"}'), ('{}')")
            .await;
        let after = database.plan(loose).await;
        assert!(after.is_empty() && after.drift.is_empty() && after.orphans.is_empty(), "{after}");
    });
}

#[test]
fn a_version_goes_up_only() {
    run(async {
        let database = Database::with(notes(json!([]))).await;
        database.run("insert into demo.notes (data) values ('{}')").await;
        let version = |version: u32| json!([{ "name": "notes", "version": version }]);
        database.sync(version(2)).await.expect("synced");
        database.run("insert into demo.notes (data) values ('{}')").await;
        database.sync(version(5)).await.expect("synced");
        database.run("insert into demo.notes (data) values ('{}')").await;
        let versions = database.value("select string_agg(_version::text, ' ' order by _id) from demo.notes").await;
        assert_eq!(versions, "1 2 5");
        assert_eq!(database.plan(version(4)).await.problems[0].id, "VERSION_DOWN");
        assert!(database.plan(version(5)).await.is_empty());
    });
}

#[test]
fn a_reader_that_holds_a_table_makes_no_writer_wait_long() {
    run(async {
        let database = Database::with(demo()).await;
        let reader = database.client().await;
        reader.batch_execute("begin; select count(*) from demo.messages").await.expect("a lock");
        let mut checked = demo();
        checked[0]["check"] = json!(true);
        let plan = database.plan(checked.clone()).await;
        let schema = schema(checked.clone());
        let options = ApplyOptions { lock_wait: Duration::from_millis(150), lock_tries: 4, ..options() };
        let held = AtomicUsize::new(0);
        let mut watch = |progress: Progress<'_>| {
            if let Progress::Locked { holders, .. } = progress {
                held.fetch_add(1, Ordering::Relaxed);
                assert!(holders[0].contains("idle in transaction"), "{holders:?}");
            }
        };
        let writer = connect(&database.admin).await;
        let writes = async {
            let mut longest = Duration::ZERO;
            for _ in 0..40 {
                let start = Instant::now();
                writer
                    .batch_execute("insert into demo.messages (data) values ('{\"channel\": \"c\", \"body\": \"b\"}')")
                    .await
                    .expect("written");
                longest = longest.max(start.elapsed());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            longest
        };
        let (result, longest) = tokio::join!(apply(&database.admin, &plan, &schema, &options, &mut watch), writes);
        let error = result.expect_err("the reader never ends");
        assert!(matches!(error, SyncError::Locked { .. }) && error.to_string().contains("messages"), "{error}");
        assert!(longest < Duration::from_millis(600), "{longest:?}");
        assert_eq!(held.load(Ordering::Relaxed), 3);
        reader.batch_execute("commit").await.expect("released");
        database.sync(checked).await.expect("synced");
    });
}

#[test]
fn rows_that_come_after_the_plan_fail_the_step_and_leave_nothing_behind() {
    run(async {
        let database = Database::with(notes(json!([]))).await;
        let unique = notes(json!([{ "name": "by_code", "fields": ["code"], "unique": true }]));
        let plan = database.plan(unique.clone()).await;
        database.run("insert into demo.notes (data) values ('{\"code\": 1}'), ('{\"code\": 1.0}')").await;
        let error = database.apply(&plan, unique.clone()).await.expect_err("two are equal");
        let SyncError::Step { problem, .. } = &error else { panic!("{error}") };
        assert_eq!((problem.id, problem.samples.len()), ("UNIQUE_DUPLICATES", 1), "{problem}");
        assert_eq!(database.value("select to_regclass('demo.notes_by_code_key')").await, "");
        assert_eq!(database.value("select outcome from convoke.sync_log order by id desc limit 1").await, "failed");
        database.run("delete from demo.notes").await;
        database.sync(unique).await.expect("synced");
    });
}

#[test]
fn names_that_would_be_too_long_for_postgres_stay_apart() {
    run(async {
        let long = "t".repeat(50);
        let tables = json!([{ "name": long, "check": true, "schema": object(&json!({
            "data": { "type": "string" },
            "a_field_with_a_name_that_is_long_1": { "type": "string" },
            "a_field_with_a_name_that_is_long_2": { "type": "string" },
        }), &[]), "indexes": [{ "name": "by_data", "fields": ["data"] }] }]);
        let database = Database::with(tables.clone()).await;
        let after = database.plan(tables).await;
        assert!(after.is_empty() && after.drift.is_empty(), "{after}");
        let index = Index { name: "by_data".to_owned(), fields: Vec::new(), unique: false };
        let name = convoke_sql::index_name(&long, &index.name);
        assert_eq!(database.value(&format!("select to_regclass('demo.{name}') is not null")).await, "true");
    });
}

#[test]
fn another_database_gets_the_same_plan_from_its_own_state() {
    run(async {
        let database = Database::new().await;
        let error = plan(&database.admin, "pg_mine", &schema(demo()), &convoke_sync::PlanOptions::default()).await;
        assert!(matches!(error, Err(SyncError::Reserved(_))));
        let one = database.plan(demo()).await;
        let two = database.plan(demo()).await;
        assert_eq!(one.hash, two.hash);
        assert_eq!(one.target, database.plan(demo()).await.target);
    });
}
