//! The compiler's target for components: is it installed, and how to install it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::cargo;
use crate::process::Group;

/// The target that components are built for: rustc links a component itself.
pub const TARGET: &str = "wasm32-wasip2";

pub(crate) const RUST_HINT: &str =
    "install Rust from `https://rustup.rs`, or name finished `.wasm` components in `convoke.toml`";

/// Why the target is not there.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is no compiler.
    #[error("`rustc` was not found on this machine")]
    RustMissing,
    /// The target is missing and rustup, which would add it, too.
    #[error("the Rust target `{TARGET}` is not installed, and there is no `rustup` to add it")]
    RustupMissing,
    /// Rustup could not add it.
    #[error("`rustup target add {TARGET}` failed:\n{said}")]
    Rustup {
        /// Rustup's message.
        said: String,
    },
    /// The compiler does not know it.
    #[error("this `rustc` does not know the target `{TARGET}`:\n{said}")]
    Unknown {
        /// The compiler's message.
        said: String,
    },
    /// A program did not start.
    #[error("`{program}` could not be run")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl TargetError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::RustMissing => RUST_HINT.to_owned(),
            Self::RustupMissing => format!(
                "install the package of your system that holds the standard library for `{TARGET}`, or Rust from `https://rustup.rs`"
            ),
            Self::Rustup { .. } => format!("run `rustup target add {TARGET}` by hand to see more"),
            Self::Unknown { .. } => "components need Rust 1.82 or newer: run `rustup update`".to_owned(),
            Self::Run { .. } => return None,
        })
    }
}

/// Where the target's standard library is, or none when it is not installed. `dir` is where a `rust-toolchain.toml`
/// may choose the compiler.
///
/// # Errors
///
/// When there is no compiler or it does not know the target.
pub async fn installed(dir: &Path) -> Result<Option<PathBuf>, TargetError> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    cargo::clean_environment(&mut command);
    command.current_dir(dir).args(["--print", "target-libdir", "--target", TARGET]);
    let output = collect(&mut command, "rustc").await.map_err(|error| match error {
        TargetError::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => TargetError::RustMissing,
        other => other,
    })?;
    if !output.status.success() {
        return Err(TargetError::Unknown { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    // The path is printed whether or not anything is there.
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(path.is_dir().then_some(path))
}

/// The version that `rustup --version` prints, or none without rustup.
pub async fn rustup_version() -> Option<String> {
    version("rustup").await
}

/// The version that `cargo --version` prints, or none without cargo.
pub async fn cargo_version() -> Option<String> {
    version("cargo").await
}

async fn version(program: &'static str) -> Option<String> {
    let output = collect(Command::new(program).arg("--version"), program).await.ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Adds the target to the toolchain of `dir`.
///
/// # Errors
///
/// When there is no rustup, or it fails.
pub async fn add(dir: &Path) -> Result<(), TargetError> {
    let mut command = Command::new("rustup");
    command.current_dir(dir).args(["target", "add", TARGET]);
    let output = collect(&mut command, "rustup").await.map_err(|error| match error {
        TargetError::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => TargetError::RustupMissing,
        other => other,
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(TargetError::Rustup { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

async fn collect(command: &mut Command, program: &'static str) -> Result<std::process::Output, TargetError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Group::output(command).await.map_err(|source| TargetError::Run { program, source })
}
