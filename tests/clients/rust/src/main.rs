//! Convex' Rust client, unmodified, against a Convoke server that serves the demo.
//!
//!     cargo run -- http://127.0.0.1:3210

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use convex::{ConvexClient, FunctionResult, QuerySubscription, Value};
use futures::StreamExt;
use tokio::time::timeout;

const WAIT_MAX: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("usage: convex-client-test URL")?;
    let mut client = within(ConvexClient::new(&url)).await??;
    let mut other = within(ConvexClient::new(&url)).await??;
    let channel = format!("rust-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    calls(&mut client, &channel).await?;
    println!("ok: query and mutation");
    subscription(&mut client, &mut other, &channel).await?;
    println!("ok: subscription");
    errors(&mut client, &channel).await?;
    println!("ok: errors");
    integers(&mut client).await
}

async fn calls(client: &mut ConvexClient, channel: &str) -> Result<()> {
    let before = value(within(client.query("messages:list", object([("channel", channel.into())]))).await??)?;
    ensure!(bodies(&before)?.is_empty(), "a new channel is empty: {before:?}");
    let id = send(client, channel, "one").await?;
    ensure!(matches!(id, Value::String(_)), "an id is a text: {id:?}");
    let after = value(within(client.query("messages:list", object([("channel", channel.into())]))).await??)?;
    ensure!(bodies(&after)? == ["one"], "a query after a mutation shows it: {after:?}");
    Ok(())
}

async fn subscription(client: &mut ConvexClient, other: &mut ConvexClient, channel: &str) -> Result<()> {
    let mut updates = within(client.subscribe("messages:list", object([("channel", channel.into())]))).await??;
    shows(&mut updates, &["one"]).await?;
    send(client, channel, "two").await?;
    shows(&mut updates, &["one", "two"]).await?;
    send(other, channel, "three").await?;
    shows(&mut updates, &["one", "two", "three"]).await
}

async fn errors(client: &mut ConvexClient, channel: &str) -> Result<()> {
    let empty = object([("channel", channel.into()), ("author", "rust".into()), ("body", "".into())]);
    match within(client.mutation("messages:send", empty)).await?? {
        FunctionResult::ConvexError(error) => {
            ensure!(error.message.contains("a message needs a body"), "{}", error.message);
            ensure!(text(&error.data, "code")? == "EMPTY_BODY", "{:?}", error.data);
        }
        result => bail!("an empty body was taken: {result:?}"),
    }
    match within(client.query("messages:nothing", BTreeMap::new())).await?? {
        FunctionResult::ErrorMessage(message) => {
            ensure!(message.contains("Could not find public function"), "{message}");
        }
        result => bail!("there is no such function: {result:?}"),
    }
    // A failure ends nothing but itself.
    send(client, channel, "four").await.map(|_| ())
}

/// A number beyond 2^53 travels exactly; one below is a float, as every number of JavaScript.
async fn integers(client: &mut ConvexClient) -> Result<()> {
    let seed = object([("accounts", 2.0.into()), ("balance", 100.0.into())]);
    value(within(client.mutation("accounts:seed", seed)).await??)?;
    let amount = (1_i64 << 60) + 1;
    let transfer = object([("from", 0.0.into()), ("to", 1.0.into()), ("amount", amount.into())]);
    match within(client.mutation("accounts:transfer", transfer)).await?? {
        FunctionResult::ConvexError(error) => {
            let Value::Object(fields) = &error.data else { bail!("no object: {:?}", error.data) };
            let Some(Value::Object(data)) = fields.get("data") else { bail!("no data: {fields:?}") };
            ensure!(matches!(data.get("amount"), Some(Value::Int64(found)) if *found == amount), "{data:?}");
            ensure!(matches!(data.get("balance"), Some(Value::Float64(_))), "{data:?}");
        }
        result => bail!("nobody has that much: {result:?}"),
    }
    println!("ok: integers");
    Ok(())
}

async fn send(client: &mut ConvexClient, channel: &str, body: &str) -> Result<Value> {
    let message = object([("channel", channel.into()), ("author", "rust".into()), ("body", body.into())]);
    value(within(client.mutation("messages:send", message)).await??)
}

/// Waits until a subscription shows these messages.
async fn shows(updates: &mut QuerySubscription, expected: &[&str]) -> Result<()> {
    loop {
        let update = within(updates.next()).await.with_context(|| format!("waiting for {expected:?}"))?;
        let update = value(update.context("the subscription ended")?)?;
        let bodies = bodies(&update)?;
        if bodies == expected {
            return Ok(());
        }
        ensure!(expected.starts_with(&bodies), "{bodies:?} on the way to {expected:?}");
    }
}

async fn within<T>(future: impl Future<Output = T>) -> Result<T> {
    timeout(WAIT_MAX, future).await.context("it took too long")
}

fn value(result: FunctionResult) -> Result<Value> {
    match result {
        FunctionResult::Value(value) => Ok(value),
        other => bail!("the call failed: {other:?}"),
    }
}

fn bodies(list: &Value) -> Result<Vec<&str>> {
    let Value::Array(messages) = list else { bail!("no list: {list:?}") };
    messages.iter().map(|message| text(message, "body")).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    let Value::Object(fields) = value else { bail!("no object: {value:?}") };
    match fields.get(field) {
        Some(Value::String(text)) => Ok(text),
        other => bail!("`{field}` is {other:?}"),
    }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> BTreeMap<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
