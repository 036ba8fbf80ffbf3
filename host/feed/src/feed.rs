//! The feed: one slot after another, for as long as somebody follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::error::FeedError;
use crate::event::{FeedEvent, GapReason};
use crate::members::{Member, Members};
use crate::metrics::FeedMetrics;
use crate::options::FeedOptions;
use crate::outlet::{Inlet, channel};
use crate::request::PositionRequest;
use crate::stream::{End, Setting, Stream};
use convoke_model::chain;

/// The changes of a database, as they are committed: one slot for all who follow. Made once a process; ends with the last
/// clone and the last subscription.
#[derive(Debug, Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    joining: mpsc::UnboundedSender<Member>,
    moved: Arc<Notify>,
    buffered_bytes_max: usize,
    metrics: Arc<FeedMetrics>,
    request: PositionRequest,
}

/// What one publication sends. Made once a project; dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    events: Inlet,
    metrics: Arc<FeedMetrics>,
    request: PositionRequest,
}

impl Feed {
    /// Follows the database while there are subscriptions, and goes on until all are dropped: whatever is in the way goes
    /// to the log and is tried again. [`crate::probe`] tells beforehand.
    ///
    /// # Panics
    /// Outside of a runtime of tokio.
    pub fn start(options: FeedOptions) -> Self {
        let (joining, joined) = mpsc::unbounded_channel();
        let moved = Arc::new(Notify::new());
        let members = Members::new(joined, Arc::clone(&moved));
        let metrics = Arc::new(FeedMetrics::new());
        let request = PositionRequest::default();
        let buffered_bytes_max = options.buffered_bytes_max;
        let setting = Setting { options: options.into(), metrics: metrics.clone(), request: request.clone() };
        tokio::spawn(keep_up(setting, members));
        Self { shared: Arc::new(Shared { joining, moved, buffered_bytes_max, metrics, request }) }
    }

    /// Follows the tables of a publication: those of the project's schema, and the others that it lists. Where other
    /// publications of the database are followed already, this one joins their slot; that interrupts nobody, but it waits
    /// for the write transactions that are running, as a new slot does.
    pub fn subscribe(&self, publication: impl Into<String>, schema: impl Into<String>) -> Subscription {
        let (outlet, events) = channel(self.shared.buffered_bytes_max, Arc::clone(&self.shared.moved));
        // The feed's task ends with the runtime only: then the subscription says so.
        let _ = self.shared.joining.send(Member::new(publication.into(), schema.into(), outlet));
        Subscription { events, metrics: self.metrics(), request: self.shared.request.clone() }
    }

    pub fn metrics(&self) -> Arc<FeedMetrics> {
        self.shared.metrics.clone()
    }
}

impl Subscription {
    /// The next event, as soon as there is one. A call that is dropped loses nothing. None only when the runtime is
    /// being shut down.
    pub async fn next(&mut self) -> Option<FeedEvent> {
        self.events.recv().await
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<FeedEvent> {
        self.events.try_recv()
    }

    pub fn position_request(&self) -> PositionRequest {
        self.request.clone()
    }

    /// Those of the feed, and so of all who follow.
    pub fn metrics(&self) -> Arc<FeedMetrics> {
        self.metrics.clone()
    }
}

const BACKOFF_MIN: Duration = Duration::from_millis(100);

async fn keep_up(setting: Setting, mut members: Members) {
    let mut generation = 0;
    let mut backoff = BACKOFF_MIN;
    let mut told = String::new();
    while members.until_waiting().await {
        let opening = Stream::open(setting.clone(), members.wanted(), members.waiting());
        let opened = select! {
            () = members.until_empty() => continue,
            opened = opening => opened,
        };
        match opened.and_then(|opened| opened.stream_or_reason(&mut members)) {
            Ok(stream) => {
                generation += 1;
                told.clear();
                let begin = Instant::now();
                let before = setting.metrics.transactions();
                let Some(reason) = follow(stream, generation, &mut members, &setting.metrics).await else { continue };
                tracing::warn!(%reason, generation, "the change feed was interrupted");
                members.interrupt(&reason);
                // One that handed something on, or held for longer than the pause before it, was no failed attempt.
                if setting.metrics.transactions() > before || begin.elapsed() > backoff {
                    backoff = BACKOFF_MIN;
                }
            }
            Err(error) => tell(&error, backoff, &mut told),
        }
        select! {
            () = members.until_empty() => {}
            () = sleep(jittered(backoff)) => {}
        }
        backoff = (backoff * 2).min(setting.options.backoff_max);
    }
}

/// Follows stream after stream as long as each goes on where the one before ended; gives why that ended, or none where
/// nobody follows any more.
async fn follow(
    mut stream: Box<Stream>,
    generation: u64,
    members: &mut Members,
    metrics: &FeedMetrics,
) -> Option<GapReason> {
    let position = stream.position();
    tracing::info!(position, generation, "the change feed is running");
    metrics.started(position, generation);
    let end = loop {
        members.start(stream.publications(), stream.position(), stream.system());
        match stream.run(members).await {
            End::Succeeded(next) => stream = next,
            End::Closed => break None,
            End::Gap(reason) => break Some(reason),
        }
    };
    metrics.stopped();
    end
}

/// The same reason again is no news.
fn tell(error: &FeedError, backoff: Duration, told: &mut String) {
    let text = chain(error);
    let hint = error.hint().unwrap_or_default();
    if text == *told {
        tracing::debug!(error = %text, ?backoff, "still no change feed");
        return;
    }
    told.clone_from(&text);
    if error.needs_a_person() {
        tracing::error!(error = %text, hint, ?backoff, "there is no change feed");
    } else {
        tracing::warn!(error = %text, hint, ?backoff, "the change feed could not be started");
    }
}

/// Between half and the whole, so that many hosts do not come back at the same moment.
fn jittered(backoff: Duration) -> Duration {
    backoff.mul_f64(rand::rng().random_range(0.5..1.0))
}
