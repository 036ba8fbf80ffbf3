//! Brings the stored documents of a deployment to the newest form, in the background.
//!
//! A deploy does not wait for it: until a document is written anew, each read brings it up to date. How far the work is,
//! the rows themselves say, so it goes on where it was after any interruption, and several hosts may do it at once.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use convoke_deploy::Deployment;
use convoke_model::Table;
use convoke_store::Filled;
use tokio::time::sleep;

use crate::host::Host;

const BATCH_ROWS: u32 = 200;
/// The pause behind a batch, in times of the batch: others have the database most of the time.
const PAUSE_SHARE: u32 = 3;
const PAUSE_MIN: Duration = Duration::from_millis(5);
const RETRY_AFTER: Duration = Duration::from_secs(5);
const ONE_DOCUMENT_MAX: Duration = Duration::from_secs(10);

/// Starts the work of a deployment, where it has any; another deployment ends it.
pub(crate) fn start(host: &Arc<Host>, deployment: &Arc<Deployment>) {
    let outdated = |table: &&Table| table.is_managed() && table.version > 1 && table.upcast.is_some();
    let tables: Vec<Table> = deployment.tables().tables.values().filter(outdated).cloned().collect();
    if tables.is_empty() {
        return;
    }
    let (host, deployment) = (Arc::downgrade(host), Arc::clone(deployment));
    tokio::spawn(async move {
        for table in tables {
            fill(&host, &deployment, &table).await;
        }
    });
}

async fn fill(host: &Weak<Host>, deployment: &Arc<Deployment>, table: &Table) {
    let mut after = None;
    let (mut changed, mut failed) = (0, 0);
    loop {
        let Some(host) = host.upgrade() else { return };
        if !Arc::ptr_eq(&host.deployments.current(), deployment) {
            return;
        }
        let begin = Instant::now();
        let upcast = host.invoker.upcast(deployment, begin + ONE_DOCUMENT_MAX);
        let filled = host.store.fill(table, after, &*upcast, BATCH_ROWS).await;
        drop(host);
        match filled {
            Ok(Filled { last: None, .. }) => break,
            Ok(filled) => {
                after = filled.last;
                changed += filled.changed;
                if let Some((id, failure)) = filled.failed.first().filter(|_| failed == 0) {
                    let detail = failure.internal.as_deref().unwrap_or(&failure.message);
                    tracing::warn!(table = table.name, %id, detail, "a document stays in its old form");
                }
                failed += filled.failed.len();
                sleep((begin.elapsed() * PAUSE_SHARE).max(PAUSE_MIN)).await;
            }
            Err(error) => {
                tracing::warn!(table = table.name, %error, "could not bring documents to the newest form: trying again");
                sleep(RETRY_AFTER).await;
            }
        }
    }
    if changed > 0 || failed > 0 {
        tracing::info!(
            table = table.name,
            version = table.version,
            changed,
            failed,
            "documents are of the newest form"
        );
    }
}
