//! What a host says of the schema `convoke` that it finds.

use convoke_postgres::Config;
use convoke_sync::{PlanOptions, ReadOnly, SyncError, bootstrap, plan};
use insta::assert_snapshot;

use crate::failures::message;
use crate::support::{Database, connect, demo, empty, run, schema};

/// What made the schema `convoke` before there were migrations.
const BEFORE_MIGRATIONS: &str = include_str!("../../src/migrations/0001_system_schema.sql");

#[test]
fn a_database_from_before_migrations_is_taken_over_as_it_is() {
    run(async {
        let admin = empty().await;
        let psql = connect(&admin).await;
        psql.batch_execute(BEFORE_MIGRATIONS).await.expect("the schema");
        psql.batch_execute(
            "comment on schema convoke is 'Convoke''s own; 0123456789abcdef'; \
             insert into convoke.tables (project, name) values ('demo', 'messages'), ('other', 'notes'); \
             insert into convoke.requests (project, session, request, result) values ('demo', gen_random_uuid(), 1, '7'); \
             insert into convoke.objects values ('demo', 'messages', 'table', 'messages', '', true, true); \
             insert into convoke.sync_log (project, actor, host, tool, base, target, hash, plan) \
               values ('demo', 'a', 'h', 't', 'b', 't', 'h', '{}')",
        )
        .await
        .expect("data");
        let before = content(&psql).await;
        bootstrap(&admin, "demo").await.expect("taken over");
        assert_eq!(content(&psql).await, before);
        let recorded =
            psql.query_one("select min(number), count(*) from convoke.migrations", &[]).await.expect("a row");
        assert_eq!(recorded.get::<_, i32>(0), 1);

        let all: i64 = recorded.get(1);
        bootstrap(&admin, "demo").await.expect("nothing to do");
        let recorded = psql.query_one("select count(*) from convoke.migrations", &[]).await.expect("a row");
        assert_eq!(recorded.get::<_, i64>(0), all);
    });
}

async fn content(psql: &tokio_postgres::Client) -> Vec<String> {
    let tables = ["tables", "keys", "objects", "sync_log", "incarnation"];
    let mut content = Vec::new();
    for table in tables {
        let rows = psql.query(&format!("select t::text from convoke.{table} t order by 1"), &[]).await.expect(table);
        content.extend(rows.iter().map(|row| format!("{table}: {}", row.get::<_, String>(0))));
    }
    let requests =
        psql.query("select project || request || result from convoke.requests", &[]).await.expect("requests");
    content.extend(requests.iter().map(|row| row.get(0)));
    content
}

#[test]
fn hosts_that_start_at_once_all_find_the_schema_made() {
    run(async {
        let admin = empty().await;
        let projects = ["demo", "demo", "other", "third", "demo", "other"];
        let hosts = projects.map(|project| {
            let admin = admin.clone();
            tokio::spawn(async move { bootstrap(&admin, project).await })
        });
        for host in hosts {
            host.await.expect("no panic").expect("provisioned");
        }
        let psql = connect(&admin).await;
        let row = psql.query_one("select count(*), max(number) from convoke.migrations", &[]).await.expect("a row");
        assert_eq!(row.get::<_, i64>(0), i64::from(row.get::<_, i32>(1)));
    });
}

#[test]
fn a_newer_schema_is_refused_by_all_that_would_touch_it() {
    run(async {
        let database = Database::with(demo()).await;
        let sql = "insert into convoke.migrations values (9001, '9001_more', '', now(), 'convoke 9.0.0')";
        database.run(sql).await;
        let error = bootstrap(&database.admin, "demo").await.expect_err("newer");
        let known = database.value("select max(number) from convoke.migrations where number < 9001").await;
        assert_snapshot!(message(&error).replace(&format!("knows {known}\n"), "knows [KNOWN]\n"), @r"
        the schema `convoke` of this database is newer than this program: it has migration 9001, applied by convoke 9.0.0, and this program knows [KNOWN]
        hint: use the program that moved it on, or a newer one
        ");
        let planned = plan(&database.admin, "demo", &schema(demo()), &PlanOptions::default()).await;
        assert!(matches!(planned, Err(SyncError::Newer { .. })), "{planned:?}");
    });
}

#[test]
fn a_migration_with_other_content_is_refused() {
    run(async {
        let database = Database::with(demo()).await;
        database
            .run("update convoke.migrations set digest = 'another', applied_by = 'convoke 0.0.9' where number = 1")
            .await;
        let error = bootstrap(&database.admin, "demo").await.expect_err("another one");
        assert_snapshot!(message(&error), @r"
        the schema `convoke` of this database went another way than this program's: migration 1 is `0001_system_schema`, applied by convoke 0.0.9, and this program's is `0001_system_schema` with other content
        hint: use the program that applied it; a migration is never changed, so this one or that one was not released
        ");
    });
}

#[test]
fn a_database_that_lacks_migrations_is_planned_for_all_the_same() {
    run(async {
        let database = Database::with(demo()).await;
        database.run("drop table convoke.migrations").await;
        let plan = database.plan(demo()).await;
        assert!(plan.is_empty(), "{plan}");
        assert!(plan.notes.iter().any(|note| note.contains("0001_system_schema")), "{:?}", plan.notes);
    });
}

/// Said before anything is tried, by all that write.
#[test]
fn a_database_that_takes_no_writes_is_called_read_only() {
    run(async {
        let database = Database::with(demo()).await;
        let name = database.admin.get_dbname().expect("a name");
        let plan = database.plan(demo()).await;
        database.run(&format!("alter database {name} set default_transaction_read_only = on")).await;
        let error = bootstrap(&database.admin, "demo").await.expect_err("read-only");
        assert!(matches!(error, SyncError::ReadOnly(ReadOnly::Setting)), "{error:?}");
        assert_snapshot!(message(&error), @r"
        the database is read-only: `default_transaction_read_only` is on
        hint: set it to `off` for the database, the user or the server; some providers turn it on while the disk is full
        ");
        let error = database.apply(&plan, demo()).await.expect_err("read-only");
        assert!(matches!(error, SyncError::ReadOnly(ReadOnly::Setting)), "{error:?}");
        // To look is allowed.
        database.plan(demo()).await;

        let mut overridden: Config = database.admin.clone();
        overridden.options("-c default_transaction_read_only=off");
        bootstrap(&overridden, "demo").await.expect("as the user says");
    });
}
