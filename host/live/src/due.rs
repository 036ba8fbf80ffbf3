//! A query that is due: for whom, why, and how often in vain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::reader::{EntryId, Reader};

/// A snapshot that lacks what the log has shown already is taken again after this, and then as late again as it has taken so
/// far: a commit that waits for a standby is in the log all the time.
const VISIBLE_FIRST: Duration = Duration::from_micros(500);
const VISIBLE_LONGEST: Duration = Duration::from_millis(500);

/// Unless something else is asked for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What follows failures of the system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retries {
    /// The pause before the next run, cut at random: what failed together is not tried again together. It doubles up to
    /// the second one.
    pub(crate) pause_first: Duration,
    pub(crate) pause_longest: Duration,
    /// Who has no result that holds is shown the failure when it has lasted this long.
    pub(crate) patience: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { pause_first: Duration::from_millis(250), pause_longest: Duration::from_secs(5), patience: PATIENCE }
    }
}

/// Why a query is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Somebody has no result of it yet.
    First,
    /// Its result is stale.
    Again,
}

/// Whether readers without a result that holds wait for the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Waits,
    /// They are shown the system's failure.
    Over,
}

/// A query that is to be run.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) id: EntryId,
    pub(crate) path: Arc<str>,
    /// In whose turn.
    pub(crate) reader: Reader,
    pub(crate) wanted: Wanted,
    /// How long to wait for a snapshot that is new enough, the next time.
    visible: Duration,
    failing: Option<Box<Failing>>,
}

/// Runs of a query that the system has failed, one after another.
#[derive(Debug)]
struct Failing {
    since: Instant,
    pauses: ExponentialBackoff,
}

impl Due {
    pub(crate) fn new(id: EntryId, path: Arc<str>, reader: Reader, wanted: Wanted) -> Self {
        Self { id, path, reader, wanted, visible: VISIBLE_FIRST, failing: None }
    }

    /// Its run went well, and it is to be run once more.
    pub(crate) fn once_more(self) -> Self {
        Self { wanted: Wanted::Again, visible: VISIBLE_FIRST, failing: None, ..self }
    }

    /// Its snapshot was too old: how long to wait for another one.
    pub(crate) fn pause_until_visible(&mut self) -> Duration {
        let pause = self.visible;
        self.visible = (pause * 2).min(VISIBLE_LONGEST);
        pause
    }

    /// The system has failed its run: how long to wait, and whether that has lasted for longer than anybody is patient.
    pub(crate) fn pause_after_failure(&mut self, now: Instant, retries: Retries) -> (Duration, Patience) {
        let failing = self.failing.get_or_insert_with(|| {
            let builder = ExponentialBuilder::default().with_min_delay(retries.pause_first);
            let builder = builder.with_max_delay(retries.pause_longest).without_max_times().with_jitter();
            Box::new(Failing { since: now, pauses: builder.build() })
        });
        let pause = failing.pauses.next().unwrap_or(retries.pause_longest);
        let is_over = now.duration_since(failing.since) >= retries.patience;
        (pause, if is_over { Patience::Over } else { Patience::Waits })
    }
}
