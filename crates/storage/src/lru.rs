//! What was used lately, by name and within a number of bytes; the longest unused goes first.

use std::hash::Hash;

use hashbrown::{Equivalent, HashMap};

/// Values by name, each with its size.
#[derive(Debug)]
pub(crate) struct Lru<K, T> {
    by_name: HashMap<K, Kept<T>>,
    bytes: u64,
    /// Counts uses, to tell which was last.
    clock: u64,
}

#[derive(Debug)]
struct Kept<T> {
    value: T,
    bytes: u64,
    last_use: u64,
}

impl<K, T> Default for Lru<K, T> {
    fn default() -> Self {
        Lru { by_name: HashMap::new(), bytes: 0, clock: 0 }
    }
}

impl<K: Clone + Eq + Hash, T> Lru<K, T> {
    /// The size of all values.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A value and its size; this is a use.
    pub(crate) fn get<Q: Hash + Equivalent<K> + ?Sized>(&mut self, name: &Q) -> Option<(&T, u64)> {
        self.clock += 1;
        let kept = self.by_name.get_mut(name)?;
        kept.last_use = self.clock;
        Some((&kept.value, kept.bytes))
    }

    /// Keeps a value instead of the one of that name; this is a use.
    pub(crate) fn insert(&mut self, name: K, value: T, bytes: u64) {
        self.remove(&name);
        self.clock += 1;
        self.bytes += bytes;
        self.by_name.insert(name, Kept { value, bytes, last_use: self.clock });
    }

    /// Forgets a value; `false` if there was none.
    pub(crate) fn remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, name: &Q) -> bool {
        let removed = self.by_name.remove(name);
        self.bytes -= removed.as_ref().map_or(0, |kept| kept.bytes);
        removed.is_some()
    }

    /// Forgets the others.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&K) -> bool) {
        self.by_name.retain(|name, _| is_kept(name));
        self.bytes = self.by_name.values().map(|kept| kept.bytes).sum();
    }

    /// Forgets the longest unused until so many bytes more fit or nothing is left; their names.
    pub(crate) fn make_room(&mut self, bytes: u64, capacity_bytes: u64) -> Vec<K> {
        let mut forgotten = Vec::new();
        while self.bytes + bytes > capacity_bytes {
            let oldest = self.by_name.iter().min_by_key(|(_, kept)| kept.last_use);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
            self.remove(&name);
            forgotten.push(name);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first() {
        let mut lru = Lru::default();
        lru.insert("a", 'a', 4);
        lru.insert("b", 'b', 4);
        assert_eq!(lru.get("a"), Some((&'a', 4)));
        assert_eq!(lru.make_room(4, 10), ["b"]);
        lru.insert("a", 'c', 1);
        assert_eq!(lru.get("a"), Some((&'c', 1)));
        assert_eq!(lru.get("b"), None);
        assert_eq!(lru.bytes(), 1);
        assert_eq!(lru.make_room(20, 10), ["a"]);
        assert!(lru.bytes() == 0 && !lru.remove("a"));
        lru.insert("c", 'c', 2);
        lru.insert("d", 'd', 3);
        lru.retain(|name| *name == "d");
        assert!(lru.get("c").is_none() && lru.bytes() == 3);
    }
}
