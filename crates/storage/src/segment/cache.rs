//! Something kept per segment, shared by all who read.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::lru::Lru;

/// Values by the path of their segment.
#[derive(Debug)]
pub(crate) struct PerSegment<T> {
    max_bytes: u64,
    kept: Mutex<Lru<String, Arc<T>>>,
}

impl<T> PerSegment<T> {
    /// Nothing yet. A single value may be larger than `max_bytes`.
    pub(crate) fn new(max_bytes: usize) -> Self {
        PerSegment { max_bytes: max_bytes as u64, kept: Mutex::default() }
    }

    /// The value of a segment, if it is kept.
    pub(crate) fn get(&self, path: &str) -> Option<Arc<T>> {
        self.kept.lock().get(path).map(|(value, _)| Arc::clone(value))
    }

    /// Keeps the value of a segment, about so many bytes.
    pub(crate) fn put(&self, path: &str, value: Arc<T>, bytes: usize) {
        let mut kept = self.kept.lock();
        kept.remove(path);
        kept.make_room(bytes as u64, self.max_bytes);
        kept.insert(path.to_owned(), value, bytes as u64);
    }

    /// The segment is gone.
    pub(crate) fn forget(&self, path: &str) {
        self.kept.lock().remove(path);
    }
}
