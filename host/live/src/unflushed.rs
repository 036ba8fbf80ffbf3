//! What the log holds and Postgres has not written out: the feed does not show it, and somebody may be waiting for it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::live::Inner;

/// The feed is usually there sooner. Who waits longer may wait for a transaction that goes on: what it wrote is before the
/// end of the log, and stays unwritten for up to 15 seconds.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// However it ends, who begins to wait then has the log flushed again.
struct Flushing {
    inner: Weak<Inner>,
    is_over: bool,
}

impl Inner {
    /// Sees to it that the position comes that somebody has begun to wait for.
    pub(crate) fn hurry(self: &Arc<Self>) {
        self.request.send();
        if self.state.lock().begin_flushing() {
            tokio::spawn(Flushing { inner: Arc::downgrade(self), is_over: false }.flush());
        }
    }
}

impl Flushing {
    /// Flushes for as long as the log does not get to where somebody waits for it.
    async fn flush(mut self) {
        let mut pause = PAUSE_FIRST;
        while let Some(inner) = self.inner.upgrade() {
            let Some(position) = inner.state.lock().next_to_flush() else {
                self.is_over = true;
                return;
            };
            drop(inner);
            tokio::time::sleep(pause).await;
            let Some(inner) = self.inner.upgrade() else { return };
            if inner.state.lock().waited_for().is_none_or(|now| now > position) {
                pause = PAUSE_FIRST;
                continue;
            }
            if let Err(failure) = inner.invoker.flush_log(position, Instant::now() + FLUSH_MAX).await {
                tracing::debug!(%failure, "Postgres does not write out its log");
            }
            inner.request.send();
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade().filter(|_| !self.is_over) {
            inner.state.lock().end_flushing();
        }
    }
}
