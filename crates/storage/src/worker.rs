//! Background work on the real clock: flushing when memtables are large or old, compacting when
//! segments have come.
//!
//! Two loops, so that a long compaction never keeps memtables from being flushed. With a clock
//! that is moved by hand nobody runs them; whoever moves the clock asks for the work.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::select;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::engine::Engine;
use crate::error::StorageError;

/// How often memtables are looked at for their age.
const FLUSH_CHECK: Duration = Duration::from_secs(1);
/// How often segments are looked at, should nothing have woken the loop.
const COMPACTION_CHECK: Duration = Duration::from_secs(30);
/// Pause after a failure, so that a full disk is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Why a loop goes round.
enum Wake {
    /// Something happened that may make work due.
    Work,
    /// The engine is to stop.
    Stop,
}

impl Engine {
    /// Flushes whenever that is due, until `stop`. Failures are logged and tried again; nothing is
    /// lost by them. Writers wait for it once memtables are full.
    pub async fn run_flushes(self, stop: CancellationToken) {
        loop {
            let wake = select! {
                () = stop.cancelled() => Wake::Stop,
                () = self.shared().flush_due.notified() => Wake::Work,
                () = sleep(FLUSH_CHECK) => Wake::Work,
            };
            match wake {
                Wake::Stop => return,
                Wake::Work if self.flush_due() => {
                    pause_if_failed("flush", guarded(self.flush()).await, &stop).await
                }
                Wake::Work => {}
            }
        }
    }

    /// Compacts whenever segments have come, until `stop`. Failures are logged and tried again. It
    /// can wait for anything else.
    pub async fn run_compactions(self, stop: CancellationToken) {
        loop {
            let wake = select! {
                () = stop.cancelled() => Wake::Stop,
                () = self.shared().segments_changed.notified() => Wake::Work,
                () = sleep(COMPACTION_CHECK) => Wake::Work,
            };
            match wake {
                Wake::Stop => return,
                Wake::Work => {
                    pause_if_failed("compaction", guarded(self.compact()).await, &stop).await
                }
            }
        }
    }
}

/// Makes an error of a panic, so that a defect in one round does not end all rounds to come.
///
/// # Errors
/// [`StorageError::Defect`] for a panic, else those of the work.
pub async fn guarded<T, E: From<StorageError>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(StorageError::Defect { panic: text.unwrap_or("without words").to_owned() }.into())
    })
}

async fn pause_if_failed<T>(
    what: &'static str,
    result: Result<T, StorageError>,
    stop: &CancellationToken,
) {
    if let Err(failure) = result {
        error!(error = &failure as &dyn std::error::Error, "{what} failed and will be tried again");
        select! {
            () = stop.cancelled() => {}
            () = sleep(PAUSE_AFTER_FAILURE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_round() {
        let round: Result<(), StorageError> = guarded(async { panic!("min > max") }).await;
        assert!(matches!(round, Err(StorageError::Defect { panic }) if panic == "min > max"));
        let fine: Result<u8, StorageError> = guarded(async { Ok(1) }).await;
        assert!(matches!(fine, Ok(1)));
    }
}
