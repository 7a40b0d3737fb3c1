//! Memory of the process: watched, so that writers are slowed down before it runs out.

use std::time::Duration;

use highwater_storage::{Engine, MemoryPressure};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio_util::sync::CancellationToken;

/// How often memory is looked at: at the fastest ingest some 10 MB come in between.
const PERIOD: Duration = Duration::from_millis(20);
/// From this part of the limit on, in percent, memtables are flushed early.
const HIGH_PERCENT: u64 = 90;
/// Bytes of a megabyte.
pub(crate) const MEGABYTE: u64 = 1_000_000;

/// Resident memory of this process.
#[derive(Debug)]
struct Resident {
    system: System,
    pid: Pid,
}

impl Resident {
    fn new() -> Option<Self> {
        Some(Resident { system: System::new().ok()?, pid: sysinfo::get_current_pid().ok()? })
    }

    /// In bytes; `None` where the system does not tell.
    fn bytes(&mut self) -> Option<u64> {
        let only = [self.pid];
        let what = ProcessRefreshKind::nothing().with_memory().without_tasks();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&only), false, what);
        self.system.process(self.pid).map(|process| process.memory())
    }
}

/// Tells the engine how short memory is, until `stop`; `limit_bytes` is what the process may use.
pub(crate) async fn watch(engine: Engine, limit_bytes: u64, stop: CancellationToken) {
    let Some(mut resident) = Resident::new() else {
        tracing::warn!("the memory of this process is not known, so max_memory_mb has no effect");
        return;
    };
    let mut period = tokio::time::interval(PERIOD);
    while stop.run_until_cancelled(period.tick()).await.is_some() {
        if let Some(bytes) = resident.bytes() {
            engine.note_memory_pressure(pressure(bytes, limit_bytes));
        }
    }
}

fn pressure(bytes: u64, limit_bytes: u64) -> MemoryPressure {
    if bytes >= limit_bytes {
        MemoryPressure::Full
    } else if bytes >= limit_bytes / 100 * HIGH_PERCENT {
        MemoryPressure::High
    } else {
        MemoryPressure::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_rises_with_memory() {
        let at = |bytes| pressure(bytes, 1000);
        assert_eq!([at(0), at(899)], [MemoryPressure::None; 2]);
        assert_eq!([at(900), at(999)], [MemoryPressure::High; 2]);
        assert_eq!([at(1000), at(5000)], [MemoryPressure::Full; 2]);
        assert!(Resident::new().unwrap().bytes().unwrap() > MEGABYTE);
    }
}
