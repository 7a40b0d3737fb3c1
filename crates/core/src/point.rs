//! Points on their way in: one measurement's points of one request, in columns.

use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;

/// A tag set: keys ascending and unique, values not empty, in one allocation.
///
/// Two tag sets are equal exactly when their bytes are, so hashing and comparing touch no strings.
/// Layout, repeated per tag: key length, value length (both `u32` little endian), key, value.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TagSet(Box<[u8]>);

impl TagSet {
    /// The tag set of these pairs, in any order; pairs with an empty value are left out.
    ///
    /// # Errors
    /// The key that is there twice.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut pairs: Vec<(&str, &str)> =
            pairs.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        pairs.sort_unstable();
        if let Some(twice) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(twice[0].0.to_owned());
        }
        Ok(TagSet::from_sorted(pairs.iter().copied()))
    }

    /// The tag set of these pairs, whose keys ascend and whose values are not empty.
    ///
    /// # Panics
    /// In debug builds, if they are not as said.
    pub fn from_sorted<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        debug_assert!(pairs.clone().is_sorted_by(|a, b| a.0 < b.0), "keys ascend");
        let len = pairs.clone().map(|(key, value)| 8 + key.len() + value.len()).sum();
        let mut bytes = Vec::with_capacity(len);
        for (key, value) in pairs {
            debug_assert!(!value.is_empty(), "an empty tag is a missing tag");
            bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        TagSet(bytes.into_boxed_slice())
    }

    /// The tag set with these bytes, as [`TagSet::as_bytes`] gave them; `None` if they are not
    /// well formed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut pairs = Vec::new();
        while !rest.is_empty() {
            let (pair, after) = split_pair(rest)?;
            pairs.push(pair);
            rest = after;
        }
        TagSet::new(pairs).ok().filter(|set| &*set.0 == bytes)
    }

    /// The bytes that identify this tag set.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Keys and values, keys ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + '_ {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (pair, after) = split_pair(rest)?;
            rest = after;
            Some(pair)
        })
    }

    /// Whether both have the same keys. Touches no values, so it is cheaper than comparing two
    /// [`TagSet::iter`].
    pub fn has_keys_of(&self, other: &TagSet) -> bool {
        let (mut own, mut others) = (&*self.0, &*other.0);
        while let (Some((key, _, rest)), Some((other_key, _, others_rest))) =
            (split_bytes(own), split_bytes(others))
        {
            if key != other_key {
                return false;
            }
            (own, others) = (rest, others_rest);
        }
        own.is_empty() && others.is_empty()
    }

    /// Value of a tag.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(own, _)| *own == key).map(|(_, value)| value)
    }
}

fn split_pair(bytes: &[u8]) -> Option<((&str, &str), &[u8])> {
    let (key, value, rest) = split_bytes(bytes)?;
    Some(((std::str::from_utf8(key).ok()?, std::str::from_utf8(value).ok()?), rest))
}

/// Key and value of the first tag, and what follows.
fn split_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key_len, rest) = bytes.split_first_chunk::<4>()?;
    let (value_len, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
    Some((key, value, rest))
}

impl fmt::Debug for TagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Points of one measurement from one request, in columns and in the order of arrival.
///
/// All vectors that go by row have the same length. Two rows may have the same identity; the
/// later one wins per field.
#[derive(Clone, Debug)]
pub struct PointBatch {
    /// Name of the measurement.
    pub measurement: Arc<str>,
    /// The different tag sets of these rows.
    pub tag_sets: Vec<TagSet>,
    /// Per row: position of its tag set in `tag_sets`.
    pub tag_set_of_row: Vec<u32>,
    /// Per row: nanoseconds since the epoch.
    pub times: Vec<i64>,
    /// Name and values per field, NULL where the row lacks the field. The Arrow types are those
    /// of [`FieldType::arrow`](crate::FieldType::arrow); every row has at least one value.
    pub fields: Vec<(Arc<str>, ArrayRef)>,
    /// Per row: the physical line of the request it came from, counted from 1.
    pub lines: Vec<u32>,
}

impl PointBatch {
    /// Number of points.
    pub fn rows(&self) -> usize {
        self.times.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_without_values() {
        let of = |pairs: &[(&'static str, &'static str)]| TagSet::new(pairs.to_vec()).unwrap();
        let both = of(&[("dc", "x"), ("host", "a")]);
        assert!(both.has_keys_of(&of(&[("dc", "yy"), ("host", "b")])));
        assert!(!both.has_keys_of(&of(&[("dc", "x")])) && !of(&[]).has_keys_of(&both));
        assert!(!both.has_keys_of(&of(&[("dc", "x"), ("hosts", "a")])));
        assert!(of(&[]).has_keys_of(&of(&[])));
    }

    #[test]
    fn a_tag_set_has_one_form() {
        let a = TagSet::new([("host", "a"), ("dc", "x"), ("rack", "")]).unwrap();
        let b = TagSet::new([("dc", "x"), ("host", "a")]).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.iter().collect::<Vec<_>>(), [("dc", "x"), ("host", "a")]);
        assert_eq!(TagSet::from_bytes(a.as_bytes()), Some(b));
        assert_eq!(TagSet::new([("a", "1"), ("a", "2")]), Err("a".to_owned()));
        assert_eq!(TagSet::from_bytes(&a.as_bytes()[1..]), None);
    }
}
