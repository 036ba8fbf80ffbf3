//! Moments that are kept: queries that come one by one and are to show one state.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use convoke_invoke::{Answer, Call, Caller, HeldSnapshot, NoteReads};
use convoke_model::{Code, Failure, Kind};

use crate::live::{Inner, Live};

/// How long a moment is kept: as long as Convex keeps its own.
const KEPT: Duration = Duration::from_secs(30);
/// Where there is no room for another one, the oldest goes from this age on.
const KEPT_AT_LEAST: Duration = Duration::from_secs(5);
/// Timestamps of moments that were kept are known for longer, to be told from those of other hosts.
const TIMESTAMPS_MAX: usize = 4_096;

/// The moments that a host keeps, by their timestamps. `None` for those that it kept.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    by_timestamp: BTreeMap<u64, Option<(HeldSnapshot, Instant)>>,
}

impl Moments {
    /// Keeps a snapshot under its timestamp, or a little later: two states never have the same one. The same state is kept
    /// anew.
    fn keep(&mut self, mut timestamp: u64, held: HeldSnapshot, now: Instant) -> u64 {
        while let Some(known) = self.by_timestamp.get(&timestamp) {
            if known.as_ref().is_some_and(|(known, _)| known.snapshot == held.snapshot) {
                break;
            }
            timestamp += 1;
        }
        self.by_timestamp.insert(timestamp, Some((held, now)));
        while self.by_timestamp.len() > TIMESTAMPS_MAX {
            self.by_timestamp.pop_first();
        }
        timestamp
    }

    fn remove(&mut self, timestamp: u64) {
        if let Some(moment) = self.by_timestamp.get_mut(&timestamp) {
            *moment = None;
        }
    }

    /// Removes a moment that has been kept for long enough; else gives how long it has to be kept yet.
    fn expire(&mut self, timestamp: u64, now: Instant) -> Option<Duration> {
        let (_, since) = self.by_timestamp.get(&timestamp)?.as_ref()?;
        let left = KEPT.saturating_sub(now.duration_since(*since));
        if left.is_zero() {
            self.remove(timestamp);
        }
        Some(left).filter(|left| !left.is_zero())
    }

    /// Makes room for another moment, if the oldest has been there long enough.
    fn make_room(&mut self) -> bool {
        let kept = self.by_timestamp.iter().find_map(|(at, moment)| moment.as_ref().map(|(_, since)| (*at, *since)));
        match kept {
            Some((timestamp, since)) if since.elapsed() >= KEPT_AT_LEAST => {
                self.remove(timestamp);
                true
            }
            _ => false,
        }
    }
}

impl Live {
    /// Keeps the state of now for a while, and gives its timestamp, for [`Live::query_at`]. Where too many are kept, the
    /// timestamp is still that of all that has been committed, but queries at it may show what came later.
    pub async fn keep_moment(&self) -> u64 {
        let mut held = self.inner.invoker.hold_snapshot().await;
        if held.is_err() && self.inner.moments.lock().make_room() {
            held = self.inner.invoker.hold_snapshot().await;
        }
        match held {
            Ok(held) => {
                let timestamp = self.timestamp(held.lsn);
                let timestamp = self.inner.moments.lock().keep(timestamp, held, Instant::now());
                tokio::spawn(expire(Arc::downgrade(&self.inner), timestamp));
                timestamp
            }
            Err(error) => {
                tracing::debug!(%error, "no moment can be kept");
                self.timestamp(self.newest())
            }
        }
    }

    /// Runs a query in the state of a moment that is kept; none where the timestamp is not of such a moment, but of
    /// something else that a client has seen.
    ///
    /// # Errors
    /// When the moment is kept no longer.
    pub async fn query_at(&self, caller: &Caller, call: Call<'_>, timestamp: u64) -> Result<Option<Answer>, Failure> {
        let moment = self.inner.moments.lock().by_timestamp.get(&timestamp).cloned();
        let held = match moment {
            None => return Ok(None),
            Some(None) => return Err(too_old()),
            Some(Some((held, _))) => held,
        };
        debug_assert_eq!(call.kind, Kind::Query);
        let reads = NoteReads { snapshot: Some(held.shared.clone()), ..NoteReads::default() };
        let (answer, observed) = self.inner.invoker.observe(caller, call, reads).await;
        // One that could not be read any more ran in a snapshot of its own.
        if observed.snapshot.is_some_and(|snapshot| snapshot != held.snapshot) {
            self.inner.moments.lock().remove(timestamp);
            return Err(too_old());
        }
        Ok(Some(answer))
    }
}

/// Removes a moment when its time is over.
async fn expire(inner: Weak<Inner>, timestamp: u64) {
    let mut left = Some(KEPT);
    while let Some(pause) = left {
        tokio::time::sleep(pause).await;
        left = inner.upgrade().and_then(|inner| inner.moments.lock().expire(timestamp, Instant::now()));
    }
}

fn too_old() -> Failure {
    let seconds = KEPT.as_secs();
    Failure::caller(
        Code::InvalidArgs,
        format!("the state at that timestamp is not kept any more: it is for {seconds} seconds"),
    )
}

#[cfg(test)]
mod tests {
    use convoke_invoke::SharedSnapshot;

    use super::*;

    #[test]
    fn the_same_state_is_kept_from_the_last_time_on() {
        let held =
            |snapshot: &str| HeldSnapshot { shared: SharedSnapshot::new(), snapshot: snapshot.to_owned(), lsn: 1 };
        let begin = Instant::now();
        let mut moments = Moments::default();
        assert_eq!(moments.keep(7, held("1:1:"), begin), 7);
        assert_eq!(moments.keep(7, held("1:1:"), begin + KEPT / 2), 7);
        assert_eq!(moments.expire(7, begin + KEPT), Some(KEPT / 2));
        assert!(moments.by_timestamp[&7].is_some());
        assert_eq!(moments.expire(7, begin + KEPT / 2 + KEPT), None);
        assert!(moments.by_timestamp[&7].is_none());
        assert_eq!(moments.keep(7, held("1:1:"), begin), 8, "what is gone does not come back");
    }
}
