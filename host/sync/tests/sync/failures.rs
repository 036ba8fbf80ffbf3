//! Planted failures, and what a sync says about each: the place, a sample, the cause, the fix.

use std::time::Duration;

use convoke_postgres::Config;
use convoke_sync::{ApplyOptions, PlanOptions, Progress, SyncError, apply, bootstrap, plan};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{Database, connect, demo, empty, notes, object, options, run, schema};

/// The message of an error as the command line prints it.
pub(crate) fn message(error: &SyncError) -> String {
    let mut text = error.to_string();
    if let Some(hint) = error.hint() {
        text.push_str("\nhint: ");
        text.push_str(&hint);
    }
    text
}

/// The rows of a table of any documents, with ids that are known.
fn insert(table: &str, documents: &[Value]) -> String {
    let rows = documents.iter().enumerate().map(|(at, document)| {
        format!("('0190b5a2-0000-7000-8000-{at:012}', {at}, '{}')", document.to_string().replace('\'', "''"))
    });
    format!("insert into demo.{table} (_id, _creation_time, data) values {}", rows.collect::<Vec<_>>().join(", "))
}

/// Syncs `notes` as it is, adds documents, and gives what the sync of `after` says, which must change nothing.
async fn planted(documents: &[Value], after: Value) -> String {
    planted_in(notes(json!([])), documents, after).await
}

async fn planted_in(before: Value, documents: &[Value], after: Value) -> String {
    let database = Database::with(before).await;
    if !documents.is_empty() {
        database.run(&insert("notes", documents)).await;
    }
    refused(&database, after, &[]).await
}

async fn refused(database: &Database, after: Value, drop: &[&str]) -> String {
    let before = database.fingerprint(after.clone()).await;
    let error = database.sync_dropping(after.clone(), drop).await.expect_err("it is refused");
    assert!(matches!(error, SyncError::Problems(_)), "{error:?}");
    assert_eq!(database.fingerprint(after).await, before, "nothing has changed");
    message(&error)
}

#[expect(clippy::needless_pass_by_value, reason = "it is written in place")]
fn by(fields: Value, unique: bool) -> Value {
    notes(json!([{ "name": "by_it", "fields": fields, "unique": unique }]))
}

#[expect(clippy::needless_pass_by_value, reason = "it is written in place")]
fn typed(properties: Value, required: &[&str]) -> Value {
    json!([{ "name": "notes", "schema": object(&properties, required) }])
}

fn checked(properties: Value, required: &[&str]) -> Value {
    // The schema is not given before, so that only the check speaks.
    let mut tables = typed(properties, required);
    tables[0]["check"] = json!(true);
    tables
}

macro_rules! golden {
    ($($name:ident => $message:expr;)+) => { $(
        #[test]
        fn $name() {
            run(async {
                assert_snapshot!(stringify!($name), $message);
            });
        }
    )+ };
}

golden! {
    unique_over_equal_values => planted(
        &[json!({ "code": "a" }), json!({ "code": "b" }), json!({ "code": "a" }), json!({})],
        by(json!(["code"]), true),
    ).await;
    unique_over_equal_numbers_of_two_spellings => planted(
        &[json!({ "code": 1 }), json!({ "code": 1.0 })],
        by(json!(["code"]), true),
    ).await;
    unique_over_two_fields => planted(
        &[json!({ "a": 1, "b": 2 }), json!({ "a": 1, "b": 2 }), json!({ "a": 1 }), json!({ "a": 1 })],
        by(json!(["a", "b"]), true),
    ).await;
    index_over_a_value_that_is_too_large => planted(
        &[json!({ "body": noise(5000) }), json!({ "body": "a".repeat(5000) })],
        by(json!(["body"]), false),
    ).await;
    index_over_a_number_out_of_range => number_out_of_range().await;
    check_of_another_type => planted(&[json!({ "n": "3" }), json!({ "n": 3 })], checked(json!({ "n": { "type": "number" } }), &[])).await;
    check_of_a_missing_field => planted(&[json!({}), json!({ "n": 3 })], checked(json!({ "n": { "type": "number" } }), &["n"])).await;
    check_of_a_whole_number => planted(&[json!({ "n": 1.5 }), json!({ "n": 3 })], checked(json!({ "n": { "type": "integer" } }), &[])).await;
    check_that_allows_no_null => planted(&[json!({ "n": null })], checked(json!({ "n": { "type": "boolean" } }), &[])).await;
    schema_with_another_type => planted(&[json!({ "n": "3" }), json!({ "n": 3 })], typed(json!({ "n": { "type": "integer" } }), &[])).await;
    schema_with_a_new_required_field => planted(&[json!({ "a": 1 }), json!({ "a": 2 })], typed(json!({ "b": { "type": "string" } }), &["b"])).await;
    schema_with_fewer_choices => planted(&[json!({ "state": "open" }), json!({ "state": "lost" })], typed(json!({ "state": { "enum": ["open", "sent"] } }), &[])).await;
    schema_of_a_nested_field => planted(
        &[json!({ "author": { "name": 3 } })],
        typed(json!({ "author": object(&json!({ "name": { "type": "string" } }), &["name"]) }), &[]),
    ).await;
    schema_with_a_lower_limit => planted(&[json!({ "n": 12 })], typed(json!({ "n": { "type": "integer", "maximum": 10 } }), &[])).await;
    schema_that_is_none => planted(&[], typed(json!({ "n": { "type": "whole" } }), &[])).await;
    version_that_goes_down => planted_in(
        json!([{ "name": "notes", "version": 3 }]), &[json!({})], json!([{ "name": "notes", "version": 2 }]),
    ).await;
    unmanaged_table_that_is_missing => planted(&[], json!([{ "name": "invoices", "unmanaged": { "key": "id" } }])).await;
    unmanaged_key_that_is_missing => by_hand("create table demo.invoices (number int, total numeric)", json!([{ "name": "invoices", "unmanaged": { "key": "id" } }])).await;
    unmanaged_that_was_made_by_convoke => planted(&[], json!([{ "name": "notes", "unmanaged": { "key": "_id" } }])).await;
    table_of_somebody_else => by_hand("create table demo.invoices (number int, total numeric)", json!([{ "name": "invoices" }])).await;
    view_in_the_place_of_a_table => by_hand("create view demo.invoices as select 1 as n", json!([{ "name": "invoices" }])).await;
    column_that_was_changed_by_hand => by_hand("alter table demo.notes drop constraint notes_data_check, alter column data drop default, alter column data type text using data::text", notes(json!([{ "name": "by_a", "fields": ["a"] }]))).await;
    names_of_two_indexes_that_are_one_in_postgres => planted(&[], json!([
        { "name": "a", "indexes": [{ "name": "b_c", "fields": ["x"] }] },
        { "name": "a_b", "indexes": [{ "name": "c", "fields": ["x"] }] },
    ])).await;
    name_of_an_index_that_a_table_has => by_hand("create table demo.notes_by_it_idx (id int)", by(json!(["a"]), false)).await;
    table_of_another_owner => by_hand(
        "do $$ begin create role sync_stranger; exception when duplicate_object then null; end $$; \
         alter table demo.notes owner to sync_stranger; ",
        by(json!(["a"]), false),
    ).await;
    drop_of_nothing => { let database = dropped().await; refused(&database, rest(), &["massages"]).await };
    drop_of_what_is_declared => { let database = dropped().await; refused(&database, rest(), &["users.by_email"]).await };
    drop_of_an_unclear_name => { let database = dropped().await; refused(&database, rest(), &["a.b.c"]).await };
    drop_of_an_index_and_a_field_of_one_name => ambiguous().await;
    plan_that_is_out_of_date => stale().await;
    lock_that_others_hold => locked().await;
    table_that_a_view_needs => view_in_the_way().await;
    rows_that_came_after_the_plan => late().await;
    project_name_of_postgres => message(&bootstrap(&empty().await, "pg_catalog").await.expect_err("reserved"));
    user_who_may_not_make_anything => message(&bootstrap(&stranger().await, "demo").await.expect_err("not allowed"));
    schema_of_another_owner => schema_of_others().await;
    server_that_is_not_there => {
        let mut nobody = Config::new();
        nobody.host("127.0.0.1").port(9).user("nobody").dbname("nothing");
        message(&plan(&nobody, "demo", &schema(demo()), &PlanOptions::default()).await.expect_err("nobody"))
    };
}

/// Text that does not compress, the same every time.
fn noise(bytes: usize) -> String {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'!' + (state >> 24) as u8 % 90)
    };
    std::iter::repeat_with(&mut next).filter(|c| !['\'', '\\', '"'].contains(c)).take(bytes).collect()
}

async fn number_out_of_range() -> String {
    let database = Database::with(notes(json!([]))).await;
    database
        .run("insert into demo.notes (_id, data) values ('0190b5a2-0000-7000-8000-000000000000', '{\"n\": 1e400}')")
        .await;
    refused(&database, by(json!(["n"]), false), &[]).await
}

async fn by_hand(sql: &str, after: Value) -> String {
    let database = Database::with(notes(json!([]))).await;
    database.run(sql).await;
    let mut text = refused_by(&database, after).await;
    if text.contains("sync_stranger") {
        text = text.replace("sync_stranger", "stranger");
    }
    text
}

/// The same where the connected user is the superuser of the tests, who is the owner of everything: a planner asks as a
/// user who is not.
async fn refused_by(database: &Database, after: Value) -> String {
    let is_foreign = database.value("select count(*) from pg_class where relname = 'notes' and relowner = (select oid from pg_roles where rolname = 'sync_stranger')").await == "1";
    if !is_foreign {
        return refused(database, after, &[]).await;
    }
    let name = database.admin.get_dbname().expect("a name");
    let user = format!("reader_{name}");
    database
        .run(&format!(
            "create role {user} login; grant usage on schema convoke, demo to {user}; \
             grant select on all tables in schema convoke, demo to {user}"
        ))
        .await;
    let mut config = database.admin.clone();
    config.user(&user);
    let plan = plan(&config, "demo", &schema(after), &PlanOptions::default()).await.expect("a plan");
    let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
    problems.join("\n")
}

async fn dropped() -> Database {
    let database = Database::with(demo()).await;
    database.sync(rest()).await.expect("synced");
    database
}

fn rest() -> Value {
    json!([demo()[1]])
}

async fn ambiguous() -> String {
    let both = json!([{
        "name": "notes",
        "schema": object(&json!({ "place": { "type": "string" }, "text": { "type": "string" } }), &[]),
        "indexes": [{ "name": "place", "fields": ["place"] }],
    }]);
    let database = Database::with(both).await;
    database.run(&insert("notes", &[json!({ "place": "here" })])).await;
    refused(&database, typed(json!({ "text": { "type": "string" } }), &[]), &["notes.place"]).await
}

async fn stale() -> String {
    let database = Database::with(notes(json!([]))).await;
    let after = by(json!(["a"]), false);
    let plan = database.plan(after.clone()).await;
    database.run("alter table demo.notes add column seen boolean").await;
    let text = message(&database.apply(&plan, after.clone()).await.expect_err("stale"));
    let now = database.plan(after).await.base;
    text.replace(&plan.base[..12], "[BASE]").replace(&now[..12], "[LIVE]")
}

async fn locked() -> String {
    let database = Database::with(notes(json!([]))).await;
    let reader = database.client().await;
    reader
        .batch_execute("set application_name = 'report'; begin; select count(*) from demo.notes")
        .await
        .expect("held");
    let after = checked(json!({ "n": { "type": "number" } }), &[]);
    let plan = database.plan(after.clone()).await;
    let options = ApplyOptions { lock_wait: Duration::from_millis(50), lock_tries: 2, ..options() };
    let error = apply(&database.admin, &plan, &schema(after), &options, &mut |_: Progress<'_>| {}).await;
    let text = message(&error.expect_err("held"));
    let pid: i32 = reader.query_one("select pg_backend_pid()", &[]).await.expect("asked").get(0);
    let text = text.replace(&format!("process {pid} "), "process [PID] ");
    (0..60).fold(text, |text, seconds| text.replace(&format!(" for {seconds} s"), " for [TIME]"))
}

async fn view_in_the_way() -> String {
    let database = dropped().await;
    database.run("create view demo.report as select * from demo.messages").await;
    message(&database.sync_dropping(rest(), &["messages"]).await.expect_err("a view needs it"))
}

async fn late() -> String {
    let database = Database::with(notes(json!([]))).await;
    let after = by(json!(["code"]), true);
    let plan = database.plan(after.clone()).await;
    database.run(&insert("notes", &[json!({ "code": 7 }), json!({ "code": 7 })])).await;
    message(&database.apply(&plan, after).await.expect_err("two are equal"))
}

/// A user without any right in a new database.
async fn stranger() -> Config {
    let admin = empty().await;
    connect(&admin)
        .await
        .batch_execute("do $$ begin create role visitor login; exception when duplicate_object then null; end $$")
        .await
        .expect("a user");
    let mut config = admin;
    config.user("visitor");
    config
}

async fn schema_of_others() -> String {
    let admin = empty().await;
    let name = admin.get_dbname().expect("a name").to_owned();
    connect(&admin)
        .await
        .batch_execute(&format!(
            "create role builder_{name} login; grant create on database \"{name}\" to builder_{name}; create schema demo"
        ))
        .await
        .expect("a user");
    let mut config = admin;
    config.user(format!("builder_{name}"));
    let plan = plan(&config, "demo", &schema(notes(json!([]))), &PlanOptions::default()).await.expect("a plan");
    plan.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
