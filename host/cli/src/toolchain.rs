//! The compiler's target for components: there, or made to be.

use std::io::BufRead;

use convoke_project::Project;
use convoke_project::target::{self, TARGET};

use crate::failure::Failure;
use crate::output::Output;

/// Sees to it that the project's components can be built: adds the missing target, after asking where somebody can
/// answer.
pub(crate) async fn ensure_target(project: &Project, output: &Output) -> Result<(), Failure> {
    let Some(dir) = project.first_package_dir() else {
        return Ok(());
    };
    if target::installed(&dir).await?.is_some() {
        return Ok(());
    }
    let command = format!("rustup target add {TARGET}");
    if output.can_ask() {
        output.question(format!("The Rust target `{TARGET}` is not installed. Run `{command}`? [Y/n]"));
        if !answer_is_yes().await {
            return Err(
                Failure::new(format!("the Rust target `{TARGET}` is not installed")).hint(format!("run `{command}`"))
            );
        }
    } else {
        output.note(format!("The Rust target `{TARGET}` is not installed: running `{command}`"));
    }
    target::add(&dir).await?;
    output.note(format!("Added the Rust target `{TARGET}`"));
    Ok(())
}

/// An empty line is a yes, no line at all a no.
async fn answer_is_yes() -> bool {
    let (sender, answer) = tokio::sync::oneshot::channel();
    // A thread of its own: one of the runtime's would keep a Ctrl-C waiting for the line.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        // Nobody waits any more after a Ctrl-C.
        let _ = sender.send(read.is_ok_and(|bytes| bytes > 0).then_some(line));
    });
    let line = answer.await.ok().flatten();
    line.is_some_and(|line| matches!(line.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}
