//! `GET` and `POST /api/subscribe/{module:function}`: a query's result, and each one after it, as server-sent events.
//!
//! An event is made when the connection has room for it, of the newest result: a reader that is slow misses results in
//! between and costs no memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use convoke_convex::QUERIES_BYTES_MAX;
use convoke_invoke::{Call, Checked, Encoding};
use convoke_live::{CATCH_UP_MAX, Evaluation, Live, QueryKey, View, Watcher};
use convoke_model::{Code, Failure, Kind};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::body::TextBody;
use crate::budget::{Budget, Held};
use crate::caller;
use crate::host::{Host, stopped};
use crate::respond::{self, Stamp};

/// Proxies give a silent connection up after half a minute or so.
const COMMENT_AFTER: Duration = Duration::from_secs(15);

/// How long an event waits before it is looked again whether there is room for it.
const ROOM_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
pub(crate) struct Parameters {
    args: Option<String>,
}

pub(crate) async fn by_get(
    State(host): State<Arc<Host>>,
    path: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    match parameters {
        Ok(Query(parameters)) => subscribe(&host, path, parameters.args.as_deref().unwrap_or("{}"), &headers).await,
        Err(rejection) => respond::failure(&respond::invalid(rejection.body_text()), Stamp::new()),
    }
}

pub(crate) async fn by_post(
    State(host): State<Arc<Host>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match TextBody::read(&host, body).await {
        Ok(body) if body.is_blank() => subscribe(&host, path, "{}", &headers).await,
        Ok(body) => subscribe(&host, path, body.text(), &headers).await,
        Err(failure) => respond::failure(&failure, Stamp::new()),
    }
}

async fn subscribe(
    host: &Host,
    path: Result<Path<String>, PathRejection>,
    args: &str,
    headers: &HeaderMap,
) -> Response {
    let opened = async {
        let Path(path) = path.map_err(|rejection| respond::invalid(rejection.body_text()))?;
        open(host, &path, args, headers).await
    };
    match opened.await {
        Ok(events) => {
            let mut response = Response::new(Body::from_stream(stream::unfold(events, Events::next)));
            response.extensions_mut().insert(respond::Endless);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
            // Told to nginx, which would hold events back.
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
            Stamp::new().on(response)
        }
        Err(failure) => respond::failure(&failure, Stamp::new()),
    }
}

async fn open(host: &Host, path: &str, args: &str, headers: &HeaderMap) -> Result<Events, Failure> {
    let live = host.live.get()?;
    // What can never be answered is refused before a stream is opened.
    let caller = caller::of(headers, Kind::Query)?;
    let call = Call { kind: Kind::Query, path, args, encoding: Encoding::Clean };
    let Checked { path: name, args } = host.invoker.check(&caller, call)?;
    let key = QueryKey { path: name.as_str().into(), args: args.into(), journal: None };
    let bounds = &host.bounds;
    let place = bounds.sockets.hold(1).ok_or_else(|| respond::at_limit("sockets_max"))?;
    let shown = key.path.len() + key.args.len();
    if shown > QUERIES_BYTES_MAX {
        let words = format!("the arguments of what is shown are larger than {QUERIES_BYTES_MAX} bytes");
        return Err(Failure::caller(Code::PayloadTooLarge, words));
    }
    let shown = bounds.queries.hold(shown).ok_or_else(|| respond::at_limit("queries_bytes_max"))?;
    let mut watcher = Watcher::new(live.clone());
    watcher.add(0, &key)?;
    let last_seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    // Never less than the client has seen, on whichever host, nor than had been written when it came.
    let seen = last_seen.map_or(0, |seen| live.position_of(seen));
    let position = live.log_position().await.map_or(seen, |now| now.max(seen));
    Ok(Events {
        live: live.clone(),
        watcher,
        name,
        position,
        give_up_at: None,
        last: None,
        last_seen,
        event: VecDeque::from([Bytes::from_static(b"retry: 1000\n\n")]),
        stopping: host.stopping.subscribe(),
        replaced: live.replaced(),
        comment_at: Instant::now() + COMMENT_AFTER,
        answers: Arc::clone(&bounds.answers),
        sending: None,
        room_at: None,
        _held: [place, shown],
    })
}

/// One client's stream.
struct Events {
    live: Live,
    watcher: Watcher,
    name: String,
    /// Nothing older than this is shown.
    position: u64,
    /// Until when `position` is waited for, while it cannot be shown.
    give_up_at: Option<Instant>,
    /// The hash of what was sent last.
    last: Option<u64>,
    /// The timestamp of the last event that the client had before it came back.
    last_seen: Option<u64>,
    /// What is left of the event that is being sent.
    event: VecDeque<Bytes>,
    stopping: watch::Receiver<bool>,
    /// Tells that positions of before mean nothing any more.
    replaced: watch::Receiver<()>,
    comment_at: Instant,
    answers: Arc<Budget>,
    /// Of the event that was made last, until the connection asks for another one.
    sending: Option<Held>,
    /// When to look again whether there is room for an event.
    room_at: Option<Instant>,
    /// Its place, and the room for its arguments.
    _held: [Held; 2],
}

impl Events {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(part) = self.event.pop_front() {
                return Some((Ok(part), self));
            }
            self.sending = None;
            let view = self.watcher.view(self.position);
            self.give_up_at = match &view {
                Some(_) => None,
                None => self.give_up_at.or_else(|| Some(Instant::now() + CATCH_UP_MAX)),
            };
            let room = view.as_ref().map(|view| self.answers.hold_or_alone(self.bytes(view)));
            self.room_at = matches!(room, Some(None)).then(|| Instant::now() + ROOM_AGAIN);
            if let (Some(view), Some(Some(room))) = (view, room)
                && let Some(event) = self.event(view)
            {
                self.comment_at = Instant::now() + COMMENT_AFTER;
                self.sending = Some(room);
                self.event = event;
                continue;
            }
            tokio::select! {
                () = self.watcher.changed() => {}
                // The client asks again, of whoever serves next.
                () = stopped(&mut self.stopping) => return None,
                _ = self.replaced.changed() => return None,
                () = sleep_until(self.give_up_at.unwrap_or(self.comment_at)), if self.give_up_at.is_some() => {
                    self.give_up();
                }
                () = sleep_until(self.room_at.unwrap_or(self.comment_at)), if self.room_at.is_some() => {}
                () = sleep_until(self.comment_at) => {
                    self.comment_at = Instant::now() + COMMENT_AFTER;
                    return Some((Ok(Bytes::from_static(b": still here\n\n")), self));
                }
            }
        }
    }

    /// A position that the log has not reached by now is of another database, or of one that was restored: what there is
    /// is shown. Where it has, a run goes on.
    fn give_up(&mut self) {
        self.give_up_at = None;
        if !self.live.has_reached(self.position) {
            tracing::debug!(position = self.position, "not reached: this stream begins anew");
            (self.position, self.last_seen) = (0, None);
        }
    }

    /// What an event of this view takes.
    fn bytes(&self, view: &View) -> usize {
        let result = view.results.first().filter(|(_, evaluation)| self.last != Some(evaluation.hash));
        result.map_or(0, |(_, evaluation)| evaluation.result.as_ref().map_or(1_024, |data| data.len() + 1_024))
    }

    /// The newest result, where it differs from the one before.
    fn event(&mut self, view: View) -> Option<VecDeque<Bytes>> {
        let (_, evaluation) = view.results.into_iter().next()?;
        self.position = view.position;
        let ts = self.live.timestamp(view.position);
        if self.last == Some(evaluation.hash) {
            return None;
        }
        self.last = Some(evaluation.hash);
        // What has held since the client saw it is not sent again.
        if let Some(seen) = self.last_seen.take()
            && seen >= self.live.timestamp(view.from)
            && seen <= ts
        {
            return None;
        }
        Some(event(&self.name, ts, &evaluation))
    }
}

/// An event, in parts: the result itself is not copied, so that a thousand slow readers of it hold it once.
fn event(name: &str, ts: u64, evaluation: &Arc<Evaluation>) -> VecDeque<Bytes> {
    match &evaluation.result {
        Ok(data) => {
            let head = format!("event: result\nid: {ts}\ndata: {{\"name\":\"{name}\",\"ts\":{ts},\"data\":");
            // JSON has no line break of its own; a function's own formatting may.
            let data = if data.contains(['\n', '\r']) {
                data.replace(['\n', '\r'], " ").into()
            } else {
                Bytes::from_owner(ResultText(Arc::clone(evaluation)))
            };
            VecDeque::from([head.into(), data, Bytes::from_static(b"}\n\n")])
        }
        Err(failure) => {
            let error = respond::error(failure, evaluation.request_id);
            let data = json!({ "name": name, "ts": ts, "data": error });
            VecDeque::from([format!("event: error\nid: {ts}\ndata: {data}\n\n").into()])
        }
    }
}

/// The text of a result. Who holds it holds the memory that it is counted with.
struct ResultText(Arc<Evaluation>);

impl AsRef<[u8]> for ResultText {
    fn as_ref(&self) -> &[u8] {
        self.0.result.as_ref().map_or(&[], |text| text.as_bytes())
    }
}
