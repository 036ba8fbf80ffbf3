//! One `dev` a project.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};

use convoke_project::Project;

use crate::failure::Failure;

/// Held until dropped, and let go by any end of the process.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

pub(super) fn take(project: &Project) -> Result<Lock, Failure> {
    let path = project.state_dir().join("dev.lock");
    let failed = |e: &dyn std::error::Error| Failure::new(format!("`{}` cannot be locked", path.display())).cause(e);
    project.create_state_dir().map_err(|e| failed(&e))?;
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(|e| failed(&e))?;
    match file.try_lock() {
        Ok(()) => {
            // For the words of the next one only: without them it is refused just the same.
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
            Ok(Lock(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            let owner = owner.parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (process {pid})"));
            Err(Failure::new(format!("`convoke dev` already runs in `{}`{owner}", project.root().display()))
                .hint("stop the other one, or work in a copy of the project"))
        }
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}
