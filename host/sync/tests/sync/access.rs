//! What the project's role can do, and what it cannot.

use convoke_postgres::Config;
use convoke_sync::{PlanOptions, Progress, apply};
use convoke_sync::{Warning, bootstrap, plan};
use serde_json::json;
use tokio_postgres::Client;

use crate::support::{Database, connect, demo, empty, notes, options, run, schema};

async fn refused(client: &Client, sql: &str) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let code = error.code().map(tokio_postgres::error::SqlState::code).unwrap_or_default().to_owned();
    assert_eq!(code, "42501", "{sql}: {error:?}");
}

#[test]
fn the_role_reads_and_writes_documents_and_changes_no_shape() {
    run(async {
        let database = Database::with(demo()).await;
        assert_eq!(database.provisioned.warnings, []);
        assert!(database.provisioned.role.as_deref().is_some_and(|role| role.starts_with("convoke_demo")));
        let app = connect(&database.provisioned.app).await;
        app.batch_execute(
            "insert into demo.messages (data) values ('{\"channel\": \"c\", \"body\": \"b\"}'); \
             update demo.messages set data = data || '{\"body\": \"c\"}'; \
             select convoke.id('demo.messages', _id), convoke.key(data) from demo.messages; \
             delete from demo.messages",
        )
        .await
        .expect("its own work");
        for sql in [
            "create table demo.mine (id int)",
            "create table public.mine (id int)",
            "create temporary table mine (id int)",
            "create schema mine",
            "create view demo.mine as select 1",
            "create function demo.mine() returns int language sql as 'select 1'",
            "create type demo.mine as (a int)",
            "create sequence demo.mine",
            "alter table demo.messages add column mine int",
            "alter table demo.messages disable trigger all",
            "create index mine on demo.messages (_id)",
            "create trigger mine before insert on demo.messages execute function convoke.now_ms()",
            "drop table demo.messages",
            "truncate demo.messages",
            "drop schema demo",
            "comment on table demo.messages is 'mine'",
            "create role mine",
            "create database mine",
            "create publication mine for all tables",
            "select * from convoke.keys",
            "select * from convoke.tables",
            "select * from convoke.sync_log",
            "select * from convoke.objects",
            "update convoke.projects set role = 'postgres'",
            "create table convoke.mine (id int)",
            "set role postgres",
            "set session authorization postgres",
            "grant select on demo.messages to public",
            "copy demo.messages to program 'true'",
            "select pg_read_file('/etc/passwd')",
            "alter system set jit = off",
        ] {
            // A statement in a text of its own: `set role` must not carry over.
            match app.batch_execute(sql).await {
                Err(error) => {
                    let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                    assert!(["42501", "42P17"].contains(&code.as_str()), "{sql}: {error:?}");
                }
                // A grant of what one cannot grant is a warning only.
                Ok(()) => assert!(sql.starts_with("grant"), "{sql} was allowed"),
            }
        }
        assert_eq!(
            database.value("select count(*) from information_schema.role_table_grants where grantee = 'PUBLIC' and table_schema = 'demo'").await,
            "0"
        );
    });
}

/// A second project in the same database.
async fn second(admin: &Config) -> Config {
    let provisioned = bootstrap(admin, "other").await.expect("provisioned");
    let schema = schema(demo());
    let plan = plan(admin, "other", &schema, &PlanOptions::default()).await.expect("a plan");
    apply(admin, &plan, &schema, &options(), &mut |_: Progress<'_>| {}).await.expect("applied");
    provisioned.app
}

#[test]
fn no_project_reaches_another() {
    run(async {
        let database = Database::with(demo()).await;
        let other = connect(&second(&database.admin).await).await;
        other
            .batch_execute("insert into other.messages (data) values ('{\"channel\": \"secret\", \"body\": \"b\"}')")
            .await
            .expect("its own");
        let app = connect(&database.provisioned.app).await;
        for sql in [
            "select * from other.messages",
            "insert into other.messages (data) values ('{}')",
            "update other.messages set data = '{}'",
            "delete from other.messages",
            "truncate other.messages",
            "do $$ begin lock table other.messages; end $$",
            "copy other.messages to stdout",
            "select 'other.messages'::regclass",
            "do $$ begin perform * from other.messages; end $$",
            "create view demo.spy as select * from other.messages",
            "explain analyze select * from other.messages",
            "set role convoke_other",
        ] {
            refused(&app, sql).await;
            app.batch_execute("reset role").await.expect("reset");
            refused(&app, sql).await;
        }
        let query = "select convoke.id((select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                     where n.nspname = 'other' and c.relname = 'messages'), gen_random_uuid())";
        let id: Option<String> = app.query_one(query, &[]).await.expect("asked").get(0);
        assert_eq!(id, None, "the registry answers about one's own tables only");
        let seen: i64 =
            app.query_one("select count(*) from pg_stats where schemaname = 'other'", &[]).await.expect("asked").get(0);
        assert_eq!(seen, 0);
    });
}

#[test]
fn the_role_has_the_functions_that_are_for_it() {
    run(async {
        let database = Database::with(demo()).await;
        let app = connect(&database.provisioned.app).await;
        refused(&app, "select convoke.count_from('another system')").await;
        // As a database that gives nothing to everybody has it when a migration makes a function.
        let take = "revoke execute on all functions in schema convoke from public; \
                    grant execute on function convoke.count_from(text) to";
        let role = database.provisioned.role.as_ref().expect("a role");
        let admin = connect(&database.admin).await;
        let others = format!("revoke execute on all functions in schema convoke from {role}; {take} {role}");
        admin.batch_execute(&others).await.expect("other grants");
        refused(&app, "select convoke.key('1')").await;
        bootstrap(&database.admin, "demo").await.expect("provisioned again");
        app.batch_execute("select convoke.key('1'); select * from convoke.find_receipt('demo', 'a', 'b')")
            .await
            .expect("functions of each migration");
        refused(&app, "select convoke.count_from('another system')").await;
    });
}

#[test]
fn every_host_derives_the_same_password_and_it_opens_the_door() {
    run(async {
        let database = Database::new().await;
        let again = bootstrap(&database.admin, "demo").await.expect("provisioned");
        assert_eq!(again.app.get_password(), database.provisioned.app.get_password());
        assert_eq!(again.role, database.provisioned.role);
        assert_eq!(database.value("select count(*) from convoke.keys where length(key) = 32").await, "2");
        // The server of the tests trusts everybody, so what it keeps is compared.
        let role = again.role.expect("a role");
        let verifier = database.value(&format!("select rolpassword from pg_authid where rolname = '{role}'")).await;
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
        let logs = connect(&again.app).await;
        let user: String = logs.query_one("select session_user::text", &[]).await.expect("asked").get(0);
        assert_eq!(user, role);
    });
}

#[test]
fn what_was_given_to_the_role_by_hand_is_taken_back() {
    run(async {
        let database = Database::with(demo()).await;
        let role = database.provisioned.role.clone().expect("a role");
        database.run(&format!("alter role \"{role}\" createdb superuser; grant pg_read_all_data to \"{role}\"")).await;
        let found = convoke_sync::inspect(&database.admin, "demo").await.expect("looked at");
        let faults = ["is a superuser", "may make databases", "is a member of another role"];
        assert!(faults.iter().all(|fault| found.role_faults.iter().any(|found| found == fault)), "{found:?}");
        bootstrap(&database.admin, "demo").await.expect("provisioned");
        let found = convoke_sync::inspect(&database.admin, "demo").await.expect("looked at");
        assert!(found.synced && found.role_faults.is_empty() && found.drift.is_empty(), "{found:?}");
        let app = connect(&database.provisioned.app).await;
        refused(&app, "select * from convoke.keys").await;
        refused(&app, "create database mine").await;
    });
}

#[test]
fn two_databases_of_a_server_have_roles_of_their_own() {
    run(async {
        let (one, two) = (Database::with(demo()).await, Database::with(demo()).await);
        assert_ne!(one.provisioned.role, two.provisioned.role);
        let mut across = two.provisioned.app.clone();
        across.dbname(one.admin.get_dbname().expect("a name"));
        let across = connect(&across).await;
        refused(&across, "select * from demo.messages").await;
        for database in [&one, &two] {
            let app = connect(&database.provisioned.app).await;
            app.batch_execute("select convoke.remember('demo', gen_random_uuid(), 1, 'done')").await.expect("its own");
            refused(&app, "select convoke.remember('other', gen_random_uuid(), 1, 'done')").await;
            refused(&app, "select * from convoke.requests").await;
            refused(&app, "select * from convoke.receipts").await;
        }
    });
}

#[test]
fn a_user_who_may_not_make_roles_is_told() {
    run(async {
        let admin = empty().await;
        let name = admin.get_dbname().expect("a name").to_owned();
        connect(&admin)
            .await
            .batch_execute(&format!("create role owner_{name} login; alter database \"{name}\" owner to owner_{name}"))
            .await
            .expect("an owner");
        let mut owner = admin.clone();
        owner.user(format!("owner_{name}"));
        let provisioned = bootstrap(&owner, "managed").await.expect("provisioned");
        assert!(
            matches!(provisioned.warnings.as_slice(), [Warning::MayNotCreateRoles { .. }]),
            "{:?}",
            provisioned.warnings
        );
        assert_eq!((provisioned.role.as_deref(), provisioned.app.get_user()), (None, owner.get_user()));
        let schema = schema(demo());
        let plan = plan(&owner, "managed", &schema, &PlanOptions::default()).await.expect("a plan");
        assert!(plan.steps.iter().all(|step| !step.sql.starts_with("grant")), "{plan}");
        apply(&owner, &plan, &schema, &options(), &mut |_: Progress<'_>| {}).await.expect("applied");
        connect(&provisioned.app).await.batch_execute("select * from managed.messages").await.expect("read");
        assert!(convoke_sync::current(&owner, "managed", &schema).await.expect("asked").is_some());
    });
}

#[test]
fn an_unmanaged_table_is_opened_and_not_altered() {
    run(async {
        let database = Database::with(notes(json!([]))).await;
        database.run("create table demo.invoices (id bigserial primary key, total numeric)").await;
        let tables = json!([{ "name": "notes" }, { "name": "invoices", "unmanaged": { "key": "id" } }]);
        let before = database
            .value("select string_agg(attname, ' ') from pg_attribute where attrelid = 'demo.invoices'::regclass")
            .await;
        database.sync(tables.clone()).await.expect("synced");
        let after = database
            .value("select string_agg(attname, ' ') from pg_attribute where attrelid = 'demo.invoices'::regclass")
            .await;
        assert_eq!(before, after);
        let app = connect(&database.provisioned.app).await;
        app.batch_execute("insert into demo.invoices (total) values (3)").await.expect("written");
        database.run("alter table demo.invoices add column note text").await;
        let plan = database.plan(tables).await;
        assert!(plan.is_empty() && plan.drift.is_empty(), "{plan}");
        // No longer declared, it is nobody's orphan.
        let plan = database.plan(json!([{ "name": "notes" }])).await;
        assert!(plan.is_empty() && plan.orphans.is_empty(), "{plan}");
    });
}

#[test]
fn the_publication_lists_the_tables() {
    run(async {
        let database = Database::with(demo()).await;
        let listed = "select string_agg(tablename, ' ' order by tablename) from pg_publication_tables where pubname = 'convoke_demo'";
        assert_eq!(database.value(listed).await, "messages users");
        let mut more = demo();
        more.as_array_mut().expect("tables").push(json!({ "name": "notes" }));
        database.sync(more).await.expect("synced");
        assert_eq!(database.value(listed).await, "messages notes users");
    });
}
