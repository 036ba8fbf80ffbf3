//! Each migration on a real database, and what becomes of runs that fail or are killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use convoke_local_postgres::testing::TestCluster;
use convoke_postgres::Config;
use tokio::runtime::Runtime;

use super::{ALL, Migration, migrate, pending};
use crate::SyncError;
use crate::connect::Session;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/migrations")
}

fn run<F: Future<Output = ()>>(test: F) {
    Runtime::new().expect("a runtime").block_on(test);
}

async fn empty() -> Config {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let cluster = TestCluster::shared().await.expect("a Postgres");
    let name = format!("migrations_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    cluster.create_database(&name).await.expect("a database")
}

async fn session(config: &Config) -> Session {
    Session::open(config).await.expect("a session")
}

/// The numbers that are recorded.
async fn recorded(session: &Session) -> Vec<i32> {
    let rows = session.query("select number from convoke.migrations order by number", &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn every_file_is_listed_by_its_number_and_has_a_test() {
    let mut files: Vec<String> = fs::read_dir(directory())
        .expect("the migrations")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".sql").map(str::to_owned))
        .collect();
    files.sort();
    let listed: Vec<&str> = ALL.iter().map(|migration| migration.file).collect();
    assert_eq!(files, listed, "`ALL` names each file of src/migrations");
    for (at, file) in listed.iter().enumerate() {
        assert!(file.starts_with(&format!("{:04}_", at + 1)), "{file} is number {}", at + 1);
        assert!(test_of(file, "after").is_some(), "src/migrations/tests/{file}.after.sql is missing");
    }
}

/// Who has landed a migration has databases that went through it.
#[test]
fn what_has_landed_is_never_changed() {
    let pinned = fs::read_to_string(directory().join("tests/digests")).expect("the digests");
    let now: Vec<String> = ALL.iter().map(|migration| format!("{} {}", migration.file, migration.digest())).collect();
    let pinned: Vec<&str> = pinned.lines().collect();
    assert_eq!(now, pinned, "change nothing that is in tests/digests: add a migration, and its line to tests/digests");
}

#[test]
fn a_migration_leaves_its_transaction_to_the_machinery() {
    for Migration { file, sql } in ALL {
        let ends = ["begin;", "start transaction", "commit", "rollback", "end;"];
        let line = sql.lines().find(|line| ends.iter().any(|end| line.to_lowercase().starts_with(end)));
        assert_eq!(line, None, "{file}");
    }
}

fn test_of(file: &str, when: &str) -> Option<String> {
    fs::read_to_string(directory().join(format!("tests/{file}.{when}.sql"))).ok()
}

/// `tests/NNNN_….before.sql` leaves what a host of the version before may have left, `tests/NNNN_….after.sql` raises what
/// is wrong behind the migration.
#[test]
fn each_migration_does_what_its_test_asks_for() {
    run(async {
        let session = session(&empty().await).await;
        for (at, migration) in ALL.iter().enumerate() {
            if let Some(before) = test_of(migration.file, "before") {
                session.run(&before).await.unwrap_or_else(|error| panic!("before {}: {error:?}", migration.file));
            }
            assert_eq!(migrate(&session, "postgres", &ALL[..=at]).await.expect(migration.file), 1);
            let after = test_of(migration.file, "after").expect("a test");
            session.run(&after).await.unwrap_or_else(|error| panic!("after {}: {error:?}", migration.file));
        }
        assert_eq!(migrate(&session, "postgres", ALL).await.expect("nothing to do"), 0);
    });
}

const MAKE: Migration = Migration { file: "0001_make", sql: "create table convoke.a (n int); -- no end" };
const ADD: Migration = Migration {
    file: "0002_add",
    sql: "insert into convoke.a values (1); select pg_advisory_xact_lock(7); insert into convoke.a values (2);",
};

#[test]
fn a_migration_that_fails_is_undone_and_those_before_it_stay() {
    run(async {
        let session = session(&empty().await).await;
        let wrong =
            Migration { file: "0002_add", sql: "insert into convoke.a values (1); insert into convoke.b values (1)" };
        let error = migrate(&session, "postgres", &[MAKE, wrong]).await.expect_err("there is no table `b`");
        assert!(matches!(error, SyncError::Migration { file: "0002_add", .. }), "{error:?}");
        assert_eq!(recorded(&session).await, [1]);
        let rows = session.query("select from convoke.a", &[]).await.expect("rows");
        assert_eq!(rows.len(), 0);
        assert_eq!(migrate(&session, "postgres", &[MAKE, ADD]).await.expect("mended"), 1);
        assert_eq!(recorded(&session).await, [1, 2]);
    });
}

#[test]
fn a_run_that_is_killed_within_a_migration_is_taken_up() {
    run(async {
        let config = empty().await;
        let (other, killed) = (session(&config).await, session(&config).await);
        other.run("select pg_advisory_lock(7)").await.expect("held");
        let waiting = "select pid from pg_locks where locktype = 'advisory' and objid = 7 and not granted \
                       and database = (select oid from pg_database where datname = current_database())";
        let kill = async {
            loop {
                if let Some(row) = other.query_opt(waiting, &[]).await.expect("asked") {
                    let pid: i32 = row.get(0);
                    return other.execute("select pg_terminate_backend($1)", &[&pid]).await.expect("killed");
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (result, _) = tokio::join!(migrate(&killed, "postgres", &[MAKE, ADD]), kill);
        result.expect_err("killed");
        assert_eq!(recorded(&other).await, [1]);
        other.run("select pg_advisory_unlock(7)").await.expect("given back");

        let again = session(&config).await;
        assert_eq!(migrate(&again, "postgres", &[MAKE, ADD]).await.expect("taken up"), 1);
        assert_eq!(recorded(&again).await, [1, 2]);
        let sum = again.query_one("select sum(n) from convoke.a", &[]).await.expect("a sum");
        assert_eq!(sum.get::<_, i64>(0), 3, "each row once");
    });
}

/// Calls of hosts that run hold what a migration changes: they go on, and the migration comes after them.
#[test]
fn a_migration_steps_aside_for_whoever_holds_its_table() {
    run(async {
        let config = empty().await;
        let (one, holder) = (session(&config).await, session(&config).await);
        migrate(&one, "postgres", &[MAKE]).await.expect("made");
        holder.run("begin").await.expect("begun");
        holder.run("insert into convoke.a values (9)").await.expect("held");
        let change = Migration { file: "0002_change", sql: "alter table convoke.a add column m int" };
        let list = [MAKE, change];
        let moved = migrate(&one, "postgres", &list);
        let end = async {
            tokio::time::sleep(Duration::from_millis(1_300)).await;
            holder.run("insert into convoke.a values (10)").await.expect("nobody is in the way");
            holder.run("commit").await.expect("committed");
        };
        let (moved, ()) = tokio::join!(moved, end);
        assert_eq!(moved.expect("moved"), 1);
    });
}

#[test]
fn a_database_that_went_elsewhere_is_refused() {
    run(async {
        let session = session(&empty().await).await;
        session.run("select pg_advisory_unlock_all()").await.expect("free");
        migrate(&session, "postgres", &[MAKE, ADD]).await.expect("moved");
        let error = pending(&session, &[MAKE]).await.expect_err("newer");
        assert!(matches!(error, SyncError::Newer { found: 2, known: 1, .. }), "{error:?}");
        for other in [Migration { file: "0002_add", sql: "select 2" }, Migration { file: "0002_other", ..ADD }] {
            let error = migrate(&session, "postgres", &[MAKE, other]).await.expect_err("another one");
            assert!(matches!(error, SyncError::OtherMigration { number: 2, .. }), "{error:?}");
        }
        session.run("delete from convoke.migrations where number = 1").await.expect("deleted");
        let error = migrate(&session, "postgres", &[MAKE, ADD]).await.expect_err("a gap");
        assert!(matches!(error, SyncError::MissingMigration { missing: "0001_make", later: 2 }), "{error:?}");
    });
}
