//! The tags of one measurement in one request: their keys, and the different tag sets.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};
use highwater_core::TagSet;
use highwater_core::schema::TIME_COLUMN;

use super::Limits;
use super::refusal::Refusal;
use super::text;

/// The different tag sets of a measurement, numbered in order of appearance.
#[derive(Debug)]
pub(super) struct TagSets {
    sets: Vec<TagSet>,
    /// Hash of its bytes and number of each set. Only filled once there was a second layout: two
    /// spellings of one set differ in the order of the keys.
    by_bytes: Option<HashTable<(u64, u32)>>,
    hasher: DefaultHashBuilder,
    /// How the latest line with a new tag set was written.
    layout: Option<Layout>,
    /// Room for the values of one line: where each starts and ends.
    values: Vec<(usize, usize)>,
}

impl TagSets {
    pub(super) fn new(hasher: DefaultHashBuilder) -> Self {
        TagSets { sets: Vec::new(), by_bytes: None, hasher, layout: None, values: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(super) fn into_vec(self) -> Vec<TagSet> {
        self.sets
    }

    /// Number of the set written as `tags`, if its keys are those of the latest new one and its
    /// values have no escapes. New heads nearly always are like that.
    pub(super) fn add_alike(&mut self, tags: &str, limits: &Limits) -> Option<u32> {
        let layout = self.layout.as_ref()?;
        layout.find_values(tags, limits, &mut self.values)?;
        let values = &self.values;
        let set = TagSet::from_sorted(layout.sorted.iter().map(|&i| {
            let (start, end) = values[i];
            (&*layout.names[i], &tags[start..end])
        }));
        Some(if self.by_bytes.is_some() { self.find_or_push(set) } else { self.push(set) })
    }

    /// Number of the set of these pairs, with keys that [`KnownTags`] admitted.
    pub(super) fn add(&mut self, tags: &[Tag<'_>]) -> Result<u32, Refusal> {
        let pairs = tags.iter().map(|tag| (&*tag.key, &*tag.value));
        let set = TagSet::new(pairs).map_err(Refusal::TagTwice)?;
        if !self.sets.is_empty() {
            self.index();
        }
        self.layout = Some(Layout::of(tags));
        Ok(self.find_or_push(set))
    }

    fn push(&mut self, set: TagSet) -> u32 {
        self.sets.push(set);
        self.sets.len() as u32 - 1
    }

    /// From now on sets are looked up before they are added.
    pub(super) fn index(&mut self) {
        if self.by_bytes.is_none() {
            let mut by_bytes = HashTable::with_capacity(self.sets.len());
            for (i, set) in self.sets.iter().enumerate() {
                let hash = self.hasher.hash_one(set.as_bytes());
                by_bytes.insert_unique(hash, (hash, i as u32), |&(hash, _)| hash);
            }
            self.by_bytes = Some(by_bytes);
        }
    }

    fn find_or_push(&mut self, set: TagSet) -> u32 {
        let hash = self.hasher.hash_one(set.as_bytes());
        let sets = &self.sets;
        let is_it = |&(own, i): &(u64, u32)| own == hash && sets[i as usize] == set;
        if let Some((_, found)) = self.by_bytes.as_ref().and_then(|sets| sets.find(hash, is_it)) {
            return *found;
        }
        let number = self.push(set);
        if let Some(by_bytes) = &mut self.by_bytes {
            by_bytes.insert_unique(hash, (hash, number), |&(hash, _)| hash);
        }
        number
    }

    /// Forgets how the latest new set was written.
    pub(super) fn forget_layout(&mut self) {
        self.layout = None;
    }

    /// Forgets all but the first `len` sets.
    pub(super) fn truncate(&mut self, len: usize) {
        for (i, set) in self.sets.iter().enumerate().skip(len) {
            let hash = self.hasher.hash_one(set.as_bytes());
            let sets = self.by_bytes.as_mut();
            if let Some(Ok(found)) = sets.map(|sets| sets.find_entry(hash, |own| own.1 == i as u32))
            {
                found.remove();
            }
        }
        self.sets.truncate(len);
    }
}

/// Keys in the order in which a line has them.
#[derive(Debug)]
struct Layout {
    /// As written, with the equals sign.
    keys: Vec<Box<str>>,
    /// Without escapes.
    names: Vec<Box<str>>,
    /// Positions of the names in ascending order.
    sorted: Vec<usize>,
}

impl Layout {
    fn of(tags: &[Tag<'_>]) -> Self {
        let names: Vec<Box<str>> = tags.iter().map(|tag| (*tag.key).into()).collect();
        let mut sorted: Vec<usize> = (0..tags.len()).collect();
        sorted.sort_unstable_by_key(|&i| &names[i]);
        let keys = tags.iter().map(|tag| format!("{}=", tag.written_key).into()).collect();
        Layout { keys, names, sorted }
    }

    /// Where the value of each key is; `None` if there is anything else.
    fn find_values(
        &self,
        tags: &str,
        limits: &Limits,
        values: &mut Vec<(usize, usize)>,
    ) -> Option<()> {
        values.clear();
        let mut at = 0;
        for key in &self.keys {
            let rest = tags.get(at..)?.strip_prefix(&**key)?.as_bytes();
            let ends = |b: &u8| matches!(b, b',' | b'=' | b'\\');
            let len = rest.iter().position(ends).unwrap_or(rest.len());
            let is_plain = matches!(rest.get(len), None | Some(b','));
            if !is_plain || len == 0 || len > limits.tag_value_bytes {
                return None;
            }
            at += key.len();
            values.push((at, at + len));
            at += len + 1;
        }
        (at == tags.len() + 1).then_some(())
    }
}

/// The tag keys that a request has used.
#[derive(Debug)]
pub(super) struct KnownTags {
    names: HashSet<Arc<str>>,
    /// How many of them are not in the stored schema.
    pub(super) new: usize,
}

impl KnownTags {
    pub(super) fn new(hasher: DefaultHashBuilder) -> Self {
        KnownTags { names: HashSet::with_hasher(hasher), new: 0 }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn insert(&mut self, name: Arc<str>, is_stored: bool) {
        self.names.insert(name);
        self.new += usize::from(!is_stored);
    }

    pub(super) fn remove(&mut self, name: &str, is_stored: bool) {
        self.names.remove(name);
        self.new -= usize::from(!is_stored);
    }
}

/// A tag of a line.
#[derive(Debug)]
pub(super) struct Tag<'a> {
    written_key: &'a str,
    pub(super) key: Cow<'a, str>,
    value: Cow<'a, str>,
}

/// The tags written as `tags`, which is what follows the measurement's first comma.
pub(super) fn split<'a>(tags: &'a str, limits: &Limits) -> Result<Vec<Tag<'a>>, Refusal> {
    let mut rest = tags;
    let mut found = Vec::new();
    while let Some(end) = text::find_unescaped(rest.as_bytes(), b',') {
        found.push(Tag::read(&rest[..end], limits)?);
        rest = &rest[end + 1..];
    }
    found.push(Tag::read(rest, limits)?);
    Ok(found)
}

impl<'a> Tag<'a> {
    fn read(tag: &'a str, limits: &Limits) -> Result<Tag<'a>, Refusal> {
        let equals = text::find_unescaped(tag.as_bytes(), b'=');
        let (written_key, value) = tag.split_at(equals.unwrap_or(tag.len()));
        let shown = || text::excerpt(written_key.as_bytes(), 64);
        let (key, value) = match (written_key, value.get(1..)) {
            ("", _) => return Err(Refusal::NoTagKey),
            (_, None | Some("")) => return Err(Refusal::NoTagValue(shown())),
            (key, Some(value)) => (text::unescape(key), value),
        };
        if text::find_unescaped(value.as_bytes(), b'=').is_some() {
            return Err(Refusal::EqualsInTagValue(shown()));
        }
        let value = text::unescape(value);
        if value.len() > limits.tag_value_bytes {
            return Err(Refusal::LongTagValue { tag: shown(), limit: limits.tag_value_bytes });
        }
        check_name(&key, "tag", limits)?;
        if key == TIME_COLUMN {
            return Err(Refusal::NamedTime("tag"));
        }
        Ok(Tag { written_key, key, value })
    }
}

/// Checks what all names have in common.
pub(super) fn check_name(name: &str, kind: &'static str, limits: &Limits) -> Result<(), Refusal> {
    if name.len() > limits.name_bytes {
        return Err(Refusal::LongName { kind, limit: limits.name_bytes });
    }
    if name.as_bytes().contains(&0) {
        return Err(Refusal::NulInName(kind));
    }
    Ok(())
}
