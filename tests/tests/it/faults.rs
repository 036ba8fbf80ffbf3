//! The connection to Postgres is cut, or stands still, at every step of a commit: whatever a client is told is what happened.
//!
//! A proxy stands between host and Postgres and knows the protocol's messages. From the message on that begins a mutation's
//! transaction it counts, and strikes once: after so many messages of the host, which Postgres gets, or after so many answers,
//! which the host gets. The steps are taken one after another until the transaction has no more of them.

mod proxy;

use std::time::Duration;

use convoke_local_postgres::testing::TestCluster;
use convoke_model::Limits;
use proxy::{Fault, Point, Proxy};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::harness::{TestHost, run};
use crate::socket_client::{SocketClient, Told};

/// Long enough for a call that nothing happens to.
const CALL_MS_MAX: u64 = 700;
/// More steps than a transaction has.
const STEPS_MAX: usize = 100;

struct Scene {
    host: TestHost,
    proxy: Proxy,
    psql: Client,
}

impl Scene {
    async fn set(name: &str) -> Self {
        let cluster = TestCluster::shared().await.expect("a Postgres");
        let postgres = cluster.create_database(name).await.expect("a database");
        let proxy = Proxy::start(&postgres);
        let host = TestHost::on(proxy.config(), &["histories"], |config| {
            config.limits = Limits { call_ms_max: CALL_MS_MAX, ..Limits::default() };
            config.connections_max = 2;
        })
        .await;
        let (psql, connection) = postgres.connect().await.expect("a connection");
        tokio::spawn(connection);
        Self { host, proxy, psql }
    }

    /// How often the mutation has happened, once nothing of it is on its way any more.
    async fn count(&self, name: &str) -> i64 {
        self.proxy.until_quiet().await;
        let count = "select count(*) from demo.lists where data->>'name' = $1";
        self.psql.query_one(count, &[&name]).await.expect("a count").get(0)
    }
}

/// Each step from both sides, until one is not reached.
async fn at_every_step(name: &str, fault: Fault, mut check: impl AsyncFnMut(&Scene, &str)) {
    let scene = Scene::set(name).await;
    // What is prepared once is prepared.
    for function in ["mark", "mark_once_read"] {
        let _ = scene.host.mutation(&format!("histories:{function}"), json!({ "name": "first" })).await;
    }
    for side in [Point::AfterSent as fn(usize) -> Point, Point::AfterAnswered] {
        let mut struck = 0;
        for step in 0..STEPS_MAX {
            scene.proxy.arm(side(step), fault);
            let mark = format!("{:?}", side(step));
            check(&scene, &mark).await;
            if !scene.proxy.disarm() {
                break;
            }
            struck += 1;
        }
        assert!((5..STEPS_MAX - 1).contains(&struck), "{struck} steps");
    }
}

/// A call without a key: what its answer says is so.
async fn without_key(scene: &Scene, function: &str, mark: &str) {
    let answer = scene.host.mutation(&format!("histories:{function}"), json!({ "name": mark })).await;
    let count = scene.count(mark).await;
    let outcome = &answer.body["error"]["details"]["outcome"];
    match (answer.status, outcome.as_str()) {
        (200, _) => assert_eq!(count, 1, "{mark}: {answer:?}"),
        (_, Some("unknown")) => {
            assert_eq!((answer.status, answer.code()), (504, "UNKNOWN_OUTCOME"), "{mark}: {answer:?}");
            assert!(count <= 1, "{mark}: {count} times");
        }
        (_, Some("undone" | "not_begun")) => assert_eq!(count, 0, "{mark}: {answer:?}"),
        _ => panic!("{mark}: {answer:?}"),
    }
}

/// A call of a session, which is sent again until it is answered: it happens once.
async fn with_key(scene: &Scene, function: &str, mark: &str) {
    let mut client = SocketClient::new(&scene.host);
    let (path, args) = (format!("histories:{function}"), json!({ "name": mark }));
    let mut told = client.mutate_once(&path, &args).await;
    let mut times = 0;
    while told != Told::Value(Value::Null) {
        if let Told::Error(words) = &told {
            assert!(words.contains("not known"), "{mark}: {words}");
        }
        times += 1;
        assert!(times < 50, "{mark}: {told:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.disconnect();
        told = client.again(&path, &args).await;
    }
    assert_eq!(scene.count(mark).await, 1, "{mark}");
}

#[test]
fn a_cut_without_a_key() {
    run(at_every_step("faults_cut", Fault::Cut, async |scene, mark| {
        without_key(scene, "mark", mark).await;
    }));
}

#[test]
fn a_cut_behind_a_reading() {
    run(at_every_step("faults_cut_read", Fault::Cut, async |scene, mark| {
        without_key(scene, "mark_once_read", mark).await;
    }));
}

#[test]
fn a_cut_with_a_key() {
    run(at_every_step("faults_cut_key", Fault::Cut, async |scene, mark| {
        with_key(scene, "mark", mark).await;
    }));
}

#[test]
fn a_cut_behind_a_reading_with_a_key() {
    run(at_every_step("faults_cut_read_key", Fault::Cut, async |scene, mark| {
        with_key(scene, "mark_once_read", mark).await;
    }));
}

#[test]
fn a_stall_without_a_key() {
    run(at_every_step("faults_stall", Fault::Stall, async |scene, mark| {
        without_key(scene, "mark", mark).await;
    }));
}

#[test]
fn a_stall_with_a_key() {
    run(at_every_step("faults_stall_key", Fault::Stall, async |scene, mark| {
        with_key(scene, "mark", mark).await;
    }));
}

/// How many lists there are.
async fn lists(host: &TestHost) -> i64 {
    host.psql().await.query_one("select count(*) from demo.lists", &[]).await.expect("a count").get(0)
}

#[test]
fn a_key_is_for_one_call() {
    run(async {
        let host = TestHost::start(&["histories"]).await;
        let mut client = SocketClient::new(&host);
        let args = json!({ "name": "a" });
        assert_eq!(client.mutate_once("histories:mark", &args).await, Told::Value(Value::Null));
        client.disconnect();
        assert_eq!(client.again("histories:mark", &args).await, Told::Value(Value::Null), "the same, once");
        client.disconnect();
        let Told::Error(words) = client.again("histories:mark", &json!({ "name": "b" })).await else {
            panic!("another call under the key of the first");
        };
        assert!(words.contains("this key was used for another call"), "{words}");
        let names = "select array_agg(data->>'name') from demo.lists";
        let names: Vec<String> = host.psql().await.query_one(names, &[]).await.expect("names").get(0);
        assert_eq!(names, ["a"]);
    });
}

#[test]
fn a_result_that_is_too_large_is_not_kept() {
    run(async {
        let host = TestHost::start(&["histories"]).await;
        let mut client = SocketClient::new(&host);
        let args = json!({ "name": "a", "bytes": 70_000 });
        let Told::Value(Value::String(text)) = client.mutate_once("histories:mark_largely", &args).await else {
            panic!("a text");
        };
        assert_eq!(text.len(), 70_000);
        client.disconnect();
        let Told::Error(words) = client.again("histories:mark_largely", &args).await else { panic!("it is not kept") };
        assert!(words.contains("was done when it was sent before"), "{words}");
        assert_eq!(lists(&host).await, 1);
    });
}

/// Longer than a call may compute in [`Scene`].
const LONG: u64 = 20_000_000_000;
/// Some hundred milliseconds.
const A_WHILE: u64 = 300_000_000;

#[test]
fn a_function_that_is_too_slow_fails_the_same_way_when_it_is_sent_again() {
    run(async {
        let scene = Scene::set("it_slow_again").await;
        let mut client = SocketClient::new(&scene.host);
        let args = json!({ "name": "a", "rounds": LONG });
        let Told::Error(first) = client.mutate_once("histories:spin_then_mark", &args).await else {
            panic!("it ended")
        };
        client.disconnect();
        let Told::Error(again) = client.again("histories:spin_then_mark", &args).await else {
            panic!("no answer to a mutation whose own time was over");
        };
        assert!(first.contains("longer than it may") && again.contains("longer than it may"), "{first} {again}");
    });
}

#[test]
fn a_client_that_counts_its_connections_wrongly_is_answered() {
    run(async {
        let host = TestHost::start(&["histories"]).await;
        let mut client = SocketClient::new(&host);
        let args = json!({ "name": "a" });
        assert_eq!(client.mutate_once("histories:mark", &args).await, Told::Value(Value::Null));
        client.disconnect();
        client.count_anew();
        assert_eq!(client.again("histories:mark", &args).await, Told::Value(Value::Null));
        assert_eq!(lists(&host).await, 1);
    });
}

/// Ends the sessions that a mutation has open, once there is one.
async fn end_sessions(psql: &Client) {
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where datname = current_database() and state = 'idle in transaction'";
    while psql.query_one(end, &[]).await.expect("a count").get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_session_that_ends_before_the_commit_costs_a_run() {
    run(async {
        let host = TestHost::start(&["histories"]).await;
        let psql = host.psql().await;
        let claim = host.mutation("histories:claim", json!({ "name": "a", "rounds": A_WHILE }));
        let (answer, ()) = tokio::join!(claim, end_sessions(&psql));
        assert_eq!((answer.status, answer.data()), (200, &json!(true)));
    });
}

#[test]
fn a_unique_value_that_came_behind_the_look_is_looked_at() {
    run(async {
        let host = TestHost::start(&["histories"]).await;
        let psql = host.psql().await;
        let mutation = host.mutation("histories:claim", json!({ "name": "a", "rounds": A_WHILE }));
        let insert = async {
            let looking = "select count(*) from pg_stat_activity \
                           where datname = current_database() and state = 'idle in transaction'";
            while psql.query_one(looking, &[]).await.expect("a count").get::<_, i64>(0) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let insert = "insert into demo.claims (data) values ('{\"name\":\"a\"}')";
            psql.batch_execute(insert).await.expect("another one's claim");
        };
        let (answer, ()) = tokio::join!(mutation, insert);
        assert_eq!((answer.status, answer.data()), (200, &json!(false)), "{:?}", answer.body);
        // Who has not looked is told.
        let twice = host.mutation("histories:claim_blindly", json!({ "name": "a" })).await;
        assert_eq!((twice.status, twice.code()), (409, "CONFLICT"));
    });
}
