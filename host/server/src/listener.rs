//! The server that listens: accepts connections, within bounds, and brings their requests to the routes.
//!
//! A connection that is at nothing gives its place to a new one where there are too many: whoever opens connections and
//! says nothing keeps nobody out.

mod connection;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::UPGRADE;
use axum::http::{Response, StatusCode};
use convoke_invoke::RequestId;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use self::connection::{AnswerHeld, Connection, Phase, State, linger};
use crate::arriving::Arriving;
use crate::budget::{Budget, Held};
use crate::host::{Host, stopped};
use crate::limits::ServerLimits;
use crate::open_files::Room;
use crate::respond;
use crate::router;

/// After the system had no file left for a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// The head of a request: an address of 64 KiB, which is the longest there may be, and other lines.
const HEAD_BYTES_MAX: usize = 96 << 10;
/// How long who is refused may take to ask for something.
const ASKED_WITHIN: Duration = Duration::from_secs(1);

/// Serves until `shutdown` ends, then finishes the requests that run. Streams and sockets, which have no end of their own,
/// are ended: their clients come back by themselves.
///
/// # Errors
/// When the listener fails.
pub async fn serve<F>(host: Arc<Host>, listener: TcpListener, shutdown: F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let door = Arc::new(Door::new(&host));
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            stream = accept(&listener) => door.admit(stream),
        }
    }
    drop(listener);
    host.stopping.send_replace(true);
    // Each connection has a receiver until its requests are answered, and each socket until its calls are.
    host.stopping.closed().await;
    Ok(())
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What all connections of a listener share.
struct Door {
    host: Arc<Host>,
    router: Router,
    limits: ServerLimits,
    places: Arc<Budget>,
    lingering: Arc<Budget>,
    open: Mutex<Open>,
}

/// The connections there are, the oldest first.
#[derive(Default)]
struct Open {
    next: u64,
    states: BTreeMap<u64, Arc<State>>,
}

impl Door {
    fn new(host: &Arc<Host>) -> Self {
        let limits = host.server_limits.clone();
        let Room { connections, lingering } = host.room;
        let wanted = limits.connections_max;
        if connections < wanted {
            tracing::info!(connections, wanted, "the open files allow fewer connections than wanted: see `ulimit -n`");
        }
        Self {
            router: router::router(Arc::clone(host)),
            host: Arc::clone(host),
            limits,
            places: Budget::new(wanted.min(connections)),
            lingering: Budget::new(lingering),
            open: Mutex::default(),
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream) {
        // Answers are written whole; waiting to fill a packet only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
        let place = self.places.hold(1).or_else(|| self.evict().then(|| self.places.hold_anyway(1)));
        match place {
            // In the list before it runs: where many come at once, the oldest of them make room for the others.
            Some(place) => {
                let state = State::new(Arriving::new(&self.host.bounds.bodies));
                let listed = self.list(&state);
                tokio::spawn(Arc::clone(self).hold(stream, place, state, listed));
            }
            None => self.refuse(stream),
        }
    }

    /// Ends a connection that is at nothing, one that never asked for anything first; false where there is none.
    fn evict(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |phase| open.states.values().find(|state| state.phase() == phase && state.evict());
        at(Phase::New).or_else(|| at(Phase::Idle)).is_some()
    }

    fn refuse(&self, mut stream: TcpStream) {
        tracing::debug!("a connection is refused: there are too many");
        // Where even this cannot be said, the connection just ends.
        let Some(lingering) = self.lingering.hold(1) else { return };
        tokio::spawn(async move {
            let id = RequestId::random();
            let body = respond::failure_text(&respond::at_limit("connections_max"), id);
            let answer = format!(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 {}: {id}\r\ncontent-length: {}\r\n\r\n{body}",
                respond::REQUEST_ID,
                body.len()
            );
            // An answer to what was not asked yet is an error to some clients.
            let _ = timeout(ASKED_WITHIN, stream.readable()).await;
            if stream.write_all(answer.as_bytes()).await.is_ok() {
                linger(stream, None, lingering).await;
            }
        });
    }

    /// Serves a connection to its end, or until it is a socket.
    async fn hold(self: Arc<Self>, stream: TcpStream, place: Held, state: Arc<State>, _listed: Listed) {
        let (head_max, stall_max) = (Duration::from_millis(self.limits.head_ms_max), self.host.stall_max);
        let lingering = Arc::clone(&self.lingering);
        let io = Connection::new(stream, Arc::clone(&state), head_max, stall_max, place, lingering);
        let service = {
            let (door, state) = (Arc::clone(&self), Arc::clone(&state));
            service_fn(move |request| Arc::clone(&door).answer(request, Arc::clone(&state)))
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(self.limits.idle_ms_max))
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let mut stopping = self.host.stopping.subscribe();
        loop {
            tokio::select! {
                ended = &mut connection => return ended_with(ended),
                () = state.evicted.notified() => if state.is_evicted() { return },
                () = stopped(&mut stopping) => break,
            }
        }
        // Of a request that has not come whole nothing was begun.
        if state.phase() != Phase::New {
            connection.as_mut().graceful_shutdown();
            ended_with(connection.await);
        }
    }

    fn list(self: &Arc<Self>, state: &Arc<State>) -> Listed {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.next += 1;
        let number = open.next;
        open.states.insert(number, Arc::clone(state));
        Listed { door: Arc::clone(self), number }
    }

    async fn answer(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
        state: Arc<State>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        state.begin();
        let mut work = Work { state, held: AnswerHeld::default() };
        let mut request = request.map(Body::new);
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(work.state.arriving().clone());
        }
        let router = match self.take_in(&request) {
            Ok(held) => {
                work.held.request = held;
                self.router.clone()
            }
            Err(limit) => router::refusal(respond::at_limit(limit)),
        };
        let response = router::answer(router, request).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            work.state.upgrade();
        }
        // A stream is among the sockets, which are counted by themselves.
        if response.extensions().get::<respond::Endless>().is_some() {
            work.held.request = None;
        }
        // What is there already is counted, not refused: the function has run.
        let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        work.held.answer = bytes.filter(|bytes| *bytes > 0).map(|bytes| self.host.bounds.answers.hold_anyway(bytes));
        Ok(response.map(|body| AnswerBody { body, _work: work }))
    }

    /// A part of what the host can do at once, for what is more than a look at its health; else the limit that is reached.
    fn take_in(&self, request: &Request) -> Result<Option<Held>, &'static str> {
        if !router::is_api(request.uri().path()) {
            return Ok(None);
        }
        if self.host.bounds.answers.is_full() {
            return Err("answers_bytes_max");
        }
        self.host.bounds.requests.hold(1).map(Some).ok_or("requests_max")
    }
}

fn ended_with(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection ended early");
    }
}

/// A connection in the list, until it has ended or is a socket.
struct Listed {
    door: Arc<Door>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.door.open.lock().unwrap_or_else(PoisonError::into_inner).states.remove(&self.number);
    }
}

/// A request in work, until its answer is made. What it holds is its connection's then, until the answer is sent.
struct Work {
    state: Arc<State>,
    held: AnswerHeld,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.state.made(std::mem::take(&mut self.held));
    }
}

/// An answer's body, and what is held for it.
struct AnswerBody {
    body: Body,
    _work: Work,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
