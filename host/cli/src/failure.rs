//! What a command ends with when it cannot do its work: words for the reader, and advice as data.

use std::error::Error;

use convoke_project::{BuildError, ManifestError, PlanError, ProjectError, WatchError, target::TargetError};

/// The end of a command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    details: Vec<String>,
    usage: bool,
}

/// An error that knows what to do about it.
pub(crate) trait Advice: Error {
    /// What to do.
    fn advice(&self) -> Option<String>;

    /// What a compiler said, as it says it: printed before the error.
    fn details(&self) -> Vec<String> {
        Vec::new()
    }
}

macro_rules! advice_by_hint {
    ($($error:ty),+) => { $(
        impl Advice for $error {
            fn advice(&self) -> Option<String> {
                self.hint()
            }
        }
    )+ };
}

advice_by_hint!(ProjectError, PlanError, WatchError, TargetError, convoke_local_postgres::Error);

impl Advice for ManifestError {
    fn advice(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl Advice for BuildError {
    fn advice(&self) -> Option<String> {
        self.hint()
    }

    fn details(&self) -> Vec<String> {
        self.diagnostics().to_vec()
    }
}

impl<E: Advice> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut failure = Self::new(error.to_string()).hints(error.advice());
        failure.details = error.details();
        failure.causes = causes_of(&error, &failure.message);
        failure
    }
}

/// The chain below an error, without what it says itself: some errors repeat their cause, some leave it to the chain.
fn causes_of(error: &dyn Error, message: &str) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !message.contains(&text) && causes.last() != Some(&text) {
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}

impl Failure {
    /// What failed, in lower case and without a full stop.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hints: Vec::new(), details: Vec::new(), usage: false }
    }

    /// The command was typed wrong: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { usage: true, ..Self::new(message) }
    }

    /// Any error, with its chain.
    pub(crate) fn of(error: &dyn Error) -> Self {
        let message = error.to_string();
        let causes = causes_of(error, &message);
        Self { causes, ..Self::new(message) }
    }

    /// Why, with the chain below it.
    pub(crate) fn cause(mut self, error: &dyn Error) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(causes_of(error, &error.to_string()));
        self
    }

    /// What to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        self.hints(Some(hint.into()))
    }

    pub(crate) fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// What is printed before the error, as it is.
    pub(crate) fn said(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn causes(&self) -> &[String] {
        &self.causes
    }

    /// The advice, as lines of its own.
    pub(crate) fn advice(&self) -> &[String] {
        &self.hints
    }

    pub(crate) fn details(&self) -> &[String] {
        &self.details
    }

    pub(crate) fn exit_code(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }
}
