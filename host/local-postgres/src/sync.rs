//! Bringing a fresh data directory to the disk beside the running server.
//!
//! `initdb` would wait for its thousand files to be written, seconds on a busy disk, and a first start with it. What
//! the server commits is durable from the first moment; that what lies below it is too is known when this ends. Until
//! then a file, `unsynced`, says that a crash of the whole machine may have cost the cluster (a crash of processes
//! cannot), and the next start takes the work up again.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

/// The work, until it is done. Dropped, it is broken off.
#[derive(Debug)]
pub(crate) struct Sync {
    /// Closing it ends the work.
    stop: Option<mpsc::SyncSender<()>>,
    worker: Option<JoinHandle<()>>,
}

impl Sync {
    /// Runs `command` in the background and removes `marker` when it has succeeded.
    pub(crate) fn start(mut command: Command, marker: PathBuf) -> Self {
        const POLL: Duration = Duration::from_millis(50);
        let (stop, stopped) = mpsc::sync_channel::<()>(0);
        // The child dies with the thread that spawned it, so this one stays with it.
        let worker = thread::Builder::new().name("local-postgres-sync".into()).spawn(move || {
            let Ok(mut child) = command.spawn() else { return };
            loop {
                match child.try_wait() {
                    Ok(None) => {}
                    Ok(Some(status)) if status.success() => return drop(fs::remove_file(marker)),
                    _ => return,
                }
                if stopped.recv_timeout(POLL) == Err(mpsc::RecvTimeoutError::Disconnected) {
                    let _ = child.kill();
                    let _ = child.wait();
                    return;
                }
            }
        });
        Self { stop: Some(stop), worker: worker.ok() }
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
