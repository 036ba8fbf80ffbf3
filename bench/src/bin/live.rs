//! Live queries of a running host: how soon clients hear of a commit, how much is run, what a subscription costs.
//!
//! `live --url http://127.0.0.1:3210 --database-url … --pid N` prints lines of JSON. The host serves the demo's `messages`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls};
use tokio_tungstenite::tungstenite::Message;

#[derive(Parser)]
struct Arguments {
    /// The host, as `127.0.0.1:3210`.
    #[arg(long, default_value = "127.0.0.1:3210")]
    host: String,
    /// Its database.
    #[arg(long, env = "BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The schema of the project.
    #[arg(long, default_value = "bench")]
    schema: String,
    /// The host's process, for its memory.
    #[arg(long)]
    pid: u32,
    /// Sockets, with ten queries each.
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
}

const QUERIES_A_CLIENT: usize = 10;
/// Of each kind of write.
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_mins(1);

struct Bench {
    arguments: Arguments,
    psql: Client,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "its lines of JSON are what it is for")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (psql, connection) = tokio_postgres::connect(&arguments.database_url, NoTls).await.context("Postgres")?;
    tokio::spawn(connection);
    let bench = Bench { arguments, psql };
    // First, while the host has touched no more memory than it needs.
    for line in bench.many_on_many().await? {
        println!("{line}");
    }
    println!("{}", bench.latency(500).await?);
    println!("{}", bench.many_on_one(1_000).await?);
    Ok(())
}

impl Bench {
    /// One writer at 100 rows a second, by SQL, and one subscriber: from the commit's answer to the client's message.
    async fn latency(&self, writes: u64) -> Result<Value> {
        let (sender, mut heard) = mpsc::unbounded_channel();
        let subscriber = subscribe(&self.arguments.host, "latency", sender).await?;
        heard.recv().await.context("the first result")?;
        let mut delays = Vec::new();
        for number in 0..writes {
            let next = Instant::now() + Duration::from_millis(10);
            self.insert("latency", &format!("seq-{number};")).await?;
            let committed = Instant::now();
            loop {
                let (at, text) = tokio::time::timeout(PATIENCE, heard.recv())
                    .await
                    .context("a message in time")?
                    .context("a stream")?;
                if text.contains(&format!("seq-{number};")) {
                    delays.push(at.saturating_duration_since(committed));
                    break;
                }
            }
            tokio::time::sleep_until(next.into()).await;
        }
        subscriber.abort();
        Ok(json!({ "what": "commit to message, 100 writes a second", "ms": percentiles(delays) }))
    }

    /// Many streams of the same query, and one write.
    async fn many_on_one(&self, streams: usize) -> Result<Value> {
        let (sender, mut heard) = mpsc::unbounded_channel();
        let mut subscribers = Vec::with_capacity(streams);
        for _ in 0..streams {
            subscribers.push(subscribe(&self.arguments.host, "one", sender.clone()).await?);
        }
        for _ in 0..streams {
            heard.recv().await.context("a first result")?;
        }
        let mut delays = Vec::new();
        for round in 0..10 {
            self.insert("one", &format!("round-{round};")).await?;
            let committed = Instant::now();
            for _ in 0..streams {
                let (at, _) = tokio::time::timeout(PATIENCE, heard.recv()).await?.context("a stream")?;
                delays.push(at.saturating_duration_since(committed));
            }
        }
        subscribers.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(json!({ "what": format!("{streams} streams on one query"), "ms": percentiles(delays) }))
    }

    /// Ten queries on each of many sockets, and writes that concern one, a hundred, all.
    async fn many_on_many(&self) -> Result<Vec<Value>> {
        let before = self.memory_kib()?;
        let told = Arc::new(AtomicU64::new(0));
        let mut sockets = Vec::new();
        for client in 0..self.arguments.clients {
            sockets.push(socket(&self.arguments.host, client, Arc::clone(&told)).await?);
        }
        let queries = (self.arguments.clients * QUERIES_A_CLIENT) as u64;
        wait(&told, queries).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = self.memory_kib()?;
        let mut lines = vec![json!({
            "what": format!("{queries} subscriptions on {} sockets", self.arguments.clients),
            "memory_kib_a_subscription": (after.saturating_sub(before)) as f64 / queries as f64,
        })];
        for concerned in [1, 100, queries] {
            let (mut informed, mut evaluations, mut delays) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let runs = self.evaluations().await?;
                told.store(0, Ordering::Relaxed);
                let statement = format!(
                    "insert into \"{}\".messages (data) select jsonb_build_object('channel', 'many-' || n, 'author', 'a', \
                     'body', 'b') from generate_series(0, $1::bigint - 1) n",
                    self.arguments.schema
                );
                self.psql.execute(&statement, &[&concerned.cast_signed()]).await?;
                let begin = Instant::now();
                wait(&told, concerned).await?;
                delays.push(begin.elapsed());
                tokio::time::sleep(Duration::from_millis(500)).await;
                informed.push(told.load(Ordering::Relaxed));
                evaluations.push(self.evaluations().await? - runs);
            }
            lines.push(json!({
                "what": format!("a write that concerns {concerned} of {queries}, {ROUNDS} times"),
                "informed": informed,
                "evaluations": evaluations,
                "ms": percentiles(delays),
            }));
        }
        sockets.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(lines)
    }

    async fn insert(&self, channel: &str, body: &str) -> Result<()> {
        let statement = format!(
            "insert into \"{}\".messages (data) values (jsonb_build_object('channel', $1::text, 'author', 'a', 'body', $2::text))",
            self.arguments.schema
        );
        self.psql.execute(&statement, &[&channel, &body]).await?;
        Ok(())
    }

    fn memory_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.arguments.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    async fn evaluations(&self) -> Result<u64> {
        let mut stream = TcpStream::connect(&self.arguments.host).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("convoke_evaluations_total{function=\"messages:list\"} "));
        Ok(line.map_or(0, |value| value.parse().unwrap_or(0)))
    }
}

/// One stream of server-sent events; each `data:` line goes to the channel, with the time at which it was read.
async fn subscribe(
    host: &str,
    channel: &str,
    sender: mpsc::UnboundedSender<(Instant, String)>,
) -> Result<tokio::task::JoinHandle<()>> {
    let mut stream = TcpStream::connect(host).await?;
    let body = json!({ "channel": channel, "limit": 5 }).to_string();
    let request = format!(
        "POST /api/subscribe/messages:list HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(tokio::spawn(async move {
        let mut text = String::new();
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let at = Instant::now();
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                if event.contains("data: ") {
                    let _ = sender.send((at, event));
                }
            }
        }
    }))
}

/// One socket of Convex' protocol with ten queries; counts the results that it is sent.
async fn socket(host: &str, client: usize, told: Arc<AtomicU64>) -> Result<tokio::task::JoinHandle<()>> {
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{host}/api/1.48.0/sync")).await?;
    let connect = json!({ "type": "Connect", "sessionId": uuid::Uuid::now_v7(), "connectionCount": 0,
        "lastCloseReason": "InitialConnect", "clientTs": 0 });
    let adds: Vec<Value> = (0..QUERIES_A_CLIENT)
        .map(|query| {
            let channel = format!("many-{}", client * QUERIES_A_CLIENT + query);
            json!({ "type": "Add", "queryId": query, "udfPath": "messages:list", "args": [{ "channel": channel }] })
        })
        .collect();
    let modify = json!({ "type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": adds });
    for message in [connect, modify] {
        socket.send(Message::text(message.to_string())).await?;
    }
    Ok(tokio::spawn(async move {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message {
                told.fetch_add(text.matches("\"type\":\"QueryUpdated\"").count() as u64, Ordering::Relaxed);
            }
        }
    }))
}

async fn wait(told: &AtomicU64, wanted: u64) -> Result<()> {
    let begin = Instant::now();
    while told.load(Ordering::Relaxed) < wanted {
        if begin.elapsed() > PATIENCE {
            bail!("only {} of {wanted} results came", told.load(Ordering::Relaxed));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn percentiles(mut delays: Vec<Duration>) -> Value {
    delays.sort_unstable();
    let at = |percent: usize| {
        let position = delays.len().saturating_sub(1) * percent / 100;
        delays.get(position).map_or(0.0, |delay| delay.as_secs_f64() * 1e3)
    };
    json!({ "p50": at(50), "p99": at(99), "max": at(100) })
}
