//! The peer by hand: axum and tokio-postgres, with the SQL that Convoke sends for the same functions, prepared once a
//! connection and pipelined where the protocol allows it. All other figures are ratios to this one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use clap::Parser;
use convoke_bench::document::{self, JsonText};
use convoke_bench::tables::Tables;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

/// Under load a transfer succeeds on its first or second attempt; more than this is an overloaded database.
const ATTEMPTS_MAX: u32 = 20;
const BACKOFF_MS_MAX: u64 = 50;

#[derive(Parser)]
struct Arguments {
    #[arg(long, env = "BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    #[arg(long, env = "BENCH_SCHEMA", default_value = "bench")]
    schema: String,
    #[arg(long, env = "BENCH_PORT")]
    port: u16,
    /// Connections to Postgres.
    #[arg(long, env = "BENCH_POOL", default_value_t = 16)]
    pool: usize,
}

#[derive(Clone)]
struct App {
    pool: Pool,
    sql: Arc<Sql>,
    /// A body to answer with as it is.
    kept: Arc<OnceLock<Bytes>>,
}

/// The statements' texts; each connection keeps them prepared.
struct Sql {
    get: String,
    list: String,
    accounts: String,
    patch_accounts: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { database_url, schema, port, pool } = Arguments::parse();
    let config = database_url.parse().context("the database URL is none")?;
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let pool = Pool::builder(manager).max_size(pool).build()?;
    let tables = Tables::new(&schema);
    let sql = Sql {
        get: tables.get(),
        list: tables.list(),
        accounts: tables.accounts(),
        patch_accounts: tables.patch_accounts(),
    };
    let app = Router::new()
        .route("/empty", post(empty))
        .route("/get", post(get))
        .route("/list", post(list))
        .route("/transfer", post(transfer))
        .route("/kept", post(kept).put(keep))
        .with_state(App { pool, sql: Arc::new(sql), kept: Arc::default() });
    let listener = TcpListener::bind(("127.0.0.1", port)).await.context("cannot listen")?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// What a request ends with when it has no result.
enum Refusal {
    Invalid(serde_json::Error),
    NotFound,
    Overdraft,
    Pool(deadpool_postgres::PoolError),
    Postgres(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<deadpool_postgres::PoolError> for Refusal {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Self::Pool(error)
    }
}

impl Refusal {
    /// Whether the same transaction may succeed when it runs again.
    fn is_conflict(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        matches!(error.code(), Some(code) if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Invalid(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Self::NotFound => (StatusCode::NOT_FOUND, "there is no such document".to_owned()),
            Self::Overdraft => (StatusCode::BAD_REQUEST, "the account holds less".to_owned()),
            Self::Pool(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Self::Postgres(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        (status, json!({ "ok": false, "error": { "message": message } }).to_string()).into_response()
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(Refusal::Invalid)
}

/// `{"ok":true,"data":…}` around text that is JSON already.
fn answer(push: impl FnOnce(&mut String) -> Result<(), tokio_postgres::Error>) -> Result<Response, Refusal> {
    let mut body = String::from("{\"ok\":true,\"data\":");
    push(&mut body)?;
    body.push('}');
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

async fn empty(body: Bytes) -> Result<Response, Refusal> {
    let Empty {} = parse(&body)?;
    answer(|out| {
        out.push_str("null");
        Ok(())
    })
}

/// What an answer costs that is at hand as bytes.
async fn kept(State(app): State<App>, _arguments: Bytes) -> Response {
    let body = app.kept.get().cloned().unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The first one is kept.
async fn keep(State(app): State<App>, body: Bytes) {
    app.kept.get_or_init(|| body);
}

#[derive(Deserialize)]
struct Get {
    id: Uuid,
}

async fn get(State(app): State<App>, body: Bytes) -> Result<Response, Refusal> {
    let Get { id } = parse(&body)?;
    let client = app.pool.get().await?;
    let statement = client.prepare_cached(&app.sql.get).await?;
    let row = client.query_opt(&statement, &[&id]).await?.ok_or(Refusal::NotFound)?;
    answer(|out| document::push(out, &row))
}

#[derive(Deserialize)]
struct List {
    channel: String,
    limit: u32,
}

async fn list(State(app): State<App>, body: Bytes) -> Result<Response, Refusal> {
    let List { channel, limit } = parse(&body)?;
    let channel = serde_json::to_string(&channel).map_err(Refusal::Invalid)?;
    let client = app.pool.get().await?;
    let statement = client.prepare_cached(&app.sql.list).await?;
    let rows = client.query(&statement, &[&JsonText(channel), &i64::from(limit)]).await?;
    answer(|out| {
        out.push('[');
        for (position, row) in rows.iter().rev().enumerate() {
            if position > 0 {
                out.push(',');
            }
            document::push(out, row)?;
        }
        out.push(']');
        Ok(())
    })
}

#[derive(Deserialize)]
struct Transfer {
    from: u32,
    to: u32,
    amount: i64,
}

#[derive(Deserialize)]
struct Account {
    number: u32,
    balance: i64,
}

async fn transfer(State(app): State<App>, body: Bytes) -> Result<Response, Refusal> {
    let transfer: Transfer = parse(&body)?;
    let mut attempt = 1;
    loop {
        match transfer_once(&app, &transfer).await {
            Err(refusal) if refusal.is_conflict() && attempt < ATTEMPTS_MAX => {
                let backoff_ms = (1 << attempt.min(10)).min(BACKOFF_MS_MAX);
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..=backoff_ms))).await;
                attempt += 1;
            }
            Err(refusal) => return Err(refusal),
            Ok((from, to)) => {
                return answer(|out| {
                    out.push_str(&json!({ "from": from, "to": to }).to_string());
                    Ok(())
                });
            }
        }
    }
}

/// A connection with a transaction on it. Unless the transaction ended, the connection does too: a request may be
/// dropped at any point, and the next user of the connection must not find the transaction of the last.
struct Transaction(Option<Object>);

impl Transaction {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

async fn transfer_once(app: &App, transfer: &Transfer) -> Result<(i64, i64), Refusal> {
    let client = app.pool.get().await?;
    let read = client.prepare_cached(&app.sql.accounts).await?;
    let write = client.prepare_cached(&app.sql.patch_accounts).await?;
    let transaction = Transaction(Some(client));
    let Some(client) = &transaction.0 else { return Err(Refusal::NotFound) };
    let result = in_transaction(client, &read, &write, transfer).await;
    if result.is_err() {
        client.batch_execute("rollback").await?;
    }
    transaction.ended();
    result
}

/// Two round trips: begin and read, write and commit.
async fn in_transaction(
    client: &Object,
    read: &tokio_postgres::Statement,
    write: &tokio_postgres::Statement,
    transfer: &Transfer,
) -> Result<(i64, i64), Refusal> {
    let numbers = [JsonText(transfer.from.to_string()), JsonText(transfer.to.to_string())];
    let numbers = numbers.as_slice();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&numbers];
    let (begun, rows) =
        tokio::join!(client.batch_execute("begin isolation level serializable"), client.query(read, &parameters),);
    begun?;
    let mut from = None;
    let mut to = None;
    for row in &rows? {
        let id: Uuid = row.try_get(0)?;
        let JsonText(data) = row.try_get(1)?;
        let account: Account = serde_json::from_str(data).map_err(Refusal::Invalid)?;
        let place = if account.number == transfer.from { &mut from } else { &mut to };
        *place = Some((id, account.balance));
    }
    let ((from, from_balance), (to, to_balance)) = from.zip(to).ok_or(Refusal::NotFound)?;
    if from_balance < transfer.amount {
        return Err(Refusal::Overdraft);
    }
    let after = (from_balance - transfer.amount, to_balance + transfer.amount);
    let ids: &[Uuid] = &[from, to];
    let fields = [after.0, after.1].map(|balance| JsonText(format!("{{\"balance\":{balance}}}")));
    let fields = fields.as_slice();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&ids, &fields];
    let (written, committed) = tokio::join!(client.execute(write, &parameters), client.batch_execute("commit"));
    written?;
    committed?;
    Ok(after)
}
