//! Segments that were found to be damaged: nothing of them is served, and compaction, which would
//! only fail, leaves them alone.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tracing::error;

use crate::error::StorageError;

/// By path, what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct DamagedSegments(Mutex<BTreeMap<String, String>>);

impl DamagedSegments {
    /// Notes what was found, and logs it the first time.
    pub(super) fn note(&self, path: &str, damage: &StorageError) {
        let mut damaged = self.0.lock();
        if !damaged.contains_key(path) {
            let error = damage as &dyn std::error::Error;
            error!(path, error, "a segment is damaged; what needs it is refused");
            damaged.insert(path.to_owned(), damage.to_string());
        }
    }

    /// The segment is not live any more, or sound again.
    pub(crate) fn forget(&self, path: &str) {
        self.0.lock().remove(path);
    }

    /// Whether the segment was found to be damaged.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.0.lock().contains_key(path)
    }

    /// All of them by path, with what is wrong.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().clone()
    }
}
