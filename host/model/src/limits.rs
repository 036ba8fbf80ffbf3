//! The bounds of a call.

use thiserror::Error;

/// Bounds that hold for every call, whatever the function. Times are milliseconds, sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the start of a query, mutation or rule to its answer, retries included.
    pub call_ms_max: u64,
    /// The same for an action, which may wait for the outside.
    pub action_ms_max: u64,
    /// Linear memory of one instance, all its memories together.
    pub memory_bytes_max: usize,
    /// Elements of all tables of an instance.
    pub table_elements_max: usize,
    /// The guest's own stack.
    pub stack_bytes_max: usize,
    /// Text of a result.
    pub result_bytes_max: usize,
    /// Message of an error that a function returns.
    pub error_message_bytes_max: usize,
    /// Code of an error that a function returns.
    pub error_code_bytes_max: usize,
    /// Data of an error that a function returns, as JSON text.
    pub error_data_bytes_max: usize,
    /// Body of a request, and so the text of its arguments.
    pub body_bytes_max: usize,
    /// Lines of a call's log.
    pub log_lines_max: usize,
    /// Text of a call's log.
    pub log_bytes_max: usize,
    /// Calls of host imports.
    pub host_calls_max: u64,
    /// Rows that one read may return.
    pub rows_max: u32,
    /// Rows of one read, as Postgres sends them.
    pub read_bytes_max: usize,
    /// The same, of all reads of one call together.
    pub call_read_bytes_max: usize,
    /// The same, of all reads of a host whose rows are held at one time. Reads below 1 MiB are not counted: each
    /// connection may hold one.
    pub host_read_bytes_max: usize,
    /// Text of one document.
    pub document_bytes_max: usize,
    /// Calls from outside that run or wait at once. Each holds its arguments: beyond so many, waiting helps nobody.
    pub calls_max: usize,
    /// Instances alive at once, an engine.
    pub instances_max: u32,
    /// How long a call waits for a free instance before it is refused.
    pub queue_ms_max: u64,
    /// How deep actions may call actions.
    pub action_depth_max: u32,
}

/// The most that a limit may be set to, so that no sum with it overflows and no pool of that size is asked for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitBound {
    /// As in [`Limits`] and in `convoke.toml`.
    pub name: &'static str,
    pub most: u64,
    /// What the most is, in words: `a day`.
    pub words: &'static str,
}

/// A limit beyond its bound.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{}` is more than {}", bound.name, bound.words)]
pub struct LimitError {
    pub bound: LimitBound,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const DAY: &str = "a day, which no connection outlives";
const GIB: u64 = 1 << 30;
const TEXT: &str = "1 GiB, the longest text that Postgres and the host handle in one piece";
const ERROR_TEXT: &str = "16 MiB, which goes into every answer and into the log";

impl LimitBound {
    const ALL: [Self; 16] = [
        Self { name: "call_ms_max", most: DAY_MS, words: DAY },
        Self { name: "action_ms_max", most: DAY_MS, words: DAY },
        Self { name: "memory_bytes_max", most: 4 * GIB, words: "the 4 GiB that a component can address" },
        Self { name: "table_elements_max", most: 10_000_000, words: "ten million elements, 80 MB of each instance" },
        Self { name: "stack_bytes_max", most: 64 << 20, words: "64 MiB, which each instance has reserved" },
        Self { name: "result_bytes_max", most: GIB, words: TEXT },
        Self { name: "error_message_bytes_max", most: 16 << 20, words: ERROR_TEXT },
        Self { name: "error_code_bytes_max", most: 16 << 20, words: ERROR_TEXT },
        Self { name: "error_data_bytes_max", most: 16 << 20, words: ERROR_TEXT },
        Self { name: "body_bytes_max", most: GIB, words: TEXT },
        Self {
            name: "log_lines_max",
            most: 100_000,
            words: "100,000 lines, which take memory even when they are empty",
        },
        Self { name: "log_bytes_max", most: GIB, words: TEXT },
        Self { name: "host_calls_max", most: 1_000_000_000, words: "a thousand million, hours of nothing else" },
        Self {
            name: "instances_max",
            most: 4096,
            words: "4096, each of which has 8 GiB of the address space reserved in each of two pools",
        },
        Self { name: "queue_ms_max", most: DAY_MS, words: DAY },
        Self { name: "action_depth_max", most: 1000, words: "1000, each of which holds a slot" },
    ];

    /// The bound of a limit by its name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bound| bound.name == name)
    }

    /// # Errors
    /// When the value is beyond the bound.
    pub fn check(self, value: u64) -> Result<(), LimitError> {
        if value <= self.most { Ok(()) } else { Err(LimitError { bound: self }) }
    }
}

impl Limits {
    /// Checks each limit against its bound.
    ///
    /// # Errors
    /// The first limit that is beyond it.
    pub fn check(&self) -> Result<(), LimitError> {
        let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        // In the order of `LimitBound::ALL`; `rows_max` and `document_bytes_max` are compared with and never added to.
        let values = [
            self.call_ms_max,
            self.action_ms_max,
            size(self.memory_bytes_max),
            size(self.table_elements_max),
            size(self.stack_bytes_max),
            size(self.result_bytes_max),
            size(self.error_message_bytes_max),
            size(self.error_code_bytes_max),
            size(self.error_data_bytes_max),
            size(self.body_bytes_max),
            size(self.log_lines_max),
            size(self.log_bytes_max),
            self.host_calls_max,
            u64::from(self.instances_max),
            self.queue_ms_max,
            u64::from(self.action_depth_max),
        ];
        LimitBound::ALL.into_iter().zip(values).try_for_each(|(bound, value)| bound.check(value))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call_ms_max: 10_000,
            // Convex gives an action ten minutes; a held HTTP request is rarely useful beyond one.
            action_ms_max: 60_000,
            memory_bytes_max: 64 << 20,
            table_elements_max: 20_000,
            stack_bytes_max: 512 << 10,
            result_bytes_max: 16 << 20,
            // Words for people: a page of them is long.
            error_message_bytes_max: 64 << 10,
            error_code_bytes_max: 256,
            // As a document: what an error says of one fits.
            error_data_bytes_max: 1 << 20,
            body_bytes_max: 16 << 20,
            log_lines_max: 1_000,
            log_bytes_max: 1 << 20,
            host_calls_max: 250_000,
            rows_max: 100_000,
            // What an instance may have of memory, and so more than a function can take.
            read_bytes_max: 64 << 20,
            call_read_bytes_max: 256 << 20,
            host_read_bytes_max: 256 << 20,
            // Convex' own bound.
            document_bytes_max: 1 << 20,
            calls_max: 8_192,
            instances_max: 256,
            queue_ms_max: 2_000,
            action_depth_max: 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_beyond_its_bound_is_refused_by_name() {
        assert_eq!(Limits::default().check(), Ok(()));
        for (limits, name) in [
            (Limits { call_ms_max: u64::MAX, ..Limits::default() }, "call_ms_max"),
            (Limits { queue_ms_max: u64::MAX, ..Limits::default() }, "queue_ms_max"),
            (Limits { memory_bytes_max: usize::MAX, ..Limits::default() }, "memory_bytes_max"),
            (Limits { stack_bytes_max: usize::MAX, ..Limits::default() }, "stack_bytes_max"),
            (Limits { body_bytes_max: usize::MAX, ..Limits::default() }, "body_bytes_max"),
            (Limits { log_lines_max: usize::MAX, ..Limits::default() }, "log_lines_max"),
            (Limits { host_calls_max: u64::MAX, ..Limits::default() }, "host_calls_max"),
            (Limits { instances_max: u32::MAX, ..Limits::default() }, "instances_max"),
            (Limits { action_depth_max: u32::MAX, ..Limits::default() }, "action_depth_max"),
        ] {
            let error = limits.check().expect_err(name);
            assert!(error.to_string().starts_with(&format!("`{name}` is more than ")), "{error}");
        }
    }

    #[test]
    fn the_bound_itself_is_taken() {
        for bound in LimitBound::ALL {
            assert_eq!(bound.check(bound.most), Ok(()));
            assert!(bound.check(bound.most + 1).is_err());
        }
    }
}
