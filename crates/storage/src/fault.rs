//! A fault on purpose, for tests of what goes on when the manifest cannot be written.

use std::sync::atomic::Ordering;

use crate::engine::Engine;

impl Engine {
    /// Lets every commit of the manifest fail with [`StorageError::Fault`](crate::StorageError::Fault)
    /// from now on, or none any more. Points and deletes, which only need the log, are acknowledged
    /// and kept as ever.
    pub fn fail_commits(&self, fails: bool) {
        self.shared().fails_commits.store(fails, Ordering::Relaxed);
    }
}
