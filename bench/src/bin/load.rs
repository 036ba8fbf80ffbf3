//! A load client for the loopback: HTTP/1.1 with keep-alive over plain sockets, a fixed number of connections, each with
//! one request on its way, for a bounded time. Prints one line of JSON. It runs on one thread, so that the server under
//! test has the rest of the machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// Nothing may run longer: a benchmark ends by itself.
const SECONDS_MAX: f64 = 300.0;
const CONNECTIONS_MAX: usize = 1_024;
/// What an answer may take after the time is up, and what a connection may take to open.
const GRACE: Duration = Duration::from_secs(10);
const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Parser)]
#[command(after_help = "example: load --url http://127.0.0.1:3210/api/query/messages:list --body \
                        '{\"channel\":\"channel-$a\",\"limit\":50}' --numbers 100 --seconds 5")]
struct Arguments {
    /// Where to send the requests: `http://127.0.0.1:PORT/PATH`.
    #[arg(long)]
    url: String,
    /// The body. `$a` and `$b` become two different random numbers below `--numbers`, `$id` a random line of `--ids`.
    #[arg(long, default_value = "{}")]
    body: String,
    #[arg(long, default_value_t = 100_000)]
    numbers: u32,
    /// A file of ids, one a line.
    #[arg(long)]
    ids: Option<PathBuf>,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The same seed sends the same bodies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "its one line of JSON is the result")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!((0.0..=SECONDS_MAX).contains(&arguments.seconds), "`--seconds` is 0 to {SECONDS_MAX}");
    ensure!((1..=CONNECTIONS_MAX).contains(&arguments.connections), "`--connections` is 1 to {CONNECTIONS_MAX}");
    let requests = Rc::new(Requests::new(&arguments)?);
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(arguments.seconds);
    let tally = LocalSet::new()
        .run_until(async {
            let connections: Vec<_> = (0..arguments.connections)
                .map(|number| {
                    let random = SmallRng::seed_from_u64(arguments.seed.wrapping_mul(1_000_003) + number as u64);
                    tokio::task::spawn_local(connection(Rc::clone(&requests), random, until))
                })
                .collect();
            let mut total = Tally::default();
            for connection in connections {
                total.add(connection.await?);
            }
            anyhow::Ok(total)
        })
        .await?;
    println!("{}", tally.report(started.elapsed()));
    Ok(())
}

/// The requests to send.
struct Requests {
    address: String,
    head: String,
    body: Vec<Piece>,
    numbers: u32,
    ids: Vec<String>,
}

/// A part of a body.
enum Piece {
    Text(String),
    A,
    B,
    Id,
}

impl Requests {
    fn new(arguments: &Arguments) -> Result<Self> {
        let rest = arguments.url.strip_prefix("http://").context("the URL must begin with `http://`")?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        ensure!(
            address.starts_with("127.0.0.1:") || address.starts_with("localhost:"),
            "only this machine may be put under load, not `{address}`"
        );
        let body = pieces(&arguments.body);
        let ids = match &arguments.ids {
            Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
            None => String::new(),
        };
        let ids: Vec<String> = ids.lines().map(str::to_owned).collect();
        ensure!(!ids.is_empty() || !body.iter().any(|piece| matches!(piece, Piece::Id)), "`$id` needs `--ids`");
        ensure!(arguments.numbers >= 2, "`--numbers` is at least 2");
        let head =
            format!("POST /{path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: ");
        Ok(Self { address: address.to_owned(), head, body, numbers: arguments.numbers, ids })
    }

    fn write(&self, random: &mut SmallRng, body: &mut String, request: &mut Vec<u8>) {
        body.clear();
        let a = random.random_range(0..self.numbers);
        let b = (a + random.random_range(1..self.numbers)) % self.numbers;
        for piece in &self.body {
            let _ = match piece {
                Piece::Text(text) => body.write_str(text),
                Piece::A => write!(body, "{a}"),
                Piece::B => write!(body, "{b}"),
                Piece::Id => body.write_str(&self.ids[random.random_range(0..self.ids.len())]),
            };
        }
        request.clear();
        request.extend_from_slice(self.head.as_bytes());
        request.extend_from_slice(body.len().to_string().as_bytes());
        request.extend_from_slice(b"\r\n\r\n");
        request.extend_from_slice(body.as_bytes());
    }
}

fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let place = |mark: &str| rest.find(mark).unwrap_or(rest.len());
        let at = place("$a").min(place("$b")).min(place("$id"));
        if at > 0 {
            pieces.push(Piece::Text(rest[..at].to_owned()));
        }
        rest = &rest[at..];
        for (mark, piece) in [("$id", Piece::Id), ("$a", Piece::A), ("$b", Piece::B)] {
            if let Some(after) = rest.strip_prefix(mark) {
                pieces.push(piece);
                rest = after;
                break;
            }
        }
    }
    pieces
}

/// What came back.
#[derive(Default)]
struct Tally {
    latencies_us: Vec<u32>,
    errors: BTreeMap<String, u64>,
    sample: Option<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.sample = self.sample.take().or(other.sample);
    }

    fn error(&mut self, name: String) {
        *self.errors.entry(name).or_default() += 1;
    }

    fn report(mut self, elapsed: Duration) -> serde_json::Value {
        self.latencies_us.sort_unstable();
        let milliseconds = |percent: usize| {
            let last = self.latencies_us.len().saturating_sub(1);
            self.latencies_us.get(last * percent / 100).map(|us| f64::from(*us) / 1_000.0)
        };
        json!({
            "requests": self.latencies_us.len(),
            "seconds": elapsed.as_secs_f64(),
            "requests_per_second": self.latencies_us.len() as f64 / elapsed.as_secs_f64(),
            "p50_ms": milliseconds(50),
            "p99_ms": milliseconds(99),
            "max_ms": milliseconds(100),
            "errors": self.errors,
            "sample": self.sample,
        })
    }
}

async fn connection(requests: Rc<Requests>, mut random: SmallRng, until: Instant) -> Tally {
    let mut tally = Tally::default();
    let all = exchange(&requests, &mut random, until, &mut tally);
    let failure = match tokio::time::timeout_at((until + GRACE).into(), all).await {
        Ok(Ok(())) => return tally,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "no answer in time".to_owned(),
    };
    tally.error(failure);
    tally
}

/// One request after the other, until the time is up or the connection fails.
async fn exchange(requests: &Requests, random: &mut SmallRng, until: Instant, tally: &mut Tally) -> Result<()> {
    let mut stream = TcpStream::connect(&requests.address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    let mut body = String::new();
    let mut response = Vec::with_capacity(64 * 1024);
    while Instant::now() < until {
        requests.write(random, &mut body, &mut request);
        let sent = Instant::now();
        stream.write_all(&request).await.context("cannot send")?;
        let head = read_response(&mut stream, &mut response).await?;
        let text = || String::from_utf8_lossy(&response[head.body_begins..]).chars().take(400).collect::<String>();
        if head.status == 200 {
            tally.latencies_us.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            tally.sample.get_or_insert_with(text);
        } else {
            tally.error(format!("status {}: {}", head.status, text()));
        }
    }
    Ok(())
}

/// What the head of an answer says.
struct Head {
    status: u16,
    body_begins: usize,
    body_bytes: usize,
}

/// Reads one whole answer into `buffer`.
async fn read_response(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Head> {
    buffer.clear();
    let mut head: Option<Head> = None;
    loop {
        let read = stream.read_buf(buffer).await.context("cannot receive")?;
        ensure!(read > 0, "the server closed the connection");
        if head.is_none() {
            head = parse_head(buffer)?;
        }
        match head {
            Some(head) if buffer.len() >= head.body_begins + head.body_bytes => return Ok(head),
            _ => ensure!(buffer.len() <= RESPONSE_BYTES_MAX, "the answer is too long"),
        }
    }
}

fn parse_head(buffer: &[u8]) -> Result<Option<Head>> {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&buffer[..end]).context("the head is no text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let status = status.context("the answer is no HTTP/1.1")?;
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if name.eq_ignore_ascii_case("content-length") {
            let body_bytes = value.trim().parse().context("the content length is no number")?;
            return Ok(Some(Head { status, body_begins: end + 4, body_bytes }));
        }
    }
    bail!("the answer has no content length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_becomes_a_request() {
        let requests = Requests {
            address: "127.0.0.1:1".to_owned(),
            head: "POST / HTTP/1.1\r\ncontent-length: ".to_owned(),
            body: pieces("{\"from\":$a,\"to\":$b,\"id\":\"$id\",\"cost\":\"5$\"}"),
            numbers: 2,
            ids: vec!["x".to_owned()],
        };
        let mut request = Vec::new();
        requests.write(&mut SmallRng::seed_from_u64(1), &mut String::new(), &mut request);
        let text = String::from_utf8(request).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&body.len().to_string()), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_ne!(body["from"], body["to"]);
        assert_eq!(body["id"], "x");
        assert_eq!(body["cost"], "5$");
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
        assert!(parse_head(&answer[..20]).expect("unfinished").is_none());
        let head = parse_head(answer).expect("finished").expect("whole");
        assert_eq!((head.status, head.body_begins, head.body_bytes), (404, answer.len() - 2, 2));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
