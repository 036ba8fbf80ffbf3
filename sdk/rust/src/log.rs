//! The call's log.

use std::fmt::Display;

use crate::bindings::convoke::runtime::context;

/// Adds lines to the call's log: `ctx.log().info(format_args!("{count} messages"))`.
#[derive(Debug)]
pub struct Logger(());

impl Logger {
    pub(crate) const fn new() -> Self {
        Self(())
    }

    /// For whoever looks for a fault.
    pub fn debug(&self, message: impl Display) {
        context::log("debug", &message.to_string());
    }

    /// Without a level, as `console.log` writes it.
    pub fn log(&self, message: impl Display) {
        context::log("log", &message.to_string());
    }

    /// For whoever wants to know what happened.
    pub fn info(&self, message: impl Display) {
        context::log("info", &message.to_string());
    }

    /// Something to look at, though the call goes on.
    pub fn warn(&self, message: impl Display) {
        context::log("warn", &message.to_string());
    }

    /// Something that failed.
    pub fn error(&self, message: impl Display) {
        context::log("error", &message.to_string());
    }
}
