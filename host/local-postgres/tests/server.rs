//! Real servers, real signals. Everything is below a directory of its own, and only what a test started is killed.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests may do what tests may")]

use std::{
    env,
    fs::{self, Permissions},
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use convoke_local_postgres::{
    Database, Durability, Error, LocalPostgres, Options, Search, Source, resolve, testing::TestCluster,
};
use convoke_postgres::Config;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;
use tokio_postgres::Client;

/// A directory that the unprivileged server of a root parent may pass.
fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    dir
}

fn fast(dir: &TempDir) -> Options {
    Options { durability: Durability::Fast, ..Options::new(dir.path().join("postgres")) }
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect().await.unwrap();
    tokio::spawn(connection);
    client
}

async fn value(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Leaves a row that the next start must find.
async fn leave_mark(server: &LocalPostgres) {
    connect(&server.config()).await.batch_execute("CREATE TABLE mark AS SELECT 'kept'::text AS mark").await.unwrap();
}

async fn assert_mark(server: &LocalPostgres) {
    assert_eq!(value(&connect(&server.config()).await, "SELECT mark FROM mark").await, "kept");
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// Whether the process runs: one that has ended and was not reaped does not.
fn runs(pid: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8(output.stdout).unwrap();
    !state.trim().is_empty() && !state.starts_with('Z')
}

#[tokio::test]
async fn fresh_start_then_restart_keeps_data() {
    let dir = open_dir();
    let options = Options::new(dir.path().join("postgres"));
    let server = LocalPostgres::start(&options).await.unwrap();
    println!("{}: first start {:?}", server.source(), server.elapsed());
    assert!(server.is_new());
    assert!(server.source().version().major() >= 15);
    let client = connect(&server.config()).await;
    assert_eq!(value(&client, "SHOW wal_level").await, "logical");
    assert_eq!(value(&client, "SHOW fsync").await, "on");
    assert_eq!(value(&client, "SHOW listen_addresses").await, "");
    assert_eq!(value(&client, "SHOW server_encoding").await, "UTF8");
    client
        .batch_execute(
            "SELECT pg_create_logical_replication_slot('probe', 'pgoutput'); SELECT pg_drop_replication_slot('probe')",
        )
        .await
        .unwrap();
    leave_mark(&server).await;
    let pid = server.pid();
    let start = Instant::now();
    server.stop().await;
    println!("stop {:?}", start.elapsed());
    assert!(!runs(pid));

    let server = LocalPostgres::start(&options).await.unwrap();
    println!("later start {:?}", server.elapsed());
    assert!(!server.is_new());
    assert_mark(&server).await;
    let url: Config = server.connection_string().parse().unwrap();
    assert_mark_through(&url).await;
    // By dropping, too.
    let pid = server.pid();
    drop(server);
    assert!(!runs(pid));
}

async fn assert_mark_through(config: &Config) {
    assert_eq!(value(&connect(config).await, "SELECT mark FROM mark").await, "kept");
}

#[tokio::test]
async fn unsynced_marker_goes_away() {
    let dir = open_dir();
    let options = Options::new(dir.path().join("postgres"));
    let server = LocalPostgres::start(&options).await.unwrap();
    let marker = options.data_root.join("unsynced");
    for _ in 0..600 {
        if !marker.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!marker.exists());
    server.stop().await;
}

#[tokio::test]
async fn killed_server_starts_again_with_its_data() {
    let dir = open_dir();
    let server = LocalPostgres::start(&fast(&dir)).await.unwrap();
    leave_mark(&server).await;
    // A session that is busy when its postmaster is killed may outlive it for a moment.
    let busy = connect(&server.config()).await;
    let busy = tokio::spawn(async move { busy.batch_execute("SELECT pg_sleep(60)").await });
    signal(server.pid(), Signal::SIGKILL);
    let status = server.exited().await;
    assert!(!status.success());
    drop(server);
    let server = LocalPostgres::start(&fast(&dir)).await.unwrap();
    println!("start after kill -9: {:?}", server.elapsed());
    assert_mark(&server).await;
    assert!(busy.await.unwrap().is_err());
}

#[tokio::test]
async fn half_made_data_are_made_anew() {
    let dir = open_dir();
    let options = fast(&dir);
    // As an `initdb` that was killed leaves it, and as one would have left it under the final name.
    let unfinished = options.data_root.join("init-1/base");
    fs::create_dir_all(&unfinished).unwrap();
    fs::create_dir_all(options.data_root.join("data/global")).unwrap();
    fs::write(options.data_root.join("data/PG_VERSION"), "15\n").unwrap();
    let server = LocalPostgres::start(&options).await.unwrap();
    assert!(server.is_new());
    leave_mark(&server).await;
    assert!(!unfinished.exists());
    assert!(options.data_root.join("data.broken-1/PG_VERSION").exists());
}

#[tokio::test]
async fn second_start_says_so() {
    let dir = open_dir();
    let server = LocalPostgres::start(&fast(&dir)).await.unwrap();
    let error = LocalPostgres::start(&fast(&dir)).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyRunning { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.hint().is_some());
    connect(&server.config()).await;
    server.stop().await;
    LocalPostgres::start(&fast(&dir)).await.unwrap();
}

#[tokio::test]
async fn stale_pid_of_a_living_stranger_is_no_hindrance() {
    let dir = open_dir();
    let options = fast(&dir);
    let server = LocalPostgres::start(&options).await.unwrap();
    leave_mark(&server).await;
    let pid_file = options.data_root.join("data/postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    signal(server.pid(), Signal::SIGKILL);
    server.exited().await;
    let dead = server.pid().to_string();
    drop(server);
    // The id belongs to another process now.
    let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(&pid_file, text.replacen(&dead, &stranger.id().to_string(), 1)).unwrap();
    let server = LocalPostgres::start(&options).await.unwrap();
    assert_mark(&server).await;
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger must not be harmed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn long_paths_get_a_short_socket() {
    let dir = open_dir();
    let deep = dir.path().join("d".repeat(120)).join("with space, and \"quote\"");
    let options = Options { durability: Durability::Fast, ..Options::new(deep) };
    let server = LocalPostgres::start(&options).await.unwrap();
    leave_mark(&server).await;
    let socket = server.config().get_hosts().to_vec();
    let [tokio_postgres::config::Host::Unix(socket_dir)] = socket.as_slice() else { panic!("{socket:?}") };
    assert_eq!(fs::metadata(socket_dir).unwrap().mode() & 0o777, 0o700);
    let socket_dir = socket_dir.clone();
    server.stop().await;
    fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn odd_names_get_a_socket_beside_the_data() {
    let dir = open_dir();
    let options = Options { durability: Durability::Fast, ..Options::new(dir.path().join("a b, \"c\" %d")) };
    let server = LocalPostgres::start(&options).await.unwrap();
    let url: Config = server.connection_string().parse().unwrap();
    connect(&url).await;
}

#[tokio::test]
async fn private_directories_work_for_root_too() {
    // Mode 0700: a server under another account cannot get there.
    let dir = tempfile::tempdir().unwrap();
    match LocalPostgres::start(&fast(&dir)).await {
        Ok(server) => leave_mark(&server).await,
        Err(error @ Error::Unreachable { .. }) => return println!("no user namespaces here: {error}"),
        Err(error) => panic!("{error}"),
    }
    // The data change hands when the way opens.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    let server = LocalPostgres::start(&fast(&dir)).await.unwrap();
    assert_mark(&server).await;
    drop(server);
    if geteuid().is_root() {
        assert_ne!(fs::metadata(dir.path().join("postgres/data")).unwrap().uid(), 0);
    }
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    assert_mark(&LocalPostgres::start(&fast(&dir)).await.unwrap()).await;
}

#[tokio::test]
async fn server_that_does_not_start_shows_its_log() {
    let dir = open_dir();
    let options = fast(&dir);
    LocalPostgres::start(&options).await.unwrap().stop().await;
    let conf = options.data_root.join("data/postgresql.conf");
    fs::write(&conf, "no_such_setting = 1\n").unwrap();
    let error = LocalPostgres::start(&options).await.unwrap_err();
    assert!(matches!(&error, Error::Exited { tail, .. } if tail.contains("no_such_setting")), "{error}");
}

#[tokio::test]
async fn data_of_a_missing_version_are_left_alone() {
    let dir = open_dir();
    let options = Options { search: Search::Installed, ..fast(&dir) };
    let data = options.data_root.join("data");
    fs::create_dir_all(data.join("global")).unwrap();
    fs::write(data.join("global/pg_control"), "").unwrap();
    fs::write(data.join("PG_VERSION"), "99\n").unwrap();
    let error = LocalPostgres::start(&options).await.unwrap_err();
    assert!(matches!(error, Error::DataVersion { major: 99, .. }), "{error}");
    assert!(data.exists());
}

#[tokio::test]
async fn given_url_comes_first() {
    let options = Options::new("/nonexistent");
    let database = resolve(Some("postgresql://elsewhere/db"), &options).await.unwrap();
    assert!(matches!(database, Database::Given(url) if url == "postgresql://elsewhere/db"));
}

#[tokio::test]
async fn fetched_programs_run_a_server() {
    let dir = open_dir();
    let options = Options { search: Search::Fetched, cache_dir: Some(dir.path().join("cache")), ..fast(&dir) };
    // Two at once: one fetches, the other waits for it.
    let other = Options { data_root: dir.path().join("other"), ..options.clone() };
    let (one, two) = tokio::join!(LocalPostgres::start(&options), LocalPostgres::start(&other));
    let one = match one {
        Err(Error::NoPrograms { rejected }) => return println!("skipped, nothing to fetch with: {rejected:?}"),
        one => one.unwrap(),
    };
    let two = two.unwrap();
    println!("{}: {:?} and {:?} with the download", one.source(), one.elapsed(), two.elapsed());
    assert!(matches!(one.source(), Source::Fetched { .. }));
    leave_mark(&one).await;
    leave_mark(&two).await;
    drop((one, two));
    let server = LocalPostgres::start(&options).await.unwrap();
    println!("later start {:?}", server.elapsed());
    assert_mark(&server).await;
}

#[tokio::test]
async fn shared_cluster_makes_databases() {
    let cluster = TestCluster::shared().await.unwrap();
    let one = cluster.create_database("one").await.unwrap();
    connect(&one).await.batch_execute("CREATE TABLE t AS SELECT 'from one'::text AS t").await.unwrap();
    // The session ends when the server has noticed that its client is gone.
    let mut copy = cluster.create_database_from("two", "one").await;
    while matches!(&copy, Err(Error::CreateDatabase { source, .. }) if source.as_postgres().and_then(|error| error.code()) == Some(&tokio_postgres::error::SqlState::OBJECT_IN_USE))
    {
        copy = cluster.create_database_from("two", "one").await;
    }
    assert_eq!(value(&connect(&copy.unwrap()).await, "SELECT t FROM t").await, "from one");
    let empty = cluster.create_database("one").await.unwrap();
    assert!(connect(&empty).await.query("SELECT t FROM t", &[]).await.is_err());
}

const HELPER_DIR: &str = "LOCAL_POSTGRES_HELPER_DIR";

/// Not a test: the parent that other tests kill. It starts a server, says its id, and waits.
#[tokio::test]
#[ignore = "run by other tests, in a process of its own"]
async fn helper_parent() {
    let Ok(root) = env::var(HELPER_DIR) else { return };
    let options = Options { durability: Durability::Fast, ..Options::new(root) };
    let server = LocalPostgres::start(&options).await.unwrap();
    leave_mark(&server).await;
    println!("\nserver {}", server.pid());
    std::future::pending::<()>().await;
}

fn spawn_helper(root: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "helper_parent", "--ignored", "--nocapture"])
        .env(HELPER_DIR, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn killed_parent_takes_its_server_along() {
    let dir = open_dir();
    kill_parent_of_server_in(&fast(&dir)).await;
}

#[tokio::test]
async fn killed_root_parent_takes_its_server_along() {
    // In a user namespace, where the parent is root.
    let dir = tempfile::tempdir().unwrap();
    match LocalPostgres::start(&fast(&dir)).await {
        Ok(server) => server.stop().await,
        Err(error @ Error::Unreachable { .. }) => return println!("no user namespaces here: {error}"),
        Err(error) => panic!("{error}"),
    }
    kill_parent_of_server_in(&fast(&dir)).await;
}

async fn kill_parent_of_server_in(options: &Options) {
    let mut helper = spawn_helper(&options.data_root);
    let lines = BufReader::new(helper.stdout.take().unwrap()).lines();
    let pid = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("server ")?.parse::<u32>().ok());
    let pid = pid.expect("the helper says its server's id");
    let error = LocalPostgres::start(options).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyRunning { pid: Some(pid), .. } if pid == helper.id()), "{error}");

    helper.kill().unwrap();
    helper.wait().unwrap();
    // At once, while the old server may still be in its shutdown.
    let server = LocalPostgres::start(options).await.unwrap();
    println!("start after kill -9 of the parent: {:?}", server.elapsed());
    assert!(!runs(pid), "the old server must be gone");
    assert_mark(&server).await;
}

#[tokio::test]
async fn killed_initdb_is_done_again() {
    let dir = open_dir();
    let options = fast(&dir);
    let mut helper = spawn_helper(&options.data_root);
    // In the middle of `initdb`: its directory has something in it.
    let unfinished = options.data_root.join(format!("init-{}", helper.id()));
    while !unfinished.join("PG_VERSION").exists() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    helper.kill().unwrap();
    helper.wait().unwrap();
    let server = LocalPostgres::start(&options).await.unwrap();
    assert!(server.is_new());
    leave_mark(&server).await;
    assert!(!unfinished.exists());
}
