//! Commands for the Postgres programs: who they run as, and that they end with their parent.
//!
//! The only module with `unsafe`: what happens between `fork` and `exec` has no other way in.
#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "`pre_exec` is the only hook between fork and exec"))]

use std::{
    env,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::account::RunAs;

/// A command for `program`, to be spawned by a thread that outlives it: on Linux, the program gets `death` when the
/// *thread* that spawned it ends, whether the process was killed or left `main`.
///
/// It is in a process group of its own, so that a Ctrl-C in the terminal reaches it through its parent, in order.
pub(crate) fn command(program: &Path, run_as: RunAs, death: Signal) -> Command {
    let mut command = Command::new(program);
    // The parent's working directory may be closed to the account.
    command.current_dir("/").stdin(Stdio::null()).process_group(0);
    // `PGPORT`, `PGOPTIONS` and their like are meant for other servers.
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    // Messages are matched and shown, so in one language; and macOS's loader needs a valid locale.
    command.env("LC_ALL", "C");
    if let RunAs::Account(ids) = run_as {
        command.uid(ids.uid).gid(ids.gid);
    }
    #[cfg(target_os = "linux")]
    before_exec(&mut command, run_as, death);
    #[cfg(not(target_os = "linux"))]
    let _ = death;
    command
}

#[cfg(target_os = "linux")]
fn before_exec(command: &mut Command, run_as: RunAs, death: Signal) {
    use nix::{errno::Errno, sys::prctl, unistd};

    let parent = unistd::getpid();
    let namespace = match run_as {
        RunAs::Namespace(ids) => Some(namespace::Maps::new(ids)),
        RunAs::Parent | RunAs::Account(_) => None,
    };
    let hook = move || {
        if let Some(maps) = &namespace {
            maps.enter()?;
        }
        // After the change of user, which clears it.
        prctl::set_pdeathsig(death)?;
        // A parent that died before that call sends nothing any more.
        if unistd::getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: the hook runs in the forked child, where only async-signal-safe calls are sound: it makes plain system
    // calls on memory allocated before the fork, and errors carry a number, so nothing allocates or takes a lock.
    unsafe { command.pre_exec(hook) };
}

/// A user namespace in which root has an unprivileged id. Its files stay root's.
#[cfg(target_os = "linux")]
mod namespace {
    use std::{ffi::CStr, io};

    use nix::{
        fcntl::{OFlag, open},
        sched::{CloneFlags, unshare},
        sys::stat::Mode,
        unistd::{getegid, geteuid, write},
    };

    use crate::account::Ids;

    /// The contents of the map files, ready before the fork.
    pub(super) struct Maps {
        uid: String,
        gid: String,
    }

    impl Maps {
        pub(super) fn new(inside: Ids) -> Self {
            let (uid, gid) = (geteuid(), getegid());
            Self { uid: format!("{} {uid} 1", inside.uid), gid: format!("{} {gid} 1", inside.gid) }
        }

        /// Moves the calling process, which has one thread, into the namespace.
        pub(super) fn enter(&self) -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWUSER)?;
            // The kernel demands this first of a process that writes its own group map.
            put(c"/proc/self/setgroups", b"deny")?;
            put(c"/proc/self/uid_map", self.uid.as_bytes())?;
            put(c"/proc/self/gid_map", self.gid.as_bytes())
        }
    }

    fn put(path: &CStr, content: &[u8]) -> io::Result<()> {
        let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        write(&file, content)?;
        Ok(())
    }
}
