//! Running cargo: its environment, its output, and the messages it prints for programs.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use crate::process::Group;

/// Where cargo's own lines go while it builds.
pub enum CargoOutput<'a> {
    /// Cargo writes to this process's stderr itself, with its progress bar.
    Terminal,
    /// Each line that cargo writes, as plain text.
    Lines(&'a mut (dyn FnMut(&str) + Send)),
}

impl std::fmt::Debug for CargoOutput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Terminal => "Terminal",
            Self::Lines(_) => "Lines",
        })
    }
}

/// Set by cargo for what it runs (`cargo run -- dev`, `cargo test`). Handed on to a nested cargo they would change its
/// fingerprints, so that `convoke dev` and `cargo run -- dev` would each rebuild what the other one built.
const SET_BY_CARGO: &[&str] = &[
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
];

const PREFIXES_SET_BY_CARGO: &[&str] = &["CARGO_PKG_", "CARGO_BIN_EXE_", "CARGO_CFG_", "CARGO_FEATURE_", "DEP_"];

/// A person may set these for all of their builds; cargo sets them for build scripts alone, which have an `OUT_DIR`.
const SET_FOR_BUILD_SCRIPTS: &[&str] =
    &["RUSTC", "RUSTDOC", "RUSTC_LINKER", "TARGET", "HOST", "NUM_JOBS", "OPT_LEVEL", "DEBUG", "PROFILE"];

/// The variables of this environment that a nested cargo must not see.
pub(crate) fn variables_to_remove(environment: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let names: Vec<_> = environment.collect();
    let in_build_script = names.iter().any(|name| name == "OUT_DIR");
    let disturbs = |name: &OsStr| {
        let Some(name) = name.to_str() else {
            return false;
        };
        SET_BY_CARGO.contains(&name)
            || PREFIXES_SET_BY_CARGO.iter().any(|prefix| name.starts_with(prefix))
            || (in_build_script && SET_FOR_BUILD_SCRIPTS.contains(&name))
    };
    names.into_iter().filter(|name| disturbs(name)).collect()
}

/// Takes what the outer cargo set out of a command's environment.
pub(crate) fn clean_environment(command: &mut Command) {
    for name in variables_to_remove(std::env::vars_os().map(|(name, _)| name)) {
        command.env_remove(name);
    }
}

/// Cargo, in `dir` (where its `rust-toolchain.toml` and `.cargo/config.toml` are looked for), with nothing to read.
pub(crate) fn command(dir: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    clean_environment(&mut command);
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// One line of `--message-format=json`, as far as it is of use here.
#[derive(Debug, Deserialize)]
#[serde(tag = "reason")]
pub(crate) enum Message {
    #[serde(rename = "compiler-artifact")]
    Artifact(Artifact),
    #[serde(rename = "compiler-message")]
    Diagnostic { message: Diagnostic },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Artifact {
    pub(crate) package_id: String,
    pub(crate) filenames: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Diagnostic {
    pub(crate) level: String,
    pub(crate) rendered: Option<String>,
}

/// What a run of cargo left.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) artifacts: Vec<Artifact>,
    /// The compiler's errors as it renders them.
    pub(crate) errors: Vec<String>,
    /// The compiler's warnings as it renders them.
    pub(crate) warnings: Vec<String>,
    /// What cargo wrote to stderr, where it did not write it to the terminal itself.
    pub(crate) stderr: Vec<String>,
}

/// Runs a cargo that prints JSON messages. Dropping the future kills cargo and its compilers.
pub(crate) async fn run(mut command: Command, output: &mut CargoOutput<'_>) -> io::Result<Outcome> {
    command.stdout(Stdio::piped());
    match output {
        CargoOutput::Terminal => command.stderr(Stdio::inherit()),
        CargoOutput::Lines(_) => command.stderr(Stdio::piped()),
    };
    let mut group = Group::spawn(&mut command)?;
    let stdout = group.child.stdout.take();
    let stderr = group.child.stderr.take();
    let mut outcome = Outcome::default();
    let mut said = Vec::new();
    // Both at once: a pipe that nobody reads would stop cargo.
    let messages = each_line(stdout, |line| outcome.take(line));
    let lines = each_line(stderr, |line| {
        if let CargoOutput::Lines(sink) = output {
            sink(line);
        }
        said.push(line.to_owned());
    });
    tokio::try_join!(messages, lines)?;
    outcome.success = group.wait().await?.success();
    outcome.stderr = said;
    Ok(outcome)
}

impl Outcome {
    fn take(&mut self, line: &str) {
        // A build script or a macro may print anything to stdout; cargo's own messages are all JSON.
        match serde_json::from_str(line) {
            Ok(Message::Artifact(artifact)) => self.artifacts.push(artifact),
            Ok(Message::Diagnostic { message: Diagnostic { level, rendered: Some(text) } }) => {
                // `failure-note` is the pointer to `rustc --explain`, of use only below its error.
                match level.as_str() {
                    "warning" => self.warnings.push(text),
                    "failure-note" => {}
                    _ => self.errors.push(text),
                }
            }
            Ok(_) | Err(_) => {}
        }
    }
}

async fn each_line(stream: Option<impl AsyncRead + Unpin>, mut sink: impl FnMut(&str)) -> io::Result<()> {
    let Some(stream) = stream else {
        return Ok(());
    };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await? > 0 {
        // A compiler may quote source text that is no UTF-8.
        sink(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(names: &[&str]) -> Vec<String> {
        let names = names.iter().map(|name| OsString::from(*name));
        variables_to_remove(names).into_iter().map(|name| name.into_string().expect("ASCII")).collect()
    }

    #[test]
    fn what_cargo_set_goes_and_what_the_user_set_stays() {
        assert_eq!(
            removed(&[
                "PATH",
                "RUSTFLAGS",
                "RUSTC",
                "RUSTC_WRAPPER",
                "RUSTUP_TOOLCHAIN",
                "CARGO_HOME",
                "CARGO_TARGET_DIR",
                "CARGO_INCREMENTAL",
                "CARGO_PROFILE_RELEASE_LTO",
                "CARGO_ENCODED_RUSTFLAGS",
                "CARGO_MANIFEST_DIR",
                "CARGO_PKG_NAME",
            ]),
            ["CARGO_ENCODED_RUSTFLAGS", "CARGO_MANIFEST_DIR", "CARGO_PKG_NAME"]
        );
    }

    #[test]
    fn in_a_build_script_the_compiler_goes_too() {
        assert_eq!(removed(&["RUSTC", "OUT_DIR", "TARGET", "HOME"]), ["RUSTC", "OUT_DIR", "TARGET"]);
    }

    #[test]
    fn messages_are_told_from_noise() {
        let mut outcome = Outcome::default();
        for line in [
            "a build script prints this",
            r#"{"reason":"compiler-artifact","package_id":"path+file:///p#a@0.1.0","filenames":["/t/a.wasm"],"fresh":true}"#,
            r#"{"reason":"compiler-message","message":{"level":"error","rendered":"error: no\n"}}"#,
            r#"{"reason":"compiler-message","message":{"level":"warning","rendered":"warning: hm\n"}}"#,
            r#"{"reason":"compiler-message","message":{"level":"failure-note","rendered":"For more information"}}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ] {
            outcome.take(line);
        }
        assert_eq!(outcome.artifacts.len(), 1);
        assert_eq!(outcome.errors, ["error: no\n"]);
        assert_eq!(outcome.warnings, ["warning: hm\n"]);
    }
}
