//! A project in a temporary directory, and `convoke` run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory that goes with the test.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    /// Texts that differ from run to run, and what stands for them in a snapshot.
    filters: Vec<(String, &'static str)>,
}

impl Place {
    /// Nothing but a directory.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let real = dir.path().canonicalize().expect("it is there");
        let mut filters = vec![(real.display().to_string(), "[DIR]")];
        filters.push((dir.path().display().to_string(), "[DIR]"));
        Self { dir, filters }
    }

    /// A project with this `convoke.toml`.
    pub(crate) fn project(manifest: &str) -> Self {
        let place = Self::empty();
        place.write("convoke.toml", manifest);
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(&path, content).expect("written");
        path
    }

    /// Has a text that differs from run to run stand under a name.
    pub(crate) fn filter(mut self, text: impl Into<String>, name: &'static str) -> Self {
        self.filters.push((text.into(), name));
        self
    }

    /// `convoke` with these arguments, here, without the settings of whoever runs the tests.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convoke"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        for name in ["DATABASE_URL", "CONVOKE_URL", "CONVOKE_LOG", "COLUMNS"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs it to its end: exit code, stdout, stderr.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.run_command(&mut self.command(arguments))
    }

    pub(crate) fn run_command(&self, command: &mut Command) -> String {
        self.show(&command.output().expect("`convoke` runs"))
    }

    pub(crate) fn show(&self, output: &Output) -> String {
        let code = output.status.code().map_or("a signal".to_owned(), |code| code.to_string());
        let part = |name: &str, bytes: &[u8]| match String::from_utf8_lossy(bytes).trim_end() {
            "" => format!("--- {name}: nothing\n"),
            text => format!("--- {name}\n{}\n", self.filtered(text)),
        };
        format!("exit code {code}\n{}{}", part("stdout", &output.stdout), part("stderr", &output.stderr))
    }

    fn filtered(&self, text: &str) -> String {
        self.filters.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}
