//! Hosts to test: each with a database of its own on the process's Postgres, serving components built once.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use convoke_local_postgres::testing::TestCluster;
use convoke_model::Limits;
use convoke_postgres::Config;
use convoke_server::{
    AppliedBy, CacheDirs, ComponentSource, DeployError, Deployed, Host, HostConfig, LiveLimits, OpenError,
    ProjectConfig, STALL_MAX, ServerLimits,
};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_postgres::Client;

/// Far more than the slowest takes on a slow machine.
const TEST_MAX: Duration = Duration::from_mins(15);

/// Runs a test on the runtime that all tests share: the server of Postgres and its connections outlive each of them.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime =
        RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));
    runtime.block_on(within(test));
}

/// A test that waits for what never comes fails.
async fn within<F: Future<Output = ()>>(test: F) {
    tokio::time::timeout(TEST_MAX, test).await.expect("the test to end in time");
}

/// Runs a test on its own thread alone, its host included, with a database of its own. The server of Postgres is still the
/// one that all share, and belongs to their runtime.
pub(crate) fn run_alone<F: AsyncFnOnce(Config)>(test: F) {
    let mut postgres = None;
    run(async { postgres = Some(new_database().await) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(within(test(postgres.expect("a database"))));
}

async fn new_database() -> Config {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("it_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let cluster = TestCluster::shared().await.expect("a Postgres");
    cluster.create_database(&name).await.expect("a database")
}

/// A host that listens, and the database behind it.
#[derive(Debug)]
pub(crate) struct TestHost {
    pub(crate) host: Arc<Host>,
    pub(crate) postgres: Config,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    _cache: tempfile::TempDir,
}

/// An answer: its status and its body as JSON.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl TestHost {
    /// A host with the usual limits and these modules: `messages`, or `module=component` for another name.
    pub(crate) async fn start(modules: &[&str]) -> Self {
        Self::with_limits(modules, Limits::default()).await
    }

    pub(crate) async fn with_limits(modules: &[&str], limits: Limits) -> Self {
        Self::with(modules, |config| config.limits = limits).await
    }

    /// With whatever else a host can be told.
    pub(crate) async fn with(modules: &[&str], change: impl FnOnce(&mut ProjectConfig)) -> Self {
        Self::on(new_database().await, modules, change).await
    }

    /// On a server of the test's own, which it may stop.
    pub(crate) async fn on_server(postgres: Config, modules: &[&str]) -> Self {
        Self::on(postgres, modules, |_| {}).await
    }

    /// Another host of the same project on the same database.
    pub(crate) async fn beside(other: &Self, modules: &[&str]) -> Self {
        Self::on(other.postgres.clone(), modules, |_| {}).await
    }

    /// A host on a database of one's own.
    pub(crate) async fn on(postgres: Config, modules: &[&str], change: impl FnOnce(&mut ProjectConfig)) -> Self {
        let test = Self::try_on(postgres, change).await.expect("a host");
        if !modules.is_empty() {
            test.deploy(modules).await.expect("a deployment");
        }
        test
    }

    /// One that may be refused.
    pub(crate) async fn try_on(postgres: Config, change: impl FnOnce(&mut ProjectConfig)) -> Result<Self, OpenError> {
        let cache = tempfile::tempdir().expect("a directory");
        let mut project = ProjectConfig {
            postgres: postgres.clone(),
            project: "demo".to_owned(),
            applied_by: AppliedBy::default(),
            limits: Limits::default(),
            connections_max: 8,
            stall_max: STALL_MAX,
            server_limits: ServerLimits::default(),
            live_limits: LiveLimits::default(),
            site_dir: Some(workspace().join("public")),
            outbound_allow: vec!["http://127.0.0.1:9".to_owned()],
            sql: true,
        };
        change(&mut project);
        let host = Host::open(HostConfig { cache: CacheDirs::private(cache.path().join("cache")), project }).await?;
        Ok(Self::listen(host, postgres, cache).await)
    }

    /// Puts a project behind a port.
    pub(crate) async fn listen(host: Arc<Host>, postgres: Config, cache: tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(convoke_server::serve(Arc::clone(&host), listener, async {
            let _ = stopped.await;
        }));
        Self { host, postgres, address, stop: Some(stop), _cache: cache }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the host follows the log, or does not.
    pub(crate) async fn until_streaming(&self, wanted: bool) {
        let live = self.host.live().expect("live queries");
        let reached = async {
            while live.is_streaming() != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the change feed in time");
    }

    pub(crate) async fn deploy(&self, modules: &[&str]) -> Result<Deployed, DeployError> {
        let sources = modules.iter().map(|module| {
            let (module, component) = module.split_once('=').unwrap_or((module, module));
            ComponentSource { module: module.to_owned(), wasm: component_bytes(component) }
        });
        self.host.deploy(sources.collect()).await
    }

    pub(crate) async fn deploy_bytes(&self, module: &str, wasm: Vec<u8>) -> Result<Deployed, DeployError> {
        self.host.deploy(vec![ComponentSource { module: module.to_owned(), wasm }]).await
    }

    pub(crate) async fn query(&self, path: &str, args: Value) -> Answer {
        self.post(&format!("/api/query/{path}"), args.to_string()).await
    }

    pub(crate) async fn mutation(&self, path: &str, args: Value) -> Answer {
        self.post(&format!("/api/mutation/{path}"), args.to_string()).await
    }

    pub(crate) async fn action(&self, path: &str, args: Value) -> Answer {
        self.post(&format!("/api/action/{path}"), args.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, path, body.into()).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let (status, text) = self.send_text(method, path, body).await;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, body }
    }

    /// With headers, of the request and of the answer.
    pub(crate) async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, HeaderMap, Value) {
        let (status, answered, text) = self.exchange(method, path, headers, body.to_owned().into()).await;
        (status, answered, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn send_text(&self, method: Method, path: &str, body: Bytes) -> (u16, String) {
        let (status, _, text) = self.exchange(method, path, &[], body).await;
        (status, text)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> (u16, HeaderMap, String) {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        connection.abort();
        (status, headers, String::from_utf8_lossy(&body).into_owned())
    }

    /// A connection of the test's own, as psql would have.
    pub(crate) async fn psql(&self) -> Client {
        let (client, connection) = self.postgres.connect().await.expect("a connection");
        tokio::spawn(connection);
        client
    }

    /// Sessions of this database that have a transaction open and do nothing.
    pub(crate) async fn open_transactions(&self) -> i64 {
        let row = self
            .psql()
            .await
            .query_one(
                "select count(*) from pg_stat_activity \
                 where datname = current_database() and state like 'idle in transaction%'",
                &[],
            )
            .await
            .expect("a count");
        row.get(0)
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.host.close();
    }
}

impl Answer {
    /// The data of a success.
    pub(crate) fn data(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.body["ok"], true, "{self:?}");
        &self.body["data"]
    }

    /// The code of an error.
    pub(crate) fn code(&self) -> &str {
        assert_eq!(self.body["ok"], false, "{self:?}");
        self.body["error"]["code"].as_str().expect("a code")
    }

    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"].as_str().expect("a message")
    }
}

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_path_buf()
}

/// The bytes of a component of `components/` or `tests/guests/`; both are built once a process.
pub(crate) fn component_bytes(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    static READ: Mutex<Option<HashMap<String, Vec<u8>>>> = Mutex::new(None);
    let directory = BUILT.get_or_init(build);
    let mut read = READ.lock().expect("no test panics while reading");
    let read = read.get_or_insert_default();
    let bytes = read.entry(name.to_owned()).or_insert_with(|| {
        let path = directory.join(format!("{}.wasm", name.replace('-', "_")));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    });
    bytes.clone()
}

/// A component written as text, of `tests/guests/wat/`.
pub(crate) fn wat_bytes(name: &str) -> Vec<u8> {
    wat::parse_str(wat_text(name)).expect("valid text")
}

pub(crate) fn wat_text(name: &str) -> String {
    let path = workspace().join("tests/guests/wat").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn build() -> PathBuf {
    // Absent on a new machine; adding it twice does nothing.
    let _ = Command::new("rustup").args(["target", "add", "wasm32-wasip2"]).output();
    let target = workspace().join("target/guests");
    for directory in ["components", "tests/guests"] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--release", "--locked", "--quiet", "--target", "wasm32-wasip2"])
            .current_dir(workspace().join(directory))
            .env("CARGO_TARGET_DIR", &target);
        // What this cargo tells its tests would only confuse that one's idea of what is fresh.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CARGO_PKG") || name.starts_with("CARGO_MANIFEST") || name.starts_with("CARGO_BIN") {
                cargo.env_remove(name);
            }
        }
        let output = cargo.output().expect("cargo");
        assert!(output.status.success(), "{directory}: {}", String::from_utf8_lossy(&output.stderr));
    }
    target.join("wasm32-wasip2/release")
}
