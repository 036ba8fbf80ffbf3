//! The only place that prints. Data go to stdout, everything else to stderr.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Where and how this process prints. Made once, at the start.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    stdout_is_terminal: bool,
    can_ask: bool,
    colour: bool,
    /// Before each line for people; empty where there is one project.
    label: String,
}

/// Colours stress what the words say already.
#[derive(Debug, Clone, Copy)]
enum Colour {
    Red,
    Yellow,
    Green,
    Cyan,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Red => "\x1b[1;31m",
            Self::Yellow => "\x1b[1;33m",
            Self::Green => "\x1b[1;32m",
            Self::Cyan => "\x1b[1;36m",
        }
    }
}

#[expect(
    clippy::unused_self,
    reason = "whoever prints has been given an `Output`, also where its state does not matter"
)]
impl Output {
    pub(crate) fn detect() -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            stdout_is_terminal: io::stdout().is_terminal(),
            can_ask: stderr_is_terminal && io::stdin().is_terminal(),
            colour: stderr_is_terminal && !is_set("NO_COLOR") && !is_dumb,
            label: String::new(),
        }
    }

    /// The output of one project beside others: each line begins with its name.
    pub(crate) fn of(&self, project: &str) -> Self {
        Self { label: format!("{project}: "), ..self.clone() }
    }

    /// Whether there is a person to answer.
    pub(crate) fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// Whether stderr has colours, and so may also redraw itself.
    pub(crate) fn has_colour(&self) -> bool {
        self.colour
    }

    /// A line about how the work goes.
    pub(crate) fn note(&self, text: impl Display) {
        self.stderr_line(&text.to_string());
    }

    /// A line that the reader waits for.
    pub(crate) fn good(&self, text: impl Display) {
        self.stderr_line(&self.painted(Colour::Green, &text.to_string()));
    }

    /// Something that is no failure and deserves a look.
    pub(crate) fn warning(&self, text: impl Display) {
        self.stderr_line(&format!("{} {text}", self.painted(Colour::Yellow, "warning:")));
    }

    /// What to do.
    pub(crate) fn hint(&self, text: impl Display) {
        self.stderr_line(&format!("{} {text}", self.painted(Colour::Cyan, "hint:")));
    }

    /// A question, without the end of the line.
    pub(crate) fn question(&self, text: impl Display) {
        let mut stderr = io::stderr().lock();
        // As for every line: where nobody reads, nobody misses it.
        let _ = write!(stderr, "{text} ");
        let _ = stderr.flush();
    }

    /// A failure: what the compiler said, the error, its causes, what to do.
    pub(crate) fn failure(&self, failure: &Failure) {
        for detail in failure.details() {
            self.stderr_line(detail.trim_end());
        }
        self.stderr_line(&format!("{} {}", self.painted(Colour::Red, "error:"), failure.message()));
        for cause in failure.causes() {
            self.stderr_line(&format!("  caused by: {cause}"));
        }
        for hint in failure.advice() {
            self.hint(hint);
        }
    }

    /// A line of data.
    pub(crate) fn data(&self, line: impl Display) -> Result<(), Failure> {
        stdout_line(&line.to_string())
    }

    /// Data as JSON: for people on a terminal, on one line for programs.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text =
            if self.stdout_is_terminal { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let text = text.map_err(|e| Failure::new("the result cannot be written as JSON").cause(&e))?;
        stdout_line(&text)
    }

    fn painted(&self, colour: Colour, text: &str) -> String {
        if self.colour { format!("{}{text}\x1b[0m", colour.code()) } else { text.to_owned() }
    }

    fn stderr_line(&self, line: &str) {
        // One write a line, so that lines of several threads do not mix. Nobody may be reading any more.
        let _ = io::stderr().lock().write_all(format!("{}{line}\n", self.label).as_bytes());
    }
}

fn stdout_line(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush()) {
        // The reader has seen enough, as `head` does.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|e| Failure::new("stdout cannot be written").cause(&e)),
    }
}
