//! Child processes that never outlive the future that runs them.

use std::io;
use std::process::{ExitStatus, Output};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// A child in a process group of its own. Dropped before its end, it is killed together with all of its descendants:
/// killing cargo alone would leave its compilers behind.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) child: Child,
    /// None once the leader's end has been seen: the number may then belong to somebody else.
    id: Option<Pid>,
}

impl Group {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self { child, id })
    }

    /// Runs a command to its end; its stdout and stderr have to be piped to be collected.
    pub(crate) async fn output(command: &mut Command) -> io::Result<Output> {
        let mut group = Self::spawn(command)?;
        let mut stdout = group.child.stdout.take();
        let mut stderr = group.child.stderr.take();
        let (stdout, stderr) = tokio::try_join!(read_all(&mut stdout), read_all(&mut stderr))?;
        let status = group.wait().await?;
        Ok(Output { status, stdout, stderr })
    }

    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.id = None;
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Gone already is as good as killed.
        if let Some(id) = self.id {
            let _ = killpg(id, Signal::SIGKILL);
        }
    }
}

async fn read_all(stream: &mut Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn a_dropped_group_takes_its_descendants_along() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("pid");
        let script = "sleep 600 & echo $! > \"$0.new\" && mv \"$0.new\" \"$0\"; wait";
        let group = Group::spawn(Command::new("sh").arg("-c").arg(script).arg(&file)).expect("started");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !file.exists() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let text = std::fs::read_to_string(&file).expect("the script wrote it");
        let grandchild = Pid::from_raw(text.trim().parse().expect("a number"));
        assert!(is_running(grandchild));

        drop(group);
        while is_running(grandchild) {
            assert!(Instant::now() < deadline, "the grandchild lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A zombie that nobody reaps yet (in a container without an init) counts as ended.
    fn is_running(id: Pid) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else {
            return !cfg!(target_os = "linux") && nix::sys::signal::kill(id, None).is_ok();
        };
        !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    }
}
