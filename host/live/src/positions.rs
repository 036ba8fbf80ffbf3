//! How far Postgres' log is: one question answers all who wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convoke_invoke::Invoker;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A question that takes longer is given up: whoever waits for it does without.
const QUESTION_MAX: Duration = Duration::from_secs(1);

/// Asks for the log's position for all who want it at the time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Positions {
    asked: Arc<Mutex<Asked>>,
}

#[derive(Debug, Default)]
struct Asked {
    /// Who is answered by the next question, which has not been sent.
    waiting: Vec<oneshot::Sender<u64>>,
    is_asking: bool,
}

impl Positions {
    /// A position behind all that had committed when this was called; none where Postgres does not tell.
    pub(crate) async fn now(&self, invoker: &Invoker) -> Option<u64> {
        let (sender, receiver) = oneshot::channel();
        let begins = {
            let mut asked = self.asked.lock();
            asked.waiting.push(sender);
            !std::mem::replace(&mut asked.is_asking, true)
        };
        if begins {
            let asking = Asking { asked: Arc::clone(&self.asked), is_over: false };
            let invoker = invoker.clone();
            tokio::spawn(async move { asking.ask(&invoker).await });
        }
        receiver.await.ok()
    }
}

/// Who asks for the others. However that ends, the next one who wants to know asks again.
struct Asking {
    asked: Arc<Mutex<Asked>>,
    is_over: bool,
}

impl Asking {
    /// Asks until nobody waits.
    async fn ask(mut self, invoker: &Invoker) {
        loop {
            let waiting = {
                let mut asked = self.asked.lock();
                if asked.waiting.is_empty() {
                    asked.is_asking = false;
                    self.is_over = true;
                    return;
                }
                std::mem::take(&mut asked.waiting)
            };
            match invoker.log_position(Instant::now() + QUESTION_MAX).await {
                // Who has given up is not there to hear it.
                Ok(position) => {
                    for waits in waiting {
                        let _ = waits.send(position);
                    }
                }
                Err(failure) => tracing::debug!(%failure, "Postgres does not tell its log's position"),
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.is_over {
            // Who waits does without.
            *self.asked.lock() = Asked::default();
        }
    }
}
