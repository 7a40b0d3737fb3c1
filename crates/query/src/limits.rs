//! Limits of every statement.

/// Limits of every statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the text in bytes. Default 1 MiB.
    pub sql_bytes: usize,
    /// Nesting and chaining of expressions, joins and set operations. Default 512.
    pub depth: usize,
    /// Memory that all queries may use together for sorting, joining and grouping; what can
    /// spills to disk beyond. Default 1 GiB.
    pub memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { sql_bytes: 1 << 20, depth: 512, memory_bytes: 1 << 30 }
    }
}

/// Stack that threads need which plan and run statements of the full default depth.
///
/// Whoever starts the runtime sets it; pages that are not touched cost nothing.
pub const STACK_BYTES: usize = 16 << 20;
