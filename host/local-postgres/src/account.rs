//! Who the server runs as. Postgres refuses to run as root, so a parent that is root lends it to somebody else.

use std::{
    fs::Metadata,
    os::unix::fs::{MetadataExt, lchown},
    path::{Path, PathBuf},
};

use nix::unistd::{User, geteuid};

use crate::error::Error;

/// Who the programs run as; decided once a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunAs {
    /// Like the parent, who is an ordinary user.
    Parent,
    /// As an existing unprivileged account, which then owns the data.
    Account(Ids),
    /// As the parent, root, in a user namespace where it goes by this account's id: the second choice, for files
    /// below a directory that only root may enter. Root owns the data.
    Namespace(Ids),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl RunAs {
    /// Chooses for programs and data at `paths`. `owner` owns the data, where there are any.
    pub(crate) fn choose(owner: Option<Ids>, paths: &[&Path]) -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Ok(Self::Parent);
        }
        let account = unprivileged().ok_or(Error::NoAccount)?;
        // Data that an ordinary user made stay that user's when root comes by.
        let ids = owner.filter(|ids| ids.uid != 0).unwrap_or(account);
        match paths.iter().find_map(|path| barrier(path, ids)) {
            None => Ok(Self::Account(ids)),
            Some(_) if cfg!(target_os = "linux") => Ok(Self::Namespace(account)),
            Some(path) => Err(Error::Unreachable { path, uid: ids.uid }),
        }
    }

    /// Who owns what the server writes, as seen by the parent; `None` if that needs no care.
    pub(crate) fn owner(self) -> Option<Ids> {
        match self {
            Self::Parent => None,
            Self::Account(ids) => Some(ids),
            Self::Namespace(_) => Some(Ids { uid: 0, gid: 0 }),
        }
    }

    /// Hands `path` over to the server, with all below it if it has another owner by now.
    pub(crate) fn claim(self, path: &Path) -> Result<(), Error> {
        let Some(ids) = self.owner() else { return Ok(()) };
        let metadata = path.symlink_metadata().map_err(Error::io("look at", path))?;
        if Ids::of(&metadata) == ids {
            return Ok(());
        }
        // Children first: a claim that was cut short starts anew.
        if metadata.is_dir() {
            for entry in path.read_dir().map_err(Error::io("list", path))? {
                self.claim(&entry.map_err(Error::io("list", path))?.path())?;
            }
        }
        lchown(path, Some(ids.uid), Some(ids.gid)).map_err(Error::io("change the owner of", path))
    }
}

impl Ids {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid() }
    }
}

/// The account for servers whose parent is root. `initdb` wants it to have an entry in the user database.
pub(crate) fn unprivileged() -> Option<Ids> {
    ["postgres", "nobody"].into_iter().find_map(|name| {
        let user = User::from_name(name).ok().flatten()?;
        (!user.uid.is_root()).then(|| Ids { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    })
}

/// The directory on the way to `path`, itself included, that `ids` may not enter. What is not there yet bars nobody.
pub(crate) fn barrier(path: &Path, ids: Ids) -> Option<PathBuf> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    path.ancestors()
        .filter(|dir| dir.metadata().is_ok_and(|metadata| metadata.is_dir() && !may_enter(&metadata, ids)))
        .last()
        .map(Path::to_path_buf)
}

fn may_enter(dir: &Metadata, ids: Ids) -> bool {
    let execute_bit = match Ids::of(dir) {
        owner if owner.uid == ids.uid => 0o100,
        owner if owner.gid == ids.gid => 0o010,
        _ => 0o001,
    };
    dir.mode() & execute_bit != 0
}
