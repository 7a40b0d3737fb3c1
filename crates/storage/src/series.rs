//! Series: the tag sets of one memtable generation, each known by a small number.
//!
//! Numbers are given in order of first appearance and never change. A flush starts a fresh index
//! together with a fresh log, so an index holds the series of a few minutes and not of all time.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use highwater_core::TagSet;
use parking_lot::RwLock;

/// Tag sets to numbers and back; append-only. The commit thread adds, readers look up.
#[derive(Debug, Default)]
pub(crate) struct SeriesIndex(RwLock<Interned>);

#[derive(Debug, Default)]
struct Interned {
    hasher: DefaultHashBuilder,
    ids: HashTable<u32>,
    tag_sets: Vec<Arc<TagSet>>,
}

impl SeriesIndex {
    /// Numbers of these tag sets, in their order; unknown ones get the next numbers.
    pub(crate) fn intern(&self, tag_sets: &[TagSet]) -> Vec<u32> {
        let mut interned = self.0.write();
        tag_sets.iter().map(|tag_set| interned.intern(tag_set)).collect()
    }

    /// The tag sets with these numbers.
    ///
    /// # Panics
    /// If a number was never given.
    pub(crate) fn tag_sets(&self, ids: &[u32]) -> Vec<Arc<TagSet>> {
        let interned = self.0.read();
        ids.iter().map(|&id| Arc::clone(&interned.tag_sets[id as usize])).collect()
    }
}

impl Interned {
    fn intern(&mut self, tag_set: &TagSet) -> u32 {
        let Interned { hasher, ids, tag_sets } = self;
        let hash = hasher.hash_one(tag_set.as_bytes());
        let is_same = |id: &u32| *tag_sets[*id as usize] == *tag_set;
        if let Some(known) = ids.find(hash, is_same) {
            return *known;
        }
        let id = u32::try_from(tag_sets.len()).expect("fewer than 2^32 series between two flushes");
        tag_sets.push(Arc::new(tag_set.clone()));
        let rehash = |id: &u32| hasher.hash_one(tag_sets[*id as usize].as_bytes());
        ids.insert_unique(hash, id, rehash);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_keeps_its_number() {
        let set = |host| TagSet::new([("host", host)]).unwrap();
        let index = SeriesIndex::default();
        assert_eq!(index.intern(&[set("a"), set("b"), set("a")]), [0, 1, 0]);
        assert_eq!(index.intern(&[set("c"), set("b")]), [2, 1]);
        assert_eq!(*index.tag_sets(&[2])[0], set("c"));
    }

    #[test]
    fn many_series_stay_apart() {
        let index = SeriesIndex::default();
        let sets: Vec<TagSet> =
            (0..5000).map(|i| TagSet::new([("n", i.to_string().as_str())]).unwrap()).collect();
        let ids = index.intern(&sets);
        assert_eq!(ids, (0..5000).collect::<Vec<u32>>());
        assert_eq!(index.intern(&sets), ids);
    }
}
