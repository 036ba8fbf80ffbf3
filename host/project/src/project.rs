//! Finding a project and its places.

use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::{self, ManifestError, ProjectManifest};

/// A project that was found and whose `convoke.toml` is valid. Made once a command, and again when the file changes.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
    manifest: ProjectManifest,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// No `convoke.toml` here or above.
    #[error("no `convoke.toml` in `{}` or a directory above it", .0.display())]
    NotFound(PathBuf),
    /// The starting directory cannot be used.
    #[error("the directory `{}` cannot be used", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// The file is there and wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl ProjectError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(_) => Some(
                "run the command in a project's directory or name the directory; a `convoke.toml` starts with `[project]` and `name = \"my_app\"`"
                    .to_owned(),
            ),
            Self::Directory(..) => None,
            Self::Manifest(error) => error.hint.clone(),
        }
    }
}

impl Project {
    /// The project of `dir`: the nearest `convoke.toml` in it or above it.
    ///
    /// # Errors
    ///
    /// When there is none, or when it is not valid.
    pub fn find(dir: &Path) -> Result<Self, ProjectError> {
        let start = dir.canonicalize().map_err(|e| ProjectError::Directory(dir.to_owned(), e))?;
        let root = start.ancestors().find(|dir| manifest::file_in(dir).is_file());
        let root = root.ok_or_else(|| ProjectError::NotFound(start.clone()))?.to_owned();
        let manifest = ProjectManifest::read(&manifest::file_in(&root))?;
        Ok(Self { root, manifest })
    }

    /// The project again, as its `convoke.toml` now is.
    ///
    /// # Errors
    ///
    /// When the file is gone or no longer valid.
    pub fn reload(&self) -> Result<Self, ProjectError> {
        let manifest = ProjectManifest::read(&self.file())?;
        Ok(Self { root: self.root.clone(), manifest })
    }

    /// The directory of `convoke.toml`: absolute, without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `convoke.toml` says.
    pub fn manifest(&self) -> &ProjectManifest {
        &self.manifest
    }

    /// The path of `convoke.toml`.
    pub fn file(&self) -> PathBuf {
        manifest::file_in(&self.root)
    }

    /// `.convoke`: what the commands keep for themselves. May be deleted at any time but for the data of `dev`.
    pub fn state_dir(&self) -> PathBuf {
        self.root.join(".convoke")
    }

    /// `.convoke/build`: one `.wasm` a module.
    pub fn build_dir(&self) -> PathBuf {
        self.state_dir().join("build")
    }

    /// Where the static files are, when the project has any.
    pub fn site_dir(&self) -> Option<PathBuf> {
        self.manifest.site.as_ref().map(|site| self.root.join(site))
    }

    /// The first component that cargo builds: where a `rust-toolchain.toml` would choose the compiler. None when all
    /// components are finished ones.
    pub fn first_package_dir(&self) -> Option<PathBuf> {
        let dirs = self.manifest.components.values().map(|path| self.root.join(path));
        dirs.into_iter().find(|path| !crate::plan::is_wasm(path) && path.is_dir())
    }

    /// Makes `.convoke` and has git ignore it.
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub fn create_state_dir(&self) -> io::Result<PathBuf> {
        let dir = self.state_dir();
        std::fs::create_dir_all(&dir)?;
        let ignore = dir.join(".gitignore");
        if !ignore.exists() {
            std::fs::write(ignore, "*\n")?;
        }
        Ok(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project_in(dir: &Path) {
        std::fs::write(dir.join("convoke.toml"), "[project]\nname = \"a\"\nsite = \"public\"\n").expect("written");
    }

    #[test]
    fn a_project_is_found_from_below() {
        let dir = tempfile::tempdir().expect("temporary directory");
        project_in(dir.path());
        let below = dir.path().join("components/messages/src");
        std::fs::create_dir_all(&below).expect("made");

        let project = Project::find(&below).expect("found");
        let root = dir.path().canonicalize().expect("exists");
        assert_eq!(project.root(), root);
        assert_eq!(project.build_dir(), root.join(".convoke/build"));
        assert_eq!(project.site_dir(), Some(root.join("public")));
    }

    #[test]
    fn no_project_says_what_to_do() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = Project::find(dir.path()).expect_err("there is none");
        assert!(matches!(error, ProjectError::NotFound(_)), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("convoke.toml")));
        let error = Project::find(&dir.path().join("missing")).expect_err("no directory");
        assert!(matches!(error, ProjectError::Directory(..)), "{error}");
    }

    #[test]
    fn a_reload_sees_the_new_text() {
        let dir = tempfile::tempdir().expect("temporary directory");
        project_in(dir.path());
        let project = Project::find(dir.path()).expect("found");
        std::fs::write(dir.path().join("convoke.toml"), "[project]\nname = \"b\"\n").expect("written");
        assert_eq!(project.reload().expect("valid").manifest().name, "b");
        std::fs::write(dir.path().join("convoke.toml"), "[project\n").expect("written");
        assert!(matches!(project.reload(), Err(ProjectError::Manifest(_))));
    }

    #[test]
    fn git_ignores_the_state() {
        let dir = tempfile::tempdir().expect("temporary directory");
        project_in(dir.path());
        let state = Project::find(dir.path()).expect("found").create_state_dir().expect("made");
        assert_eq!(std::fs::read_to_string(state.join(".gitignore")).expect("there"), "*\n");
    }
}
