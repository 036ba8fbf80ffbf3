//! Documents through the store beside the same SQL by hand: `documents --database-url …`. Prints a table in Markdown.
//!
//! Both send the same statements over one connection each, one after the other, in rounds that take turns. What the store
//! does besides (checking documents and ids, plans, transactions, JSON) is the difference.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use convoke_model::{Database, DatabaseError, DocumentId, Limits, Schema, TableManifest, Tables, key};
use convoke_postgres::Config;
use convoke_store::{CallDatabase, CallOptions, Isolation, Store, StoreOptions};
use convoke_sync::ApplyOptions;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

#[derive(Parser)]
struct Arguments {
    /// Where Postgres is; the schema `bench_documents` in it is emptied and filled.
    #[arg(long, env = "BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Rounds of each workload.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Rows of the small and of the large table.
    #[arg(long, num_args = 2, default_values_t = [1_000, 1_000_000])]
    rows: Vec<u32>,
}

const PROJECT: &str = "bench_documents";
const GROUPS: u32 = 20;

struct Bench {
    store: Store,
    tables: Arc<Tables>,
    hand: Client,
    ids: Vec<Uuid>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "its table is what it is for")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let config: Config = arguments.database_url.parse().context("the address of the database")?;
    let mut bench = Bench::open(&config).await?;
    println!("| rows | workload | by hand us | store us | ratio |\n|---:|---|---:|---:|---:|");
    let mut before: Vec<f64> = Vec::new();
    for rows in &arguments.rows {
        bench.fill(*rows).await?;
        let mut medians = Vec::new();
        for workload in Workload::ALL {
            let (hand, store) = bench.measure(workload, arguments.rounds).await?;
            println!("| {rows} | {} | {hand:.1} | {store:.1} | {:.2} |", workload.name(), hand / store);
            medians.push(store);
        }
        if !before.is_empty() {
            let grown = before.iter().zip(&medians).map(|(small, large)| format!("{:.2}", large / small));
            println!("| | to the small table | | {} | |", grown.collect::<Vec<_>>().join(", "));
        }
        before = medians;
    }
    println!("\n{}", bench.sizes().await?);
    Ok(())
}

#[derive(Clone, Copy)]
enum Workload {
    Get,
    Range,
    Insert,
    InsertMany,
    PatchWhere,
}

impl Workload {
    const ALL: [Self; 5] = [Self::Get, Self::Range, Self::Insert, Self::InsertMany, Self::PatchWhere];

    fn name(self) -> &'static str {
        match self {
            Self::Get => "one document by id",
            Self::Range => "50 documents of an index",
            Self::Insert => "insert",
            Self::InsertMany => "insert of 1,000",
            Self::PatchWhere => "patch by query, 20 documents",
        }
    }

    /// Calls in one round.
    fn calls(self) -> u32 {
        match self {
            Self::Get | Self::Range => 200,
            Self::Insert | Self::PatchWhere => 40,
            Self::InsertMany => 3,
        }
    }
}

impl Bench {
    async fn open(config: &Config) -> Result<Self> {
        let (hand, connection) = config.connect().await.context("cannot connect")?;
        tokio::spawn(connection);
        hand.batch_execute(&format!("drop schema if exists {PROJECT} cascade; set jit = off")).await?;
        let manifest: Vec<TableManifest> = serde_json::from_value(json!([{
            "name": "items",
            "schema": {
                "type": "object",
                "properties": {
                    "group": { "type": "string" }, "n": { "type": "integer" },
                    "body": { "type": "string" }, "seen": { "type": "integer" },
                },
                "required": ["group", "n", "body"],
            },
            "indexes": [{ "name": "by_group", "fields": ["group", "n"] }],
        }]))?;
        let mut schema = Schema::merge([("bench", manifest.as_slice())])?;
        let provisioned = convoke_sync::bootstrap(config, PROJECT).await?;
        convoke_sync::advance(config, PROJECT, &mut schema, &ApplyOptions::default(), &mut |_| {}).await?;
        let store = Store::open(StoreOptions {
            app: provisioned.app,
            project: PROJECT.to_owned(),
            connections_max: 1,
            limits: Limits { call_ms_max: 60_000, ..Limits::default() },
            sql: false,
            cursor_key: provisioned.keys.cursor,
        })?;
        Ok(Self { store, tables: Arc::new(Tables::new(schema)?), hand, ids: Vec::new() })
    }

    async fn fill(&mut self, rows: u32) -> Result<()> {
        let groups = (rows / GROUPS).max(1);
        self.hand.batch_execute(&format!("truncate {PROJECT}.items")).await?;
        let fill = format!(
            "insert into {PROJECT}.items (data) select jsonb_build_object('group', 'g' || n % {groups}, 'n', n, \
             'body', repeat('x', 100)) from generate_series(1, {rows}) n"
        );
        self.hand.batch_execute(&fill).await?;
        self.hand.batch_execute(&format!("vacuum analyze {PROJECT}.items")).await?;
        let rows = self.hand.query(&format!("select _id from {PROJECT}.items limit 1000"), &[]).await?;
        self.ids = rows.iter().map(|row| row.get(0)).collect();
        Ok(())
    }

    /// Medians of both, in microseconds a call.
    async fn measure(&self, workload: Workload, rounds: usize) -> Result<(f64, f64)> {
        let (mut hand, mut store) = (Vec::new(), Vec::new());
        for round in 0..rounds + 2 {
            let first = Instant::now();
            for call in 0..workload.calls() {
                self.by_hand(workload, call).await?;
            }
            let second = Instant::now();
            for call in 0..workload.calls() {
                self.by_store(workload, call).await?;
            }
            // The first rounds prepare statements and fill caches.
            if round >= 2 {
                hand.push(micros(second - first) / f64::from(workload.calls()));
                store.push(micros(second.elapsed()) / f64::from(workload.calls()));
            }
        }
        Ok((median(&mut hand), median(&mut store)))
    }

    async fn by_hand(&self, workload: Workload, call: u32) -> Result<()> {
        let table = format!("{PROJECT}.items");
        match workload {
            Workload::Get => {
                let statement =
                    self.prepare(format!("select _id, _creation_time, data::text from {table} where _id = $1"));
                let row = self.hand.query_one(&statement.await?, &[&self.id(call)]).await?;
                let _: Value = serde_json::from_str(row.get(2))?;
            }
            Workload::Range => {
                let statement = self.prepare(format!(
                    "select _id, _creation_time, data::text from {table} where convoke.key(data->'n') >= $1 \
                     and convoke.key(data->'group') = $2 order by convoke.key(data->'n'), _creation_time, _id limit $3"
                ));
                let (n, group) = (key(Some(&json!(0))), key(Some(&json!(format!("g{}", call % 5)))));
                self.hand.query(&statement.await?, &[&n, &group, &50_i64]).await?;
            }
            Workload::Insert | Workload::InsertMany => {
                let count = if matches!(workload, Workload::Insert) { 1 } else { 1_000 };
                let statement = self.prepare(format!(
                    "insert into {table} (_id, _creation_time, data) \
                     select * from unnest($1::uuid[], $2::float8[], $3::text[]::jsonb[])"
                ));
                let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
                let times = vec![1e12; count];
                let documents: Vec<String> = (0..count).map(|n| document(n).to_string()).collect();
                let statement = statement.await?;
                self.hand.batch_execute("begin isolation level serializable").await?;
                self.hand.execute(&statement, &[&ids, &times, &documents]).await?;
                self.hand.batch_execute("commit").await?;
            }
            Workload::PatchWhere => {
                let statement = self.prepare(format!(
                    "update {table} set data = data || '{{\"seen\": 1}}' where convoke.key(data->'group') = $1"
                ));
                let statement = statement.await?;
                let group = key(Some(&json!(format!("g{}", call % 5))));
                self.hand.batch_execute("begin isolation level serializable").await?;
                self.hand.execute(&statement, &[&group]).await?;
                self.hand.batch_execute("commit").await?;
            }
        }
        Ok(())
    }

    /// Statements are prepared once, as anybody would.
    async fn prepare(&self, text: String) -> Result<tokio_postgres::Statement> {
        use std::collections::HashMap;
        use tokio::sync::Mutex;
        static PREPARED: Mutex<Option<HashMap<String, tokio_postgres::Statement>>> = Mutex::const_new(None);
        let mut prepared = PREPARED.lock().await;
        let prepared = prepared.get_or_insert_default();
        if let Some(statement) = prepared.get(&text) {
            return Ok(statement.clone());
        }
        let statement = self.hand.prepare(&text).await?;
        prepared.insert(text, statement.clone());
        Ok(statement)
    }

    async fn by_store(&self, workload: Workload, call: u32) -> Result<()> {
        let number = self.tables.tables["items"].number;
        let group = json!(format!("g{}", call % 5));
        match workload {
            Workload::Get => {
                let id = DocumentId { table: number, uuid: self.id(call) }.to_string();
                let found = self.call(Isolation::SingleRead).get("items", &id).await.map_err(refused)?;
                let _: Value = serde_json::from_str(found.as_deref().unwrap_or_default())?;
            }
            Workload::Range => {
                let plan = json!({ "table": "items", "index": "by_group", "limit": 50, "where": [
                    { "field": "group", "op": "eq", "value": group }, { "field": "n", "op": "gte", "value": 0 }] });
                self.call(Isolation::SingleRead).query(&plan.to_string()).await.map_err(refused)?;
            }
            Workload::Insert => {
                let mut call = self.call(Isolation::Serializable);
                call.insert("items", &document(0).to_string()).await.map_err(refused)?;
                call.commit().await.map_err(refused)?;
            }
            Workload::InsertMany => {
                let documents: Value = (0..1_000).map(document).collect();
                let mut call = self.call(Isolation::Serializable);
                call.insert_many("items", &documents.to_string()).await.map_err(refused)?;
                call.commit().await.map_err(refused)?;
            }
            Workload::PatchWhere => {
                let plan = json!({ "table": "items", "index": "by_group",
                    "where": [{ "field": "group", "op": "eq", "value": group }] });
                let mut call = self.call(Isolation::Serializable);
                call.patch_where(&plan.to_string(), r#"{"seen":1}"#).await.map_err(refused)?;
                call.commit().await.map_err(refused)?;
            }
        }
        Ok(())
    }

    fn call(&self, isolation: Isolation) -> CallDatabase {
        let deadline = Instant::now() + Duration::from_mins(1);
        let options = CallOptions { isolation, deadline, upcast: None, reads: None, position: false, key: None };
        self.store.call(Arc::clone(&self.tables), options)
    }

    fn id(&self, call: u32) -> Uuid {
        self.ids.get((call as usize * 7) % self.ids.len().max(1)).copied().unwrap_or_default()
    }

    /// The rows on disk, beside the same in plain columns.
    async fn sizes(&self) -> Result<String> {
        self.hand
            .batch_execute(&format!(
                "drop table if exists {PROJECT}.plain; \
                 create table {PROJECT}.plain (id uuid primary key, created double precision not null, \
                   grp text not null, n bigint not null, body text not null, seen bigint); \
                 insert into {PROJECT}.plain select _id, _creation_time, data->>'group', (data->>'n')::bigint, \
                   data->>'body', (data->>'seen')::bigint from {PROJECT}.items; \
                 create index on {PROJECT}.plain (grp, n, created, id); create index on {PROJECT}.plain (created, id)"
            ))
            .await?;
        self.hand.batch_execute(&format!("vacuum full {PROJECT}.items")).await?;
        self.hand.batch_execute(&format!("vacuum full {PROJECT}.plain")).await?;
        let row = self
            .hand
            .query_one(
                &format!(
                    "select (select count(*) from {PROJECT}.items), pg_table_size('{PROJECT}.items'), \
                     pg_indexes_size('{PROJECT}.items'), pg_table_size('{PROJECT}.plain'), pg_indexes_size('{PROJECT}.plain')"
                ),
                &[],
            )
            .await?;
        let [rows, documents, document_indexes, plain, plain_indexes]: [i64; 5] = std::array::from_fn(|at| row.get(at));
        let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
        Ok(format!(
            "{rows} rows: documents {:.0} MiB and indexes {:.0} MiB; plain columns {:.0} MiB and indexes {:.0} MiB: {:.2} times",
            mib(documents),
            mib(document_indexes),
            mib(plain),
            mib(plain_indexes),
            mib(documents + document_indexes) / mib(plain + plain_indexes)
        ))
    }
}

fn document(n: usize) -> Value {
    json!({ "group": "new", "n": n, "body": "x".repeat(100) })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn refused(error: DatabaseError) -> anyhow::Error {
    anyhow!("{error:?}")
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
