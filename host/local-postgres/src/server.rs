//! A running server process, held by a thread of its own.

use std::{
    io,
    process::{Command, ExitStatus},
    sync::{Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::watch;

/// How long each signal has to work: sessions are cut and all is written; sessions are cut, the next start recovers;
/// the last resort. The first hangs while a replication client does not read, and such a client may be our own.
const STOPS: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(5)),
    (Signal::SIGQUIT, Duration::from_secs(3)),
    (Signal::SIGKILL, Duration::from_secs(2)),
];

/// A server, from its spawn until its process is reaped. Dropped, it is stopped.
#[derive(Debug)]
pub(crate) struct Server {
    pid: u32,
    exit: watch::Receiver<Option<ExitStatus>>,
    /// Closed by the keeper's end: `exit` for those who block, within a time limit.
    ended: Mutex<mpsc::Receiver<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Server {
    /// Spawns `command` from a thread that then waits for its end: on Linux a server ends with the thread that spawned
    /// it, and a thread of the async runtime may end long before the process does.
    pub(crate) fn spawn(mut command: Command) -> io::Result<Self> {
        let (tell_pid, pid) = mpsc::sync_channel(1);
        let (tell_exit, exit) = watch::channel(None);
        let (alive, ended) = mpsc::sync_channel(0);
        let keeper = thread::Builder::new().name("local-postgres".into()).spawn(move || {
            let _alive = alive;
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(tell_pid.send(Err(error))),
            };
            let _ = tell_pid.send(Ok(child.id()));
            // It fails for a child that somebody else has reaped: gone, too.
            let status = child.wait().unwrap_or_default();
            let _ = tell_exit.send(Some(status));
        })?;
        let pid = pid.recv().unwrap_or_else(|_| Err(io::Error::other("the thread of the server ended")))?;
        Ok(Self { pid, exit, ended: Mutex::new(ended), keeper: Some(keeper) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How the server ended, if it did.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for its end, whoever brings it about.
    pub(crate) async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        // Without a sender the keeper has ended, and so has the server.
        status.unwrap_or_default()
    }

    /// Stops it, by harder means where softer ones take too long.
    pub(crate) fn stop(&mut self) {
        let Some(keeper) = self.keeper.take() else { return };
        for (signal, limit) in STOPS {
            if self.status().is_none() {
                // A failure means that it has ended this very moment.
                let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
            }
            let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
            if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Disconnected) {
                let _ = keeper.join();
                return;
            }
            tracing::warn!(pid = self.pid, ?signal, "Postgres did not stop in {} s", limit.as_secs());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
