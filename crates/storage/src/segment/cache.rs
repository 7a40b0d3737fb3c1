//! Something kept per segment, bounded in bytes; what was not used for longest goes first.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Something whose memory is known.
pub(crate) trait InMemory {
    /// Estimated bytes.
    fn bytes(&self) -> usize;
}

/// Values by the path of their segment.
#[derive(Debug)]
pub(crate) struct PerSegment<T> {
    max_bytes: usize,
    kept: Mutex<Kept<T>>,
}

#[derive(Debug)]
struct Kept<T> {
    by_path: HashMap<String, Cached<T>>,
    bytes: usize,
    /// Counts uses, to tell which was last.
    clock: u64,
}

#[derive(Debug)]
struct Cached<T> {
    value: Arc<T>,
    last_use: u64,
}

impl<T: InMemory> PerSegment<T> {
    /// An empty cache. It may exceed `max_bytes` by one value.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let kept = Kept { by_path: HashMap::new(), bytes: 0, clock: 0 };
        PerSegment { max_bytes, kept: Mutex::new(kept) }
    }

    /// The value of a segment, if it is kept.
    pub(crate) fn get(&self, path: &str) -> Option<Arc<T>> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let now = kept.clock;
        let cached = kept.by_path.get_mut(path)?;
        cached.last_use = now;
        Some(Arc::clone(&cached.value))
    }

    /// Keeps the value of a segment.
    pub(crate) fn put(&self, path: &str, value: Arc<T>) {
        let mut kept = self.kept.lock();
        kept.remove(path);
        kept.clock += 1;
        kept.bytes += value.bytes();
        let cached = Cached { value, last_use: kept.clock };
        kept.by_path.insert(path.to_owned(), cached);
        while kept.bytes > self.max_bytes && kept.by_path.len() > 1 {
            kept.remove_longest_unused();
        }
    }

    /// The segment is gone.
    pub(crate) fn forget(&self, path: &str) {
        self.kept.lock().remove(path);
    }
}

impl<T: InMemory> Kept<T> {
    fn remove(&mut self, path: &str) {
        if let Some(cached) = self.by_path.remove(path) {
            self.bytes -= cached.value.bytes();
        }
    }

    fn remove_longest_unused(&mut self) {
        let oldest = self.by_path.iter().min_by_key(|(_, cached)| cached.last_use);
        if let Some(path) = oldest.map(|(path, _)| path.clone()) {
            self.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(usize);

    impl InMemory for Bytes {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let cache = PerSegment::new(10);
        let put = |path, bytes| cache.put(path, Arc::new(Bytes(bytes)));
        put("a", 4);
        put("b", 4);
        assert!(cache.get("a").is_some());
        put("c", 4);
        assert_eq!(["a", "b", "c"].map(|path| cache.get(path).is_some()), [true, false, true]);
        put("d", 20);
        assert_eq!(["a", "c", "d"].map(|path| cache.get(path).is_some()), [false, false, true]);
        cache.forget("d");
        put("e", 1);
        assert_eq!(cache.kept.lock().bytes, 1);
    }
}
