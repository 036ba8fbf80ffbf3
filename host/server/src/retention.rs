//! Deletes what mutations returned long ago, in the background.
//!
//! A result is kept so that a mutation that is sent again happens once. Who has not sent it again in two weeks will not;
//! the age is in the database, so that all hosts agree on it. Who is in a hurry sends a lot, so results are bounded in bytes
//! too. One host at a time works; the others find it busy.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use convoke_model::chain;
use convoke_store::Expired;
use rand::Rng;
use tokio::time::sleep;

use crate::host::Host;

const BATCH_ROWS: u16 = 500;
/// The pause behind a batch, in times of the batch: others have the database most of the time.
const PAUSE_SHARE: u32 = 9;
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Between two rounds. What comes in between is beyond the bound.
const ROUND_EVERY: Duration = Duration::from_mins(10);
/// What a project's receipts may take. A client sends a mutation again as soon as it is connected again: at a thousand
/// mutations a second with small results, this is the last hour.
const RECEIPTS_BYTES_MAX: u64 = 1 << 30;

/// Starts the work of a host, until it is gone.
pub(crate) fn start(host: &Arc<Host>) {
    let host = Arc::downgrade(host);
    tokio::spawn(async move {
        while let Some(deleted) = round(&host).await {
            if deleted > 0 {
                tracing::debug!(deleted, "deleted old results of mutations");
            }
            // Not all hosts at once.
            let share = rand::rng().random_range(0.5..1.0);
            sleep(ROUND_EVERY.mul_f64(share)).await;
        }
    });
}

/// Deletes all that is old enough or too much; gives how many, and none when the host is gone.
async fn round(host: &Weak<Host>) -> Option<u64> {
    let horizon = running(host)?.store.receipts_horizon(RECEIPTS_BYTES_MAX).await;
    let horizon = match horizon {
        Ok(horizon) => horizon,
        Err(error) => {
            tracing::warn!(error = chain(&error), "could not look for old results of mutations");
            return Some(0);
        }
    };
    let mut deleted = 0;
    loop {
        let host = running(host)?;
        let begin = Instant::now();
        let batch = host.store.expire_receipts(horizon, BATCH_ROWS).await;
        drop(host);
        match batch {
            Ok(Expired::Rows(rows)) => {
                deleted += rows;
                if rows < u64::from(BATCH_ROWS) {
                    return Some(deleted);
                }
            }
            Ok(Expired::Busy) => return Some(deleted),
            Err(error) => {
                tracing::warn!(error = chain(&error), "could not delete old results of mutations");
                return Some(deleted);
            }
        }
        sleep((begin.elapsed() * PAUSE_SHARE).max(PAUSE_MIN)).await;
    }
}

fn running(host: &Weak<Host>) -> Option<Arc<Host>> {
    host.upgrade().filter(|host| !*host.stopping.borrow())
}
