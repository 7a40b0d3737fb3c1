//! Memory pressure: what the engine does when the process needs too much memory altogether.
//!
//! The engine knows its memtables; whoever watches the process knows the rest and says so. Pressure
//! only counts while memtables hold a good part of what they may, since otherwise flushing and
//! refusing writes would not help.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::settings::Settings;

/// Memtables with less than one in so many of their usual bytes are not worth a flush.
const WORTHWHILE_SHARE: usize = 16;

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryPressure {
    /// There is enough.
    #[default]
    None,
    /// Memtables are flushed early.
    High,
    /// Writes are refused too, until a flush has helped.
    Full,
}

/// The pressure that was noted last.
#[derive(Debug, Default)]
pub(crate) struct NotedPressure(AtomicU8);

impl NotedPressure {
    pub(crate) fn note(&self, pressure: MemoryPressure) {
        let code = match pressure {
            MemoryPressure::None => 0,
            MemoryPressure::High => 1,
            MemoryPressure::Full => 2,
        };
        self.0.store(code, Ordering::Relaxed);
    }

    /// The pressure that counts while memtables hold so many bytes.
    pub(crate) fn on_memtables(&self, bytes: usize, settings: &Settings) -> MemoryPressure {
        if bytes < settings.flush_bytes / WORTHWHILE_SHARE {
            return MemoryPressure::None;
        }
        match self.0.load(Ordering::Relaxed) {
            0 => MemoryPressure::None,
            1 => MemoryPressure::High,
            _ => MemoryPressure::Full,
        }
    }
}
