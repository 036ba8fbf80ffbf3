//! A database a test, and a schema from the JSON of a manifest.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use convoke_local_postgres::testing::TestCluster;
use convoke_model::{Schema, TableManifest};
use convoke_postgres::Config;
use convoke_sync::{
    Applied, AppliedBy, ApplyOptions, PlanOptions, Progress, Provisioned, SyncError, SyncPlan, apply, bootstrap, plan,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

/// Runs a test on the runtime that all tests share: the server of Postgres outlives each of them.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime =
        RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));
    runtime.block_on(test);
}

pub(crate) struct Database {
    pub(crate) admin: Config,
    pub(crate) project: &'static str,
    pub(crate) provisioned: Provisioned,
}

impl Database {
    /// An empty one, for the project `demo`.
    pub(crate) async fn new() -> Self {
        let admin = empty().await;
        let provisioned = bootstrap(&admin, "demo").await.expect("provisioned");
        Self { admin, project: "demo", provisioned }
    }

    /// One with these tables.
    pub(crate) async fn with(tables: Value) -> Self {
        let database = Self::new().await;
        database.sync(tables).await.expect("synced");
        database
    }

    pub(crate) async fn client(&self) -> Client {
        connect(&self.admin).await
    }

    /// Runs SQL by hand.
    pub(crate) async fn run(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// One value, as text.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let row = self.client().await.query_one(&format!("select ({sql})::text"), &[]).await;
        row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get::<_, Option<String>>(0).unwrap_or_default()
    }

    pub(crate) async fn plan(&self, tables: Value) -> SyncPlan {
        self.plan_dropping(tables, &[]).await
    }

    pub(crate) async fn plan_dropping(&self, tables: Value, drop: &[&str]) -> SyncPlan {
        let options = PlanOptions { allow_drop: drop.iter().map(|name| (*name).to_owned()).collect() };
        plan(&self.admin, self.project, &schema(tables), &options).await.expect("a plan")
    }

    pub(crate) async fn apply(&self, plan: &SyncPlan, tables: Value) -> Result<Applied, SyncError> {
        apply(&self.admin, plan, &schema(tables), &options(), &mut |_: Progress<'_>| {}).await
    }

    pub(crate) async fn sync(&self, tables: Value) -> Result<Applied, SyncError> {
        self.sync_dropping(tables, &[]).await
    }

    pub(crate) async fn sync_dropping(&self, tables: Value, drop: &[&str]) -> Result<Applied, SyncError> {
        let plan = self.plan_dropping(tables.clone(), drop).await;
        self.apply(&plan, tables).await
    }

    pub(crate) async fn fingerprint(&self, tables: Value) -> String {
        self.plan(tables).await.base
    }
}

pub(crate) fn options() -> ApplyOptions {
    let applied_by =
        AppliedBy { os_user: Some("ada".to_owned()), host: "lab".to_owned(), tool: "convoke test".to_owned() };
    ApplyOptions { applied_by, ..ApplyOptions::default() }
}

pub(crate) async fn empty() -> Config {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let cluster = TestCluster::shared().await.expect("a Postgres");
    let name = format!("sync_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    cluster.create_database(&name).await.expect("a database")
}

pub(crate) async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect().await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// The schema that one component declares.
pub(crate) fn schema(tables: Value) -> Schema {
    let tables: Vec<TableManifest> = serde_json::from_value(tables).expect("tables");
    Schema::merge([("app", tables.as_slice())]).expect("a schema")
}

/// `messages` by channel, and `users` with unique e-mail addresses.
pub(crate) fn demo() -> Value {
    json!([
        {
            "name": "messages",
            "schema": object(&json!({ "channel": { "type": "string" }, "body": { "type": "string" } }), &["channel", "body"]),
            "indexes": [{ "name": "by_channel", "fields": ["channel"] }],
        },
        {
            "name": "users",
            "schema": object(&json!({ "email": { "type": "string" }, "age": { "type": "integer" } }), &["email"]),
            "indexes": [{ "name": "by_email", "fields": ["email"], "unique": true }],
            "check": true,
        },
    ])
}

pub(crate) fn object(properties: &Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

/// One table of any documents.
#[expect(clippy::needless_pass_by_value, reason = "it is written in place")]
pub(crate) fn notes(indexes: Value) -> Value {
    json!([{ "name": "notes", "indexes": indexes }])
}
