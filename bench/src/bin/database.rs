//! Prepares the benchmark's database, and looks after the money: `database fill`, `database total`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use convoke_bench::tables::{Counts, Tables};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

#[derive(Parser)]
struct Arguments {
    /// Where Postgres is.
    #[arg(long, env = "BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The schema of the tables: with Convoke, the project's name.
    #[arg(long, env = "BENCH_SCHEMA", default_value = "bench")]
    schema: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the tables where they are missing, and replace their rows.
    Fill {
        #[arg(long, default_value_t = 100)]
        channels: u32,
        #[arg(long, default_value_t = 100)]
        messages_per_channel: u32,
        #[arg(long, default_value_t = 100_000)]
        accounts: u32,
        #[arg(long, default_value_t = 1_000_000)]
        balance: i64,
    },
    /// Count the accounts and their money.
    Total,
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "its one line of JSON is what run.py reads")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tables = Tables::new(&arguments.schema);
    let (client, connection) =
        tokio_postgres::connect(&arguments.database_url, NoTls).await.context("cannot connect to Postgres")?;
    let connection = tokio::spawn(connection);
    let answer = match arguments.command {
        Command::Fill { channels, messages_per_channel, accounts, balance } => {
            fill(&client, &tables, &Counts { channels, messages_per_channel, accounts, balance }).await?
        }
        Command::Total => total(&client, &tables).await?,
    };
    println!("{answer}");
    drop(client);
    connection.await??;
    Ok(())
}

async fn fill(client: &Client, tables: &Tables, counts: &Counts) -> Result<serde_json::Value> {
    client.batch_execute(&tables.create()).await.context("cannot make the tables")?;
    client.batch_execute(&tables.fill(counts)).await.context("cannot fill the tables")?;
    for vacuum in tables.vacuum() {
        client.batch_execute(&vacuum).await.context("cannot vacuum the tables")?;
    }
    // A long-lived child of the postmaster: run.py finds the whole server from it, when it runs on this machine.
    let child = client
        .query_one("select pid, version() from pg_stat_activity where backend_type = 'checkpointer'", &[])
        .await
        .context("cannot ask for the server's processes")?;
    let settings = client
        .query(
            "select name, setting from pg_settings \
             where name in ('fsync', 'synchronous_commit', 'shared_buffers', 'wal_level', 'max_connections')",
            &[],
        )
        .await?;
    let settings: serde_json::Map<_, _> =
        settings.iter().map(|row| (row.get(0), row.get::<_, String>(1).into())).collect();
    Ok(json!({ "checkpointer": child.get::<_, i32>(0), "version": child.get::<_, String>(1), "settings": settings }))
}

async fn total(client: &Client, tables: &Tables) -> Result<serde_json::Value> {
    let row = client.query_one(&tables.total(), &[]).await.context("cannot count the money")?;
    Ok(json!({ "accounts": row.get::<_, i64>(0), "total": row.get::<_, i64>(1) }))
}
