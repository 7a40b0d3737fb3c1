//! A cache of parsed footers, bounded in bytes; the longest unused go first.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::store::Footer;

/// Memory for footers of one engine.
const CACHE_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
pub(crate) struct FooterCache(Mutex<Footers>);

#[derive(Debug, Default)]
struct Footers {
    by_path: HashMap<String, Cached>,
    bytes: usize,
    /// Counts uses, to tell which was last.
    clock: u64,
}

#[derive(Debug)]
struct Cached {
    footer: Arc<Footer>,
    last_use: u64,
}

impl FooterCache {
    pub(crate) fn get(&self, path: &str) -> Option<Arc<Footer>> {
        let mut footers = self.0.lock();
        footers.clock += 1;
        let now = footers.clock;
        let cached = footers.by_path.get_mut(path)?;
        cached.last_use = now;
        Some(Arc::clone(&cached.footer))
    }

    pub(crate) fn put(&self, path: &str, footer: Arc<Footer>) {
        let mut footers = self.0.lock();
        footers.remove(path);
        footers.clock += 1;
        footers.bytes += footer.bytes();
        let cached = Cached { footer, last_use: footers.clock };
        footers.by_path.insert(path.to_owned(), cached);
        while footers.bytes > CACHE_BYTES && footers.by_path.len() > 1 {
            footers.remove_longest_unused();
        }
    }

    pub(crate) fn forget(&self, path: &str) {
        self.0.lock().remove(path);
    }
}

impl Footers {
    fn remove(&mut self, path: &str) {
        if let Some(cached) = self.by_path.remove(path) {
            self.bytes -= cached.footer.bytes();
        }
    }

    fn remove_longest_unused(&mut self) {
        let oldest = self.by_path.iter().min_by_key(|(_, cached)| cached.last_use);
        if let Some(path) = oldest.map(|(path, _)| path.clone()) {
            self.remove(&path);
        }
    }
}
