//! The bounds of a call.

/// Bounds that hold for every call, whatever the function. Times are milliseconds, sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the start of a query, mutation or rule to its answer, retries included.
    pub call_ms_max: u64,
    /// The same for an action, which may wait for the outside.
    pub action_ms_max: u64,
    /// Linear memory of one instance.
    pub memory_bytes_max: usize,
    /// Elements of one table of an instance.
    pub table_elements_max: usize,
    /// The guest's own stack.
    pub stack_bytes_max: usize,
    /// Text of a result.
    pub result_bytes_max: usize,
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
            body_bytes_max: 16 << 20,
            log_lines_max: 1_000,
            log_bytes_max: 1 << 20,
            host_calls_max: 250_000,
            rows_max: 100_000,
            // Convex' own bound.
            document_bytes_max: 1 << 20,
            calls_max: 8_192,
            instances_max: 256,
            queue_ms_max: 2_000,
            action_depth_max: 8,
        }
    }
}
