//! Brings the stored documents of a deployment to the newest form, in the background.
//!
//! A deploy does not wait for it: until a document is written anew, each read brings it up to date. How far the work is,
//! the rows themselves say, so it goes on where it was after any interruption, and several hosts may do it at once. It is
//! over when one look at the whole table finds no document of an older form; where some stay, because their rule fails or
//! a host of an older deployment goes on writing, it looks again, at growing distances.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use convoke_deploy::Deployment;
use convoke_model::{DocumentId, Failure, Table, chain};
use convoke_store::{Backfill, Pass, Progress};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::host::Host;

const BATCH_ROWS: u32 = 200;
/// The pause behind a batch, in times of the batch: others have the database most of the time.
const PAUSE_SHARE: u32 = 3;
const PAUSE_MIN: Duration = Duration::from_millis(5);
const RETRY_AFTER: Duration = Duration::from_secs(5);
const ONE_DOCUMENT_MAX: Duration = Duration::from_secs(10);
/// Behind a pass that left rows: what holds them is short, mostly.
const PASS_PAUSE_FIRST: Duration = Duration::from_millis(200);
/// A pass reads the whole table.
const PASS_PAUSE_LONGEST: Duration = Duration::from_hours(1);

/// Starts the work of a deployment, where it has any; another deployment ends it.
pub(crate) fn start(host: &Arc<Host>, deployment: &Arc<Deployment>) {
    let turn = Arc::new(Mutex::new(()));
    let outdated = |table: &&Table| table.is_managed() && table.version > 1 && table.upcast.is_some();
    for table in deployment.tables().tables.values().filter(outdated).cloned() {
        let work = Work {
            host: Arc::downgrade(host),
            deployment: Arc::clone(deployment),
            turn: Arc::clone(&turn),
            name: table.name.clone(),
            version: table.version,
            changed: 0,
            failed: 0,
        };
        tokio::spawn(work.run(Backfill::new(table)));
    }
}

/// The backfill of one table.
struct Work {
    host: Weak<Host>,
    deployment: Arc<Deployment>,
    /// One batch of a deployment at a time.
    turn: Arc<Mutex<()>>,
    name: String,
    version: u32,
    changed: u64,
    /// Documents whose upcast failed in the last pass.
    failed: u64,
}

impl Work {
    async fn run(mut self, mut backfill: Backfill) {
        let mut pause = PASS_PAUSE_FIRST;
        loop {
            let Some(host) = self.host.upgrade() else { return };
            if !Arc::ptr_eq(&host.deployments.current(), &self.deployment) {
                return;
            }
            let turn = self.turn.lock().await;
            let begin = Instant::now();
            let upcast = host.invoker.upcast(&self.deployment, begin + ONE_DOCUMENT_MAX);
            let batch = backfill.batch(&host.store, &*upcast, BATCH_ROWS).await;
            drop((turn, host));
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    let (table, error) = (&self.name, chain(&error));
                    tracing::warn!(table, error, "a backfill could not go on: trying again");
                    sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            if let Some((id, failure)) = batch.failure.filter(|_| self.failed == 0) {
                self.failed = 1;
                self.warn(id, &failure);
            }
            match batch.progress {
                Progress::Batch => sleep((begin.elapsed() * PAUSE_SHARE).max(PAUSE_MIN)).await,
                Progress::Pass(pass) => {
                    self.after_pass(pass);
                    if pass.held == 0 && pass.failed == 0 {
                        pause = PASS_PAUSE_FIRST;
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PASS_PAUSE_LONGEST);
                }
                Progress::Done => return self.done(),
            }
        }
    }

    fn warn(&self, id: DocumentId, failure: &Failure) {
        let detail = failure.internal.as_deref().unwrap_or(&failure.message);
        tracing::warn!(table = self.name, %id, detail, "a document stays in its old form");
    }

    fn after_pass(&mut self, pass: Pass) {
        self.changed += pass.changed;
        self.failed = pass.failed;
        let Pass { changed, held, failed } = pass;
        let table = &self.name;
        if failed > 0 && held == 0 && changed == 0 {
            tracing::warn!(table, failed, "documents stay in their old form: a backfill looks again later");
        } else {
            tracing::debug!(table, changed, held, failed, "a pass of a backfill is over");
        }
    }

    fn done(&self) {
        if self.changed > 0 {
            let Self { name: table, version, changed, .. } = self;
            tracing::info!(table, version, changed, "a backfill is done: no document is of an older form");
        }
    }
}
