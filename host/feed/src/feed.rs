//! The feed: one slot after another, for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::error::FeedError;
use crate::event::{FeedEvent, Started};
use crate::metrics::FeedMetrics;
use crate::options::FeedOptions;
use crate::outlet::{Inlet, Outlet, channel};
use crate::stream::{End, Stream};
use convoke_model::chain;

/// The changes of a database, as they are committed. Made once a host; dropping it ends the stream and the slot.
#[derive(Debug)]
pub struct Feed {
    events: Inlet,
    metrics: Arc<FeedMetrics>,
    request: PositionRequest,
    task: JoinHandle<()>,
}

/// Asks the server how far it is, for an early [`FeedEvent::Position`]. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PositionRequest(Arc<Notify>);

impl PositionRequest {
    /// Asks; several at once are one.
    pub fn send(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn wanted(&self) {
        self.0.notified().await;
    }
}

impl Feed {
    /// Begins to follow the database, and goes on until the feed is dropped: whatever is in the way goes to the log and
    /// is tried again. [`crate::probe`] tells beforehand.
    ///
    /// # Panics
    /// Outside of a runtime of tokio.
    pub fn start(options: FeedOptions) -> Self {
        let (outlet, events) = channel(options.buffered_bytes_max);
        let metrics = Arc::new(FeedMetrics::new());
        let request = PositionRequest::default();
        let task = tokio::spawn(keep_up(options, outlet, metrics.clone(), request.clone()));
        Self { events, metrics, request, task }
    }

    /// The next event, as soon as there is one. A call that is dropped loses nothing. None only when the runtime is
    /// being shut down.
    pub async fn next(&mut self) -> Option<FeedEvent> {
        self.events.recv().await.map(|queued| queued.event)
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<FeedEvent> {
        self.events.try_recv().ok().map(|queued| queued.event)
    }

    pub fn position_request(&self) -> PositionRequest {
        self.request.clone()
    }

    pub fn metrics(&self) -> Arc<FeedMetrics> {
        self.metrics.clone()
    }

    /// Ends the feed, and waits until the connection is closed.
    pub async fn close(self) {
        drop(self.events);
        let _ = self.task.await;
    }
}

/// A stream that held for so long was no failed attempt.
const STEADY: Duration = Duration::from_secs(30);
const BACKOFF_MIN: Duration = Duration::from_millis(100);

async fn keep_up(options: FeedOptions, outlet: Outlet, metrics: Arc<FeedMetrics>, request: PositionRequest) {
    let mut generation = 0;
    let mut backoff = BACKOFF_MIN;
    let mut told = String::new();
    loop {
        let opened = select! {
            () = outlet.closed() => return,
            opened = Stream::open(&options, &outlet, &metrics, &request) => opened,
        };
        match opened {
            Ok(stream) => {
                generation += 1;
                told.clear();
                let begin = Instant::now();
                let end = follow(stream, generation, &outlet, &metrics).await;
                let End::Gap(reason) = end else { return };
                tracing::warn!(%reason, generation, "the change feed was interrupted");
                // Who does not even take this would only make the next slot a burden too.
                outlet.send_and_wait(FeedEvent::Gap { reason }).await;
                if begin.elapsed() > STEADY {
                    backoff = BACKOFF_MIN;
                }
            }
            Err(error) => tell(&error, backoff, &mut told),
        }
        select! {
            () = outlet.closed() => return,
            () = sleep(jittered(backoff)) => {}
        }
        backoff = (backoff * 2).min(options.backoff_max);
    }
}

async fn follow(stream: Stream<'_>, generation: u64, outlet: &Outlet, metrics: &FeedMetrics) -> End {
    let started = Started { position: stream.position(), system: stream.system(), generation };
    tracing::info!(position = started.position, generation, "the change feed is running");
    metrics.started(started.position, generation);
    outlet.send_now(FeedEvent::Started(started));
    let end = stream.run().await;
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
