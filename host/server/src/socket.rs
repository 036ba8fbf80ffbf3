//! `GET /api/sync` and `/api/{version}/sync`: Convex' sync protocol on a WebSocket.
//!
//! `convoke-convex` says what is said; here are the socket, the timers, and the functions that run. A result is sent when
//! the socket has room for it, and then it is the newest: a slow client costs no memory.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use convoke_convex::{
    CLOSE_GOING_AWAY, Call as Called, ClientVersion, Close, Command, Committed, Encoded, FunctionError,
    MUTATION_WAIT_MS_MAX, PING_INTERVAL_MS, ProtocolError, QueryResult, RequestId, SILENCE_MS_MAX,
    SOCKET_PING_INTERVAL_MS, ServerMessage, Session, Timestamp,
};
use convoke_invoke::{Answer, Call, CallKey, CallOrigin, Caller, CommitWatch, Encoding};
use convoke_live::{CATCH_UP_MAX, Evaluation, Live, QueryKey, Watcher};
use convoke_model::{Failure, Kind};
use futures_util::SinkExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_tungstenite::tungstenite;
use uuid::Uuid;

use crate::arriving::Arriving;
use crate::budget::Held;
use crate::host::{Host, stopped};
use crate::respond::{self, Stamp};

/// How long a transition waits before it is looked again whether there is room for it.
const ROOM_AGAIN: Duration = Duration::from_millis(100);
/// Kept for as long as a socket is open, most of which say little.
const READ_BUFFER_BYTES: usize = 2 << 10;

pub(crate) async fn by_header(
    State(host): State<Arc<Host>>,
    headers: HeaderMap,
    arriving: Option<Extension<Arriving>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let client = headers.get("convex-client").and_then(|value| value.to_str().ok()).unwrap_or_default();
    open(host, ClientVersion::from_header(client), arriving, upgrade)
}

pub(crate) async fn by_version(
    State(host): State<Arc<Host>>,
    version: Result<Path<String>, PathRejection>,
    arriving: Option<Extension<Arriving>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match version {
        Ok(Path(version)) => open(host, ClientVersion::from_path_segment(&version), arriving, upgrade),
        Err(rejection) => respond::failure(&respond::invalid(rejection.body_text()), Stamp::new()),
    }
}

fn open(
    host: Arc<Host>,
    client: ClientVersion,
    arriving: Option<Extension<Arriving>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return respond::failure(&respond::invalid(rejection.body_text()), Stamp::new()),
    };
    let live = match host.live.get() {
        Ok(live) => live.clone(),
        Err(failure) => return respond::failure(&failure, Stamp::new()),
    };
    let Some(place) = host.bounds.sockets.hold(1) else {
        return respond::failure(&respond::at_limit("sockets_max"), Stamp::new());
    };
    let bytes_max = host.engine.limits().body_bytes_max;
    let arriving = arriving.map_or_else(|| Arriving::new(&host.bounds.bodies), |Extension(arriving)| arriving);
    upgrade.read_buffer_size(READ_BUFFER_BYTES).max_message_size(bytes_max).max_frame_size(bytes_max).on_upgrade(
        async move |socket| {
            Conversation::new(host, live, client, socket, arriving).hold().await;
            drop(place);
        },
    )
}

/// What ended elsewhere.
enum Done {
    Mutation { call: Taken, answer: Box<Answer>, room: Held },
    Action { call: Taken, answer: Box<Answer>, room: Held },
}

/// A call that runs. Its text counts among the bodies until it has been answered, also where its socket is gone.
struct Taken {
    call: Called,
    held: Held,
}

/// Why a conversation ends.
enum End {
    /// The client is gone, or does not read.
    Gone,
    Said(Close),
}

/// One socket.
struct Conversation {
    host: Arc<Host>,
    live: Live,
    socket: WebSocket,
    arriving: Arriving,
    /// From when on a part of a message was seen to be there, and no more than that.
    partial_since: Option<Instant>,
    session: Session,
    session_id: Uuid,
    /// Whether the client has not been connected before, and so has sent nothing before.
    is_first: bool,
    watcher: Watcher,
    /// The text of the queries that the client shows.
    shown: Held,
    /// The text of the calls that wait, among all bodies.
    asked: Held,
    /// The bytes of those that run.
    taken_bytes: usize,
    done: mpsc::UnboundedReceiver<Done>,
    report: mpsc::UnboundedSender<Done>,
    /// No transition before this position of the log: the client knows what was committed there.
    at_least: u64,
    /// Until when what the client has seen elsewhere has to be there.
    catch_up: Option<(Timestamp, Instant)>,
    /// The mutation that runs.
    committing: Option<(RequestId, CommitWatch)>,
    /// Mutations and actions that have not reported yet.
    running: usize,
    stopping: watch::Receiver<bool>,
    /// Tells that positions of before mean nothing any more.
    replaced: watch::Receiver<()>,
    /// When the last message was sent.
    spoke: Instant,
    heard: Instant,
    /// When to look again whether there is room for a transition.
    room_at: Option<Instant>,
}

impl Conversation {
    fn new(host: Arc<Host>, live: Live, client: ClientVersion, socket: WebSocket, arriving: Arriving) -> Self {
        let (report, done) = mpsc::unbounded_channel();
        Self {
            watcher: Watcher::new(live.clone()),
            shown: host.bounds.queries.hold_anyway(0),
            asked: host.bounds.bodies.hold_anyway(0),
            taken_bytes: 0,
            stopping: host.stopping.subscribe(),
            replaced: live.replaced(),
            host,
            live,
            socket,
            arriving,
            partial_since: None,
            session: Session::new(client),
            session_id: Uuid::nil(),
            is_first: false,
            done,
            report,
            at_least: 0,
            catch_up: None,
            committing: None,
            running: 0,
            spoke: Instant::now(),
            heard: Instant::now(),
            room_at: None,
        }
    }

    async fn hold(mut self) {
        let Err(end) = self.talk().await;
        if let End::Said(close) = end {
            if let Some(message) = close.message {
                let _ = self.socket.send(Message::text(message)).await;
            }
            let frame = close.code.map(|code| CloseFrame { code, reason: close.reason.into() });
            let _ = self.socket.send(Message::Close(frame)).await;
        }
    }

    async fn talk(&mut self) -> Result<std::convert::Infallible, End> {
        let mut pings = interval(Duration::from_millis(SOCKET_PING_INTERVAL_MS));
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What it asks for beyond that waits in its own buffers.
                message = self.socket.recv(), if self.session.takes_calls() => self.hear(message).await?,
                Some(done) = self.done.recv() => {
                    if let Some(next) = self.finish(done).await? {
                        self.obey(next)?;
                    }
                }
                () = self.watcher.changed() => self.session.invalidate(),
                _ = pings.tick() => self.keep_alive().await?,
                () = sleep_until(self.room_at.unwrap_or_else(Instant::now)), if self.room_at.is_some() => {}
                () = stopped(&mut self.stopping) => break,
                _ = self.replaced.changed() => break,
            }
            self.transition().await?;
        }
        // A call that runs is answered. What waits behind it was never begun, and is sent again to whoever serves next.
        while self.running > 0
            && let Some(done) = self.done.recv().await
        {
            self.finish(done).await?;
        }
        Err(End::Said(Close::new(CLOSE_GOING_AWAY, "")))
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        self.heard = Instant::now();
        match message {
            Some(Ok(Message::Text(text))) => {
                self.arriving.is_whole();
                self.partial_since = None;
                let commands = self.session.receive(&text, now_ms()).map_err(|error| said(&error))?;
                if !self.count() {
                    return Err(End::Said(Close::too_busy()));
                }
                let mut subscribes = false;
                for command in commands {
                    subscribes |= matches!(command, Command::Subscribe { .. });
                    self.obey(command)?;
                }
                if subscribes && let Some(now) = self.live.log_position().await {
                    // A first result shows what had been written when it was asked for, by whichever door.
                    self.at_least = self.at_least.max(now);
                }
                Ok(())
            }
            Some(Err(error)) if is_too_large(&error) => {
                Err(said(&ProtocolError::MessageTooLarge { limit: self.host.engine.limits().body_bytes_max }))
            }
            Some(Err(error)) if is_no_room(&error) => Err(End::Said(Close::too_busy())),
            Some(Ok(Message::Binary(_))) => Err(said(&ProtocolError::Binary)),
            Some(Ok(Message::Ping(bytes))) => {
                self.arriving.had_control(bytes.len());
                // The pong has to be on its way before more is heard: who pings and reads nothing is not listened to.
                self.socket.flush().await.map_err(|_| End::Gone)
            }
            Some(Ok(Message::Pong(bytes))) => {
                self.arriving.had_control(bytes.len());
                Ok(())
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Connected { session_id, connection_count, max_observed, .. } => {
                self.session_id = session_id;
                self.is_first = connection_count == 0;
                if let Some(observed) = max_observed {
                    self.at_least = self.live.position_of(observed.nanos());
                    self.catch_up = Some((observed, Instant::now() + CATCH_UP_MAX));
                }
                Ok(())
            }
            Command::Subscribe { query_id, path, args, journal } => {
                // What is no function's path is shown as the error that it gives.
                let key = self.live.key(&path, &args, journal.as_deref()).unwrap_or_else(|| QueryKey {
                    path: path.into(),
                    args: args.into(),
                    journal: None,
                });
                // One of the system: the client comes back later, perhaps to another host.
                self.watcher
                    .add(query_id, &key)
                    .map_err(|failure| End::Said(Close::of_failure(&failure).unwrap_or_default()))
            }
            Command::Unsubscribe { query_id } => {
                self.watcher.remove(query_id);
                Ok(())
            }
            Command::Mutate(call) => {
                if now_ms().saturating_sub(call.received_ms) > MUTATION_WAIT_MS_MAX {
                    return Err(said(&ProtocolError::MutationWaitedTooLong { limit_ms: MUTATION_WAIT_MS_MAX }));
                }
                self.mutate(call)
            }
            Command::Act(call) => {
                self.admit()?;
                let call = self.take(call);
                let (host, report) = (Arc::clone(&self.host), self.report.clone());
                tokio::spawn(async move {
                    let Called { path, args, .. } = &call.call;
                    let action = Call { kind: Kind::Action, path, args, encoding: Encoding::Clean };
                    let answer = Box::new(host.invoker.enter(&Caller::new(CallOrigin::Socket), action).await);
                    let room = room_for(&host, &answer);
                    let _ = report.send(Done::Action { call, answer, room });
                });
                Ok(())
            }
            Command::Authenticate(_) => {
                let words = "NoAuthProvider: this deployment has no authentication provider".to_owned();
                match self.session.authenticated(Err(words)) {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(said(&error)),
                    Err(misuse) => Err(internal(&misuse)),
                }
            }
            // There are no identities yet, so nothing changes.
            Command::SignOut => Ok(()),
        }
    }

    /// A mutation, once, however often its client sends it.
    fn mutate(&mut self, call: Called) -> Result<(), End> {
        self.admit()?;
        let taken = self.take(call);
        let live = self.live.clone();
        let commit = CommitWatch::new(move || live.newest());
        self.committing = Some((taken.call.request_id, commit.clone()));
        let (host, report) = (Arc::clone(&self.host), self.report.clone());
        let number = taken.call.request_id;
        let key = CallKey::Request { session: self.session_id, number, is_first: self.is_first };
        tokio::spawn(async move {
            let call = &taken.call;
            let caller = Caller { key: Some(key), commit: Some(commit), ..Caller::new(CallOrigin::Socket) };
            let mutation = Call { kind: Kind::Mutation, path: &call.path, args: &call.args, encoding: Encoding::Clean };
            let answer = Box::new(host.invoker.enter(&caller, mutation).await);
            let room = room_for(&host, &answer);
            let _ = report.send(Done::Mutation { call: taken, answer, room });
        });
        Ok(())
    }

    /// Whether another call may begin: not while there is too much to send already. The client sends it again later.
    fn admit(&mut self) -> Result<(), End> {
        if self.host.bounds.answers.is_full() {
            return Err(End::Said(Close::too_busy()));
        }
        self.running += 1;
        Ok(())
    }

    /// Answers a call, and returns what waited for it.
    async fn finish(&mut self, done: Done) -> Result<Option<Command>, End> {
        self.running = self.running.saturating_sub(1);
        let next = self.answer(done).await?;
        self.count();
        Ok(next)
    }

    /// Counts what the session holds; false where there is no room for it.
    fn count(&mut self) -> bool {
        let waiting = self.session.calls_bytes().saturating_sub(self.taken_bytes);
        self.asked.resize(waiting) && self.shown.resize(self.session.queries_bytes())
    }

    /// A call, with what is held for it.
    fn take(&mut self, call: Called) -> Taken {
        let held = self.asked.split(call.bytes());
        self.taken_bytes += held.units();
        Taken { call, held }
    }

    async fn answer(&mut self, done: Done) -> Result<Option<Command>, End> {
        match done {
            Done::Mutation { call: Taken { call, held }, answer, room: _room } => {
                self.taken_bytes -= held.units();
                if let Err(failure) = &answer.result
                    && let Some(close) = Close::of_failure(failure)
                {
                    return Err(End::Said(close));
                }
                let position = match answer.position {
                    Some(position) => position,
                    // It had happened before, perhaps on another host: all that has committed is before this.
                    None if answer.result.is_ok() => {
                        self.live.log_position().await.unwrap_or_else(|| self.live.newest())
                    }
                    None => self.live.newest(),
                };
                let ts = stamp(self.live.timestamp(position));
                let Answer { result, log, request_id, .. } = *answer;
                let result =
                    result.map(|value| Committed { value: Encoded::from_clean(value.into_string()), ts }).map_err(
                        |failure| FunctionError::new(&failure, Kind::Mutation, &call.path, &request_id.to_string()),
                    );
                if result.is_ok() {
                    self.at_least = self.at_least.max(position);
                }
                self.committing = None;
                let response = self.session.mutation_finished(call.request_id, &result, &log);
                let response = response.map_err(|misuse| internal(&misuse))?;
                self.say(response.text).await?;
                Ok(response.next)
            }
            Done::Action { call: Taken { call, held }, answer, room: _room } => {
                self.taken_bytes -= held.units();
                let Answer { result, log, request_id, .. } = *answer;
                let result = result
                    .map(|value| Encoded::from_clean(value.into_string()))
                    .map_err(|failure| FunctionError::new(&failure, Kind::Action, &call.path, &request_id.to_string()));
                let text = self.session.action_finished(call.request_id, &result, &log);
                self.say(text.map_err(|misuse| internal(&misuse))?).await?;
                Ok(None)
            }
        }
    }

    /// Sends what is new, where all queries of the socket can be shown as of one position.
    async fn transition(&mut self) -> Result<(), End> {
        self.room_at = None;
        if !self.session.needs_transition() {
            return Ok(());
        }
        if let Some((request_id, commit)) = &self.committing {
            let latest = commit.begun_behind().map(|position| stamp(self.live.timestamp(position)));
            self.session.mutation_commits_after(*request_id, latest).map_err(|misuse| internal(&misuse))?;
        }
        let plan = self.session.begin_transition().map_err(|misuse| internal(&misuse))?;
        let at_least = self.live.position_of(plan.at_least.nanos()).max(self.at_least);
        let at_most = plan.at_most.map(|at_most| self.live.position_of(at_most.nanos()));
        let Some(view) = self.watcher.view_between(at_least, at_most) else {
            return self.session.abandon_transition().map_err(|misuse| internal(&misuse));
        };
        // A commit that has begun since then may be covered.
        let begun_behind = self.committing.as_ref().and_then(|(_, commit)| commit.begun_behind());
        if begun_behind.is_some_and(|position| position < view.position) {
            return self.session.abandon_transition().map_err(|misuse| internal(&misuse));
        }
        self.catch_up = None;
        let results: Vec<(u32, Arc<QueryResult>)> =
            view.results.iter().map(|(id, evaluation)| (*id, result_of(evaluation))).collect();
        let results = results.iter().map(|(id, result)| (*id, &**result));
        // Once as text, and once in the socket's buffer.
        let bytes = 2 * self.session.news_bytes(results.clone());
        let room = self.host.bounds.answers.hold_or_alone(bytes);
        let Some(_room) = room else {
            self.room_at = Some(Instant::now() + ROOM_AGAIN);
            return self.session.abandon_transition().map_err(|misuse| internal(&misuse));
        };
        let ts = stamp(self.live.timestamp(view.position));
        let server_ts = Some(stamp(now_ns()));
        let frames = self.session.finish_transition(ts, results, server_ts).map_err(|misuse| internal(&misuse))?;
        for frame in frames {
            self.say(frame).await?;
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), End> {
        if !self.session.takes_calls() {
            // It is not listened to.
            self.heard = Instant::now();
        }
        if self.heard.elapsed() > Duration::from_millis(SILENCE_MS_MAX) || self.is_too_slow() {
            return Err(End::Gone);
        }
        if let Some((observed, until)) = self.catch_up
            && Instant::now() > until
        {
            let latest = stamp(self.live.timestamp(self.live.newest()));
            if latest < observed {
                return Err(said(&ProtocolError::AheadOfServer { observed, latest }));
            }
            self.catch_up = None;
        }
        self.send(Message::Ping(Vec::new().into())).await?;
        // The next time this is looked at would be too late.
        let due = self.spoke.elapsed() + Duration::from_millis(SOCKET_PING_INTERVAL_MS);
        if due > Duration::from_millis(PING_INTERVAL_MS) {
            self.say(ServerMessage::Ping.to_text()).await?;
        }
        Ok(())
    }

    /// Whether the rest of a message does not come.
    fn is_too_slow(&mut self) -> bool {
        if !self.session.takes_calls() || !self.arriving.has_begun() {
            self.partial_since = None;
            return false;
        }
        let since = *self.partial_since.get_or_insert_with(Instant::now);
        since.elapsed() > Duration::from_millis(self.host.server_limits.body_ms_max)
    }

    async fn say(&mut self, text: String) -> Result<(), End> {
        self.spoke = Instant::now();
        self.send(Message::text(text)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let begin = Instant::now();
        // One that takes nothing is ended by its connection.
        self.socket.send(message).await.map_err(|_| End::Gone)?;
        // Meanwhile it was not listened to.
        self.heard += begin.elapsed();
        self.partial_since = self.partial_since.map(|since| since + begin.elapsed());
        Ok(())
    }
}

/// The result in Convex' words, made once for all sockets.
fn result_of(evaluation: &Evaluation) -> Arc<QueryResult> {
    let made = evaluation.rendered(|| {
        let journal = evaluation.journal.as_deref();
        match &evaluation.result {
            Ok(value) => QueryResult::updated(&Encoded::from_clean(value.to_string()), &evaluation.log, journal),
            Err(failure) => {
                let id = evaluation.request_id.to_string();
                let error = FunctionError::new(failure, Kind::Query, &evaluation.path, &id);
                QueryResult::failed(&error, &evaluation.log, journal)
            }
        }
    });
    made.unwrap_or_else(|| {
        // Nobody else renders results.
        let id = evaluation.request_id.to_string();
        let error = FunctionError::new(&Failure::internal(""), Kind::Query, &evaluation.path, &id);
        Arc::new(QueryResult::failed(&error, &[], None))
    })
}

/// What an answer takes until it is sent.
fn room_for(host: &Host, answer: &Answer) -> Held {
    let log: usize = answer.log.iter().map(String::len).sum();
    host.bounds.answers.hold_anyway(answer.result.as_ref().map_or(0, |text| text.len()) + log)
}

fn is_too_large(error: &axum::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<tungstenite::Error>());
    matches!(cause, Some(tungstenite::Error::Capacity(_)))
}

fn said(error: &ProtocolError) -> End {
    tracing::debug!(%error, "a socket of Convex' protocol ends");
    End::Said(error.close())
}

fn internal(misuse: &convoke_convex::Misuse) -> End {
    tracing::error!(%misuse, "a socket of Convex' protocol was led wrongly");
    End::Said(Close::internal())
}

fn is_no_room(error: &axum::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<tungstenite::Error>());
    matches!(cause, Some(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::QuotaExceeded)
}

/// A timestamp of the log, or of the clock; neither reaches the end of time.
pub(crate) fn stamp(nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanos(nanoseconds).unwrap_or(Timestamp::MAX)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
