//! Switches that make background work wait or fail on purpose, for tests.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::AggregationError;

/// All off unless a test turns one on.
#[derive(Debug)]
pub struct Switches {
    /// Jobs wait after so many batches; zero: they do not.
    batch_pause: AtomicU64,
    /// So many attempts at a batch still fail.
    fail_batches: AtomicU64,
    /// Whether refreshes and batches wait between computing and committing.
    commit_pause: watch::Sender<bool>,
    /// How many do.
    waiting_commits: AtomicU64,
}

impl Default for Switches {
    fn default() -> Self {
        Switches {
            batch_pause: AtomicU64::new(0),
            fail_batches: AtomicU64::new(0),
            commit_pause: watch::Sender::new(false),
            waiting_commits: AtomicU64::new(0),
        }
    }
}

impl Switches {
    /// Lets jobs wait once they have done so many batches, at least one; zero: never.
    pub fn pause_after_batches(&self, batches: u64) {
        self.batch_pause.store(batches, Ordering::Release);
    }

    /// Lets the next attempts at batches fail.
    pub fn fail_batches(&self, attempts: u64) {
        self.fail_batches.store(attempts, Ordering::Release);
    }

    /// Lets refreshes and batches wait between computing and committing, or go on.
    pub fn pause_commits(&self, pause: bool) {
        self.commit_pause.send_replace(pause);
    }

    /// Turns everything off.
    pub fn clear(&self) {
        self.pause_after_batches(0);
        self.fail_batches(0);
        self.pause_commits(false);
    }

    /// How many refreshes and batches are computed and wait with their commit.
    pub fn waiting_commits(&self) -> u64 {
        self.waiting_commits.load(Ordering::Acquire)
    }

    /// Whether a job that has done so many batches has to wait.
    pub(crate) fn holds_after(&self, batches: u64) -> bool {
        let pause = self.batch_pause.load(Ordering::Acquire);
        pause > 0 && batches >= pause
    }

    /// # Errors
    /// [`AggregationError::Injected`] if this attempt at a batch is to fail.
    pub(crate) fn attempt_batch(&self) -> Result<(), AggregationError> {
        let less = |left: u64| left.checked_sub(1);
        let failed = self.fail_batches.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        if failed.is_ok() { Err(AggregationError::Injected("fail_batches")) } else { Ok(()) }
    }

    /// Waits while commits are paused.
    ///
    /// # Errors
    /// [`AggregationError::Stopping`] if the process ends first.
    pub(crate) async fn before_commit(
        &self,
        stop: &CancellationToken,
    ) -> Result<(), AggregationError> {
        let mut pause = self.commit_pause.subscribe();
        if !*pause.borrow() {
            return Ok(());
        }
        self.waiting_commits.fetch_add(1, Ordering::AcqRel);
        let goes_on = stop.run_until_cancelled(pause.wait_for(|pause| !pause)).await;
        self.waiting_commits.fetch_sub(1, Ordering::AcqRel);
        if matches!(goes_on, Some(Ok(_))) { Ok(()) } else { Err(AggregationError::Stopping) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn switches_hold_until_they_are_cleared() {
        let (switches, stop) = (Switches::default(), CancellationToken::new());
        assert!(!switches.holds_after(9) && switches.attempt_batch().is_ok());
        switches.before_commit(&stop).await.unwrap();
        switches.pause_after_batches(2);
        assert_eq!([1, 2, 3].map(|batches| switches.holds_after(batches)), [false, true, true]);
        switches.fail_batches(2);
        let attempts = [(); 3].map(|()| switches.attempt_batch().is_ok());
        assert_eq!(attempts, [false, false, true]);
        switches.pause_commits(true);
        let waits = switches.before_commit(&stop);
        let cleared = async {
            tokio::task::yield_now().await;
            assert_eq!(switches.waiting_commits(), 1);
            switches.clear();
        };
        tokio::join!(waits, cleared).0.unwrap();
        assert_eq!(switches.waiting_commits(), 0);
        switches.pause_commits(true);
        stop.cancel();
        assert!(switches.before_commit(&stop).await.is_err());
    }
}
