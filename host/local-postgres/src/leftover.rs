//! A server that outlived its parent: one to be stopped before the next is started on the same data.
//!
//! Whoever comes here holds the project's lock, so no living process claims the server.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::error::Error;

/// How long each signal has to work. A server that lost its parent is in a fast shutdown already.
const STOPS: [(Signal, Duration); 2] =
    [(Signal::SIGINT, Duration::from_secs(10)), (Signal::SIGQUIT, Duration::from_secs(5))];

/// Ends a server on `data`, and lets a stale `postmaster.pid` not stand in the way of the next.
pub(crate) fn clear(data: &Path) -> Result<(), Error> {
    let path = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    let mut lines = text.lines();
    let pid = lines.next().and_then(|line| line.trim().parse().ok()).filter(|pid| *pid > 1);
    let (Some(pid), Some(directory)) = (pid, lines.next()) else { return Ok(()) };
    // A copy of a project names the data, and perhaps the living server, of the original.
    if Path::new(directory) == data && is_server(pid, data) {
        return stop(pid, data);
    }
    if kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH) {
        // The id belongs to somebody else by now, or to a process that nobody reaps. Postgres would take it for a
        // server and refuse; it does take its parent's id, ours, for stale, and it goes on to check by the rest of
        // the file that no backend of the old server is left, which it could not if the file were removed.
        let stale = text.replacen(&pid.to_string(), &std::process::id().to_string(), 1);
        fs::write(&path, stale).map_err(Error::io("write", path))?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a stranger's child can only be polled, and this thread is for blocking")]
fn stop(pid: i32, data: &Path) -> Result<(), Error> {
    tracing::warn!(pid, data = %data.display(), "stopping a Postgres whose parent is gone");
    for (signal, limit) in STOPS {
        // An error means that it is gone, which is looked at next, or not ours to stop, which ends in the error.
        let _ = kill(Pid::from_raw(pid), signal);
        let start = Instant::now();
        while start.elapsed() < limit {
            if !is_server(pid, data) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    Err(Error::Leftover { data: PathBuf::from(data), pid })
}

/// Whether the process is a server on `data`, by its command line; one that has ended and was not reaped has none.
fn is_server(pid: i32, data: &Path) -> bool {
    let data = data.as_os_str().as_encoded_bytes();
    if cfg!(target_os = "linux") {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        return line.split(|byte| *byte == 0).any(|argument| argument == data);
    }
    let output = std::process::Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output();
    output.is_ok_and(|output| output.stdout.windows(data.len()).any(|part| part == data))
}
