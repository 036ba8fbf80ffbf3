//! A proxy that knows Postgres' messages.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use convoke_postgres::Config;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_postgres::config::Host;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Both sides lose the connection.
    Cut,
    /// Nothing goes through any more, either way.
    Stall,
}

/// When it happens, counted from the message that begins the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// After so many messages went to Postgres.
    AfterSent(usize),
    /// After so many went to the host.
    AfterAnswered(usize),
}

/// Listens on a socket of its own.
pub(crate) struct Proxy {
    directory: tempfile::TempDir,
    config: Config,
    plan: Arc<Plan>,
}

#[derive(Default)]
struct Plan {
    armed: Mutex<Option<(Point, Fault)>>,
    /// How often it was armed: a connection counts anew for each.
    round: AtomicUsize,
    struck: AtomicUsize,
    /// Connections that were struck and that Postgres has not ended yet.
    ending: AtomicUsize,
}

/// How a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No transaction since it was looked for.
    Before,
    /// So many messages of a transaction went to Postgres, and so many came back.
    Counting {
        round: usize,
        sent: usize,
        answered: usize,
    },
    Struck(Fault),
}

impl Proxy {
    pub(crate) fn start(postgres: &Config) -> Self {
        let [Host::Unix(server)] = postgres.get_hosts() else { panic!("a Postgres on a socket") };
        let port = postgres.get_ports().first().copied().unwrap_or(5432);
        let server = server.join(format!(".s.PGSQL.{port}"));
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).expect("a socket");
        let text = format!(
            "host={} port=5432 user={} dbname={}",
            directory.path().display(),
            postgres.get_user().expect("a user"),
            postgres.get_dbname().expect("a database"),
        );
        let mut config: Config = text.parse().expect("settings");
        if let Some(password) = postgres.get_password() {
            config.password(password);
        }
        let plan = Arc::new(Plan::default());
        tokio::spawn(listen(listener, server, Arc::clone(&plan)));
        Self { directory, config, plan }
    }

    pub(crate) fn config(&self) -> Config {
        assert!(self.directory.path().exists());
        self.config.clone()
    }

    /// Strikes at the next transaction, once.
    pub(crate) fn arm(&self, point: Point, fault: Fault) {
        self.plan.struck.store(0, Ordering::SeqCst);
        self.plan.round.fetch_add(1, Ordering::SeqCst);
        *self.plan.armed.lock() = Some((point, fault));
    }

    /// Whether it struck.
    pub(crate) fn disarm(&self) -> bool {
        *self.plan.armed.lock() = None;
        self.plan.struck.load(Ordering::SeqCst) > 0
    }

    /// Waits until Postgres has ended what was struck: it may go on with what it got.
    pub(crate) async fn until_quiet(&self) {
        for _ in 0..2_000 {
            if self.plan.ending.load(Ordering::SeqCst) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("Postgres goes on with a connection that is lost");
    }
}

async fn listen(listener: UnixListener, server: PathBuf, plan: Arc<Plan>) {
    while let Ok((host, _)) = listener.accept().await {
        let (server, plan) = (server.clone(), Arc::clone(&plan));
        tokio::spawn(async move {
            let Ok(server) = UnixStream::connect(&server).await else { return };
            let ((host_reads, host_writes), (server_reads, server_writes)) = (host.into_split(), server.into_split());
            let link = Arc::new(Link { plan, state: watch::channel(State::Before).0 });
            tokio::spawn(Arc::clone(&link).answer(server_reads, host_writes));
            link.send(host_reads, server_writes).await;
        });
    }
}

/// One connection of the host, and the one of the proxy behind it.
struct Link {
    plan: Arc<Plan>,
    state: watch::Sender<State>,
}

impl Link {
    /// From the host to Postgres.
    async fn send(self: Arc<Self>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut state = self.state.subscribe();
        let mut typed = false;
        loop {
            let message = tokio::select! {
                message = read_message(&mut from, typed) => message,
                () = until_cut(&mut state) => break,
            };
            let Some(message) = message else { break };
            // The first message of a session has no type; a request to cancel is alone.
            typed |= message.get(4..8) == Some(&[0, 3, 0, 0]);
            self.begin_counting(&message);
            if self.is_struck(Point::AfterSent) || to.write_all(&message).await.is_err() {
                self.wait_or_end(&mut from).await;
                break;
            }
            self.state.send_if_modified(|state| match state {
                State::Counting { sent, .. } => {
                    *sent += 1;
                    true
                }
                _ => false,
            });
            if self.is_struck(Point::AfterSent) {
                self.wait_or_end(&mut from).await;
                break;
            }
        }
        // Postgres reads to the end of what it was sent, and ends.
        drop(to);
    }

    /// From Postgres to the host.
    async fn answer(self: Arc<Self>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut typed = false;
        loop {
            let Some(message) = read_answer(&mut from, &mut typed).await else { break };
            // An answer that is there and does not arrive.
            if self.is_struck(Point::AfterAnswered) || to.write_all(&message).await.is_err() {
                break;
            }
            self.state.send_if_modified(|state| match state {
                State::Counting { answered, .. } => {
                    *answered += 1;
                    true
                }
                _ => false,
            });
        }
        let struck = *self.state.borrow();
        let stalls = struck == State::Struck(Fault::Stall);
        let open = if stalls { Some(to) } else { None };
        let mut rest = vec![0; 4096];
        while from.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
        if matches!(struck, State::Struck(_)) {
            self.plan.ending.fetch_sub(1, Ordering::SeqCst);
        }
        drop(open);
    }

    fn begin_counting(&self, message: &[u8]) {
        // A simple query whose text is the beginning of a mutation's transaction, or of what goes before it.
        let begins = message.starts_with(b"Q") && message.get(5..).is_some_and(|text| text.starts_with(b"begin"));
        if begins && self.plan.armed.lock().is_some() {
            let now = self.plan.round.load(Ordering::SeqCst);
            self.state.send_if_modified(|state| {
                let begins = match *state {
                    State::Before => true,
                    // A transaction may have another one before it, which counts with it.
                    State::Counting { round, .. } => round != now,
                    State::Struck(_) => false,
                };
                if begins {
                    *state = State::Counting { round: now, sent: 0, answered: 0 };
                }
                begins
            });
        }
    }

    /// Strikes where the point is reached; whether this connection was ever struck.
    fn is_struck(&self, side: fn(usize) -> Point) -> bool {
        let State::Counting { sent, answered, .. } = *self.state.borrow() else {
            return matches!(*self.state.borrow(), State::Struck(_));
        };
        let mut armed = self.plan.armed.lock();
        let here = [Point::AfterSent(sent), Point::AfterAnswered(answered)];
        let Some((point, fault)) = *armed else { return false };
        if !here.contains(&point) || side(0) != zeroed(point) {
            return false;
        }
        *armed = None;
        self.plan.struck.fetch_add(1, Ordering::SeqCst);
        self.plan.ending.fetch_add(1, Ordering::SeqCst);
        self.state.send_replace(State::Struck(fault));
        true
    }

    /// What a host whose connection stalls does before it ends the connection itself.
    async fn wait_or_end(&self, from: &mut OwnedReadHalf) {
        if *self.state.borrow() == State::Struck(Fault::Stall) {
            let mut rest = vec![0; 4096];
            while from.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
        }
    }
}

fn zeroed(point: Point) -> Point {
    match point {
        Point::AfterSent(_) => Point::AfterSent(0),
        Point::AfterAnswered(_) => Point::AfterAnswered(0),
    }
}

/// Returns when the connection is cut by the other direction.
async fn until_cut(state: &mut watch::Receiver<State>) {
    if state.wait_for(|state| *state == State::Struck(Fault::Cut)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A message with its type, where it has one, and its length.
async fn read_message(from: &mut OwnedReadHalf, typed: bool) -> Option<Vec<u8>> {
    let header = if typed { 5 } else { 4 };
    let mut message = vec![0; header];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_be_bytes(message[header - 4..].try_into().ok()?) as usize;
    message.resize(header - 4 + length, 0);
    from.read_exact(&mut message[header..]).await.ok()?;
    Some(message)
}

/// The same from Postgres, which answers a request for TLS by a letter.
async fn read_answer(from: &mut OwnedReadHalf, typed: &mut bool) -> Option<Vec<u8>> {
    if !*typed {
        *typed = true;
        let mut letter = [0];
        from.read_exact(&mut letter).await.ok()?;
        if matches!(letter[0], b'N' | b'S') {
            *typed = false;
            return Some(letter.to_vec());
        }
        let mut rest = vec![letter[0], 0, 0, 0, 0];
        from.read_exact(&mut rest[1..]).await.ok()?;
        let length = u32::from_be_bytes(rest[1..].try_into().ok()?) as usize;
        rest.resize(1 + length, 0);
        from.read_exact(&mut rest[5..]).await.ok()?;
        return Some(rest);
    }
    read_message(from, true).await
}
