//! What the change feed costs those who write: the same inserts while a host follows the log and while nobody does, in
//! rounds that take turns.
//!
//! `feed --host 127.0.0.1:3210 --database-url … --pid N` prints lines of JSON. The host serves the demo's `messages` and is
//! the only one on the database; the role has to be a superuser. Without its publication the host has no slot, so it is
//! dropped and made again for each turn.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

const SECONDS_MAX: f64 = 60.0;
const ROUNDS_MAX: usize = 50;
const WRITERS_MAX: usize = 64;
/// The host tries again at growing intervals, of 30 seconds at the most.
const PATIENCE: Duration = Duration::from_mins(1);
/// What `/proc` counts in, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Parser)]
struct Arguments {
    /// The host, on this machine.
    #[arg(long, default_value = "127.0.0.1:3210")]
    host: String,
    /// Its database.
    #[arg(long, env = "BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The project, and so the schema of its tables; rows are added to `messages`.
    #[arg(long, default_value = "bench")]
    schema: String,
    /// The host's process, for its CPU time.
    #[arg(long)]
    pid: i32,
    #[arg(long, default_value_t = 8)]
    writers: usize,
    /// Of one measurement.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Each measures every load with the feed and without.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// One row a transaction, by SQL.
    Sql,
    /// `messages:send`.
    Send,
}

/// One measurement.
struct Measured {
    load: Load,
    round: usize,
    follows: bool,
    transactions_a_second: f64,
}

struct Bench {
    arguments: Arguments,
    psql: Client,
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "its lines of JSON are what it is for")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!((0.2..=SECONDS_MAX).contains(&arguments.seconds), "`--seconds` is 0.2 to {SECONDS_MAX}");
    ensure!((1..=ROUNDS_MAX).contains(&arguments.rounds), "`--rounds` is 1 to {ROUNDS_MAX}");
    ensure!((1..=WRITERS_MAX).contains(&arguments.writers), "`--writers` is 1 to {WRITERS_MAX}");
    let bench = Bench { psql: connect(&arguments.database_url).await?, arguments };
    let mut measured = Vec::new();
    for round in 0..bench.arguments.rounds {
        // There and back again, so that nobody always follows the same neighbour.
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for follows in order {
            let walsender = if follows { Some(bench.follow().await?) } else { bench.leave().await? };
            for load in [Load::Sql, Load::Send] {
                let (line, one) = bench.measure(load, round, walsender).await?;
                println!("{line}");
                measured.push(one);
            }
        }
    }
    bench.follow().await?;
    for load in [Load::Sql, Load::Send] {
        println!("{}", ratio(load, &measured));
    }
    Ok(())
}

impl Bench {
    async fn measure(&self, load: Load, round: usize, walsender: Option<i32>) -> Result<(Value, Measured)> {
        let follows = walsender.is_some();
        let cpu = || (walsender.map(cpu_seconds), cpu_seconds(self.arguments.pid));
        let before = cpu();
        let transactions_a_second = match load {
            Load::Sql => self.insert().await?,
            Load::Send => self.send().await?,
        };
        let after = cpu();
        let line = json!({
            "what": load.name(),
            "round": round,
            "feed": if follows { "on" } else { "off" },
            "transactions_per_second": transactions_a_second,
            "walsender_cpu_seconds": after.0.zip(before.0).map(|(after, before)| after - before),
            "host_cpu_seconds": after.1 - before.1,
        });
        Ok((line, Measured { load, round, follows, transactions_a_second }))
    }

    /// Inserts by SQL, a row a transaction, through so many connections.
    async fn insert(&self) -> Result<f64> {
        let statement = format!(
            "insert into \"{}\".messages (data) values (jsonb_build_object('channel', $1::text, 'author', 'a', \
             'body', 'one of many'))",
            self.arguments.schema
        );
        let mut writers = Vec::new();
        for number in 0..self.arguments.writers {
            let client = connect(&self.arguments.database_url).await?;
            let prepared = client.prepare(&statement).await.context("the host's tables")?;
            writers.push((client, prepared, format!("feed-{number}")));
        }
        let begin = Instant::now();
        let until = begin + Duration::from_secs_f64(self.arguments.seconds);
        let writers = writers.into_iter().map(|(client, prepared, channel)| {
            tokio::spawn(async move {
                let mut count = 0_u64;
                while Instant::now() < until {
                    client.execute(&prepared, &[&channel]).await?;
                    count += 1;
                }
                Ok::<_, tokio_postgres::Error>(count)
            })
        });
        let mut count = 0;
        for writer in writers.collect::<Vec<_>>() {
            count += writer.await??;
        }
        Ok(count as f64 / begin.elapsed().as_secs_f64())
    }

    /// The same through the host, by the load client beside this program.
    async fn send(&self) -> Result<f64> {
        let load: PathBuf = std::env::current_exe()?.with_file_name("load");
        let output = Command::new(&load)
            .args(["--url", &format!("http://{}/api/mutation/messages:send", self.arguments.host)])
            .args(["--body", r#"{"channel":"feed-$a","author":"a","body":"one of many"}"#, "--numbers", "100"])
            .args(["--connections", &self.arguments.writers.to_string()])
            .args(["--seconds", &self.arguments.seconds.to_string()])
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("cannot run {}", load.display()))?;
        ensure!(output.status.success(), "load: {}", String::from_utf8_lossy(&output.stderr));
        let result: Value = serde_json::from_slice(&output.stdout)?;
        let errors = result["errors"].as_object().is_none_or(|errors| !errors.is_empty());
        ensure!(!errors, "load: {}", result["errors"]);
        result["requests_per_second"].as_f64().context("load's figure")
    }

    /// Has the host follow; gives the process of Postgres that serves it.
    async fn follow(&self) -> Result<i32> {
        let publication = self.publication();
        let known = self.psql.query_opt("select from pg_publication where pubname = $1", &[&publication]).await?;
        if known.is_none() {
            let create =
                format!("create publication \"{publication}\" for tables in schema \"{}\"", self.arguments.schema);
            self.psql.batch_execute(&create).await?;
        }
        self.until(true).await?.context("a slot")
    }

    /// Has nobody follow.
    async fn leave(&self) -> Result<Option<i32>> {
        self.psql.batch_execute(&format!("drop publication if exists \"{}\"", self.publication())).await?;
        self.psql
            .execute(
                "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()",
                &[],
            )
            .await?;
        self.until(false).await
    }

    fn publication(&self) -> String {
        format!("convoke_{}", self.arguments.schema)
    }

    /// Waits until there is a slot that is followed, or none.
    async fn until(&self, wanted: bool) -> Result<Option<i32>> {
        let slots = "select s.active_pid from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid \
             where s.database = current_database() and r.state = 'streaming'";
        let begin = Instant::now();
        loop {
            let rows = self.psql.query(slots, &[]).await?;
            ensure!(rows.len() <= 1, "several hosts follow this database");
            let pid: Option<i32> = rows.first().map(|row| row.get(0));
            if pid.is_some() == wanted {
                return Ok(pid);
            }
            if begin.elapsed() > PATIENCE {
                bail!("the host {} the log", if wanted { "does not follow" } else { "goes on following" });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Sql => "one row a transaction, by SQL",
            Self::Send => "messages:send",
        }
    }
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("cannot connect to Postgres")?;
    tokio::spawn(connection);
    Ok(client)
}

/// CPU time of a process of this machine, user and system; 0 where there is none.
fn cpu_seconds(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the fields may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// Of numbers in their order.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let lower = if sorted.len().is_multiple_of(2) { sorted[middle - 1] } else { upper };
    Some(f64::midpoint(lower, upper))
}

/// Transactions a second with the feed to those without, round by round.
fn ratio(load: Load, measured: &[Measured]) -> Value {
    let of = |follows: bool| measured.iter().filter(move |one| one.load == load && one.follows == follows);
    let pairs = of(true).filter_map(|on| of(false).find(|off| off.round == on.round).map(|off| (on, off)));
    let mut ratios: Vec<f64> =
        pairs.map(|(on, off)| on.transactions_a_second / off.transactions_a_second.max(f64::MIN_POSITIVE)).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    json!({
        "what": format!("{}: transactions a second with the feed to those without", load.name()),
        "ratio": median(&ratios),
        "min": ratios.first(),
        "max": ratios.last(),
        "rounds": ratios.len(),
    })
}
