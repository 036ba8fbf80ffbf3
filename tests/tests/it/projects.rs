//! Two projects in one process, on one database.

use std::sync::Arc;
use std::time::Duration;

use convoke_local_postgres::testing::TestCluster;
use convoke_model::{Limits, chain};
use convoke_postgres::Config;
use convoke_server::{
    AppliedBy, CacheDirs, LiveLimits, Process, ProcessConfig, ProjectConfig, STALL_MAX, ServerLimits,
};
use serde_json::{Value, json};

use crate::harness::{TestHost, run};
use crate::live::{Subscriber, bodies, metric, send};

/// A process, and two projects in it.
struct Two {
    process: Process,
    postgres: Config,
    one: TestHost,
    other: TestHost,
}

fn config(postgres: &Config, name: &str) -> ProjectConfig {
    ProjectConfig {
        postgres: postgres.clone(),
        project: name.to_owned(),
        applied_by: AppliedBy::default(),
        limits: Limits { instances_max: 8, ..Limits::default() },
        connections_max: 4,
        stall_max: STALL_MAX,
        server_limits: ServerLimits::default(),
        live_limits: LiveLimits::default(),
        site_dir: None,
        outbound_allow: Vec::new(),
        sql: true,
    }
}

impl Two {
    async fn start(database: &str, change: impl FnOnce(&mut ProjectConfig)) -> Self {
        let cluster = TestCluster::shared().await.expect("a Postgres");
        let postgres = cluster.create_database(database).await.expect("a database");
        let cache = tempfile::tempdir().expect("a directory");
        let process = Process::start(ProcessConfig {
            cache: CacheDirs::private(cache.path().join("cache")),
            limits: Limits { instances_max: 16, ..Limits::default() },
            connections_max: 8,
            projects_max: 2,
        });
        let process = process.expect("a process");
        let mut changed = config(&postgres, "one");
        change(&mut changed);
        let one = process.open(changed).await.expect("a project");
        let other = process.open(config(&postgres, "other")).await.expect("a project");
        let one = TestHost::listen(one, postgres.clone(), cache).await;
        let other = TestHost::listen(other, postgres.clone(), tempfile::tempdir().expect("a directory")).await;
        for host in [&one, &other] {
            host.deploy(&["messages"]).await.expect("a deployment");
            host.until_streaming(true).await;
        }
        Self { process, postgres, one, other }
    }

    /// The slots of the database; while a project joins there are two.
    async fn slots(&self) -> i64 {
        let count = "select count(*) from pg_replication_slots where database = current_database()";
        self.one.psql().await.query_one(count, &[]).await.expect("a count").get(0)
    }
}

async fn subscribe(host: &TestHost) -> Subscriber {
    let mut subscriber = Subscriber::open(host, "messages:list", &json!({ "channel": "c" }), None).await;
    subscriber.next().await;
    subscriber
}

async fn evaluations(host: &TestHost) -> u64 {
    metric(host, "convoke_evaluations_total{function=\"messages:list\"}").await
}

/// The next event that shows this many messages.
async fn shows(subscriber: &mut Subscriber, count: usize) {
    while bodies(&subscriber.next().await.data).len() != count {}
}

#[test]
fn one_slot_serves_both_and_each_hears_of_its_own() {
    run(async {
        let two = Two::start("it_two", |_| {}).await;
        let until_one = async {
            while two.slots().await != 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), until_one).await.expect("one slot");
        let (mut one, mut other) = (subscribe(&two.one).await, subscribe(&two.other).await);
        let (first, second) = (evaluations(&two.one).await, evaluations(&two.other).await);
        for n in 1..=10 {
            send(&two.one, "c", &n.to_string()).await;
            shows(&mut one, n).await;
        }
        assert!(evaluations(&two.one).await > first);
        assert_eq!(evaluations(&two.other).await, second, "nothing that it read was written");
        send(&two.other, "c", "here").await;
        assert_eq!(bodies(&other.next().await.data), ["here"]);
        assert!(one.is_silent(Duration::from_millis(200)).await);
        // By hand, to both in one transaction.
        let row = r#"{"channel":"c","author":"b","body":"both"}"#;
        let statement = format!(
            "begin; insert into one.messages (data) values ('{row}'); insert into other.messages (data) values ('{row}'); commit"
        );
        two.one.psql().await.batch_execute(&statement).await.expect("rows");
        shows(&mut one, 11).await;
        shows(&mut other, 2).await;
    });
}

#[test]
fn limits_and_deploys_are_each_projects_own() {
    run(async {
        let two = Two::start("it_two_limits", |config| config.limits.result_bytes_max = 2_000).await;
        for n in 0..20 {
            send(&two.one, "c", &n.to_string()).await;
            send(&two.other, "c", &n.to_string()).await;
        }
        let args: Value = json!({ "channel": "c" });
        assert_eq!(two.one.query("messages:list", args.clone()).await.code(), "RESULT_LIMIT");
        assert_eq!(two.other.query("messages:list", args.clone()).await.data().as_array().map(Vec::len), Some(20));
        let before = evaluations(&two.other).await;
        let _other = subscribe(&two.other).await;
        two.one.deploy(&["accounts"]).await.expect("a deployment");
        assert_eq!(two.one.query("messages:list", args.clone()).await.code(), "NOT_FOUND");
        two.other.query("messages:list", args).await.data();
        assert!(evaluations(&two.other).await <= before + 1, "the deploy of one runs nothing of the other");
    });
}

#[test]
fn a_publication_that_is_dropped_harms_no_other_project() {
    run(async {
        let two = Two::start("it_two_dropped", |_| {}).await;
        let mut other = subscribe(&two.other).await;
        two.one.psql().await.batch_execute("drop publication convoke_one").await.expect("dropped");
        send(&two.other, "c", "1").await;
        shows(&mut other, 1).await;
        two.one.until_streaming(false).await;
        for n in 2..=5 {
            send(&two.other, "c", &n.to_string()).await;
            shows(&mut other, n).await;
        }
        // Its next deploy makes it again.
        two.one.deploy(&["messages"]).await.expect("a deployment");
        two.one.until_streaming(true).await;
        let mut one = subscribe(&two.one).await;
        send(&two.one, "c", "1").await;
        shows(&mut one, 1).await;
    });
}

#[test]
fn what_is_shared_out_is_no_more_than_there_is() {
    run(async {
        let two = Two::start("it_two_shares", |_| {}).await;
        let third = two.process.open(config(&two.postgres, "third")).await.expect_err("no room");
        assert!(chain(&third).contains("made for 2 projects"), "{}", chain(&third));
        let Two { process, postgres, one, other } = two;
        other.host.close();
        let gone = Arc::downgrade(&other.host);
        drop(other);
        let until_gone = async {
            while gone.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), until_gone).await.expect("gone");
        let greedy = ProjectConfig { connections_max: 5, ..config(&postgres, "third") };
        let refused = process.open(greedy).await.expect_err("too many");
        assert!(chain(&refused).contains("5 connections are wanted"), "{}", chain(&refused));
        drop(one);
    });
}
