//! The database as a call sees it, without a guest in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_model::{Database, DatabaseError, Failure, Limits, Schema, TableManifest, Tables, Upcast};
use convoke_store::{CallDatabase, CallOptions, Isolation, NoteReads, Store, StoreOptions};
use serde_json::{Value, json};

use crate::harness::TestHost;

/// Tables of the test's own in the project `demo`.
pub(crate) struct Things {
    pub(crate) store: Store,
    pub(crate) tables: Arc<Tables>,
}

impl Things {
    /// The table `things` without a form, with the index `by_n`.
    pub(crate) async fn new(host: &TestHost) -> Self {
        let things = json!({ "name": "things", "indexes": [{ "name": "by_n", "fields": ["n"] }] });
        Self::with(host, json!([things])).await
    }

    /// The same, with other limits.
    pub(crate) async fn limited(host: &TestHost, limits: Limits) -> Self {
        let things = json!({ "name": "things", "indexes": [{ "name": "by_n", "fields": ["n"] }] });
        Self::open(host, json!([things]), limits).await
    }

    /// The table `messages` as the demo has it, of a host that has made it: nothing is written to open it.
    pub(crate) async fn opened(host: &TestHost) -> Self {
        let row = host.psql().await.query_one("select number from convoke.tables where name = 'messages'", &[]).await;
        let manifests: Vec<TableManifest> = serde_json::from_value(json!([{ "name": "messages" }])).expect("manifests");
        let mut schema = Schema::merge([("test", manifests.as_slice())]).expect("a schema");
        for table in schema.tables.values_mut() {
            table.number = row.as_ref().expect("a number").get::<_, i32>(0).unsigned_abs();
        }
        let options = StoreOptions {
            app: host.postgres.clone(),
            cursor_key: convoke_model::CursorKey::new([7; 32]),
            project: "demo".to_owned(),
            connections_max: 8,
            limits: Limits::default(),
            sql: true,
        };
        Self { store: Store::open(options).expect("a store"), tables: Arc::new(Tables::new(schema).expect("forms")) }
    }

    /// Tables as a manifest declares them.
    pub(crate) async fn with(host: &TestHost, tables: Value) -> Self {
        Self::open(host, tables, Limits::default()).await
    }

    async fn open(host: &TestHost, tables: Value, limits: Limits) -> Self {
        let manifests: Vec<TableManifest> = serde_json::from_value(tables).expect("manifests");
        let mut schema = Schema::merge([("test", manifests.as_slice())]).expect("a schema");
        let provisioned = convoke_sync::bootstrap(&host.postgres, "demo").await.expect("provisioned");
        let options = StoreOptions {
            app: provisioned.app,
            cursor_key: provisioned.keys.cursor,
            project: "demo".to_owned(),
            connections_max: 8,
            limits,
            sql: true,
        };
        let store = Store::open(options).expect("a store");
        let options = convoke_sync::ApplyOptions::default();
        let synced = convoke_sync::advance(&host.postgres, "demo", &mut schema, &options, &mut |_| {}).await;
        synced.expect("a sync");
        Self { store, tables: Arc::new(Tables::new(schema).expect("forms")) }
    }

    pub(crate) fn call(&self, isolation: Isolation) -> CallDatabase {
        self.call_with(isolation, false, None)
    }

    /// A snapshot whose reads are noted.
    pub(crate) fn observed(&self) -> CallDatabase {
        self.call_with(Isolation::Snapshot, true, None)
    }

    /// The same, with a rule for documents of older forms.
    pub(crate) fn upcasting(&self, upcast: Arc<dyn Upcast>) -> CallDatabase {
        self.call_with(Isolation::Snapshot, true, Some(upcast))
    }

    /// A mutation with a rule for documents of older forms.
    pub(crate) fn changing(&self, upcast: Arc<dyn Upcast>) -> CallDatabase {
        self.call_with(Isolation::Serializable, false, Some(upcast))
    }

    /// A mutation with a deadline of its own.
    pub(crate) fn call_until(&self, deadline: Instant) -> CallDatabase {
        let isolation = Isolation::Serializable;
        let options = CallOptions { isolation, deadline, upcast: None, reads: None, position: false, key: None };
        self.store.call(Arc::clone(&self.tables), options)
    }

    fn call_with(&self, isolation: Isolation, observe: bool, upcast: Option<Arc<dyn Upcast>>) -> CallDatabase {
        let deadline = Instant::now() + Duration::from_secs(20);
        let reads = observe.then(NoteReads::default);
        let options = CallOptions { isolation, deadline, upcast, reads, position: observe, key: None };
        self.store.call(Arc::clone(&self.tables), options)
    }

    /// A mutation of one step.
    pub(crate) async fn change<T>(
        &self,
        step: impl AsyncFnOnce(&mut CallDatabase) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut call = self.call(Isolation::Serializable);
        let value = step(&mut call).await?;
        call.commit().await?;
        Ok(value)
    }

    pub(crate) async fn insert(&self, document: &str) -> String {
        self.change(async |call| call.insert("things", document).await).await.expect("an id")
    }

    pub(crate) async fn get(&self, id: &str) -> Option<Value> {
        let text = self.call(Isolation::SingleRead).get("things", id).await.expect("an answer")?;
        let mut document: Value = serde_json::from_str(&text).expect("JSON");
        let fields = document.as_object_mut().expect("an object");
        assert_eq!(fields.remove("_id"), Some(json!(id)));
        assert!(fields.remove("_creationTime").is_some_and(|time| time.is_number()));
        Some(document)
    }

    /// What a plan gives.
    pub(crate) async fn query(&self, plan: Value) -> Value {
        let text = self.call(Isolation::SingleRead).query(&plan.to_string()).await.expect("an answer");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The `n` of each document that a plan gives.
    pub(crate) async fn numbers(&self, plan: Value) -> Vec<i64> {
        numbers(&self.query(plan).await)
    }
}

/// The `n` of each document of a list.
pub(crate) fn numbers(list: &Value) -> Vec<i64> {
    list.as_array().expect("a list").iter().map(|document| document["n"].as_i64().expect("a number")).collect()
}

/// The words of an error that a function would get, or that would end it.
pub(crate) fn failure(error: DatabaseError) -> Failure {
    match error {
        DatabaseError::Refused(failure) | DatabaseError::Failed(failure) => failure,
        other => panic!("no failure: {other:?}"),
    }
}
