//! How many different values there are, exactly.

use std::collections::HashSet;

use super::Partial;
use super::encoding::{DecodeError, EMPTY, Function, body_of, finished, put_header};
use super::member::Member;

/// Most values that a set keeps; beyond that there is no answer.
pub const MOST_DISTINCT: usize = 1_000_000;

/// Form of a set that would have more than [`MOST_DISTINCT`] values.
const TOO_MANY_FORM: u8 = 1;

/// There are more than [`MOST_DISTINCT`] different values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MOST_DISTINCT} distinct values")]
pub struct TooMany;

/// The set of all values.
///
/// One with more than [`MOST_DISTINCT`] values forgets them and only knows that they are too many,
/// which nothing changes: so the order of values and merges never counts.
#[derive(Clone, Debug)]
pub struct Distinct<V: Member> {
    /// `None` for too many.
    keys: Option<HashSet<V::Key>>,
    /// Bytes that the keys hold outside of the set.
    key_bytes: usize,
}

impl<V: Member> Distinct<V> {
    /// Takes in one value.
    #[inline]
    pub fn update(&mut self, value: V::Ref<'_>) {
        if let Some(keys) = &mut self.keys {
            self.key_bytes += V::insert(keys, value);
            if keys.len() > MOST_DISTINCT {
                self.forget();
            }
        }
    }

    /// How many different values were seen.
    ///
    /// # Errors
    /// [`TooMany`] if more than [`MOST_DISTINCT`].
    pub fn finish(&self) -> Result<u64, TooMany> {
        self.keys.as_ref().map(|keys| keys.len() as u64).ok_or(TooMany)
    }

    fn forget(&mut self) {
        *self = Distinct { keys: None, key_bytes: 0 };
    }
}

impl<V: Member> Partial for Distinct<V> {
    fn merge(&mut self, other: &Self) {
        let (Some(keys), Some(others)) = (&mut self.keys, &other.keys) else {
            return self.forget();
        };
        for key in others {
            if !keys.contains(key) {
                self.key_bytes += V::key_bytes(key);
                keys.insert(key.clone());
                if keys.len() > MOST_DISTINCT {
                    return self.forget();
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.keys.as_ref().is_some_and(HashSet::is_empty)
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let form = match &self.keys {
            None => TOO_MANY_FORM,
            Some(keys) if keys.is_empty() => EMPTY,
            Some(_) => 0,
        };
        put_header(bytes, Function::Distinct, Some(V::TYPE), form);
        let mut keys: Vec<&V::Key> = self.keys.iter().flatten().collect();
        keys.sort_unstable();
        V::put_keys(&keys, bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (form, body) = body_of(bytes, Function::Distinct, Some(V::TYPE))?;
        match form {
            0 => Ok(Distinct::of_keys(keys::<V>(body)?)),
            EMPTY => finished(body).map(|()| Distinct::default()),
            TOO_MANY_FORM => finished(body).map(|()| Distinct { keys: None, key_bytes: 0 }),
            form => Err(DecodeError::UnknownForm { function: Function::Distinct, form }),
        }
    }

    const HAS_HEAP: bool = true;

    fn heap_bytes(&self) -> usize {
        let slots = self.keys.as_ref().map_or(0, HashSet::capacity);
        slots * (size_of::<V::Key>() + 1) + self.key_bytes
    }
}

impl<V: Member> Distinct<V> {
    fn of_keys(keys: Vec<V::Key>) -> Self {
        let key_bytes = keys.iter().map(V::key_bytes).sum();
        Distinct { keys: Some(keys.into_iter().collect()), key_bytes }
    }
}

/// The keys of a set that is not empty.
fn keys<V: Member>(mut body: &[u8]) -> Result<Vec<V::Key>, DecodeError> {
    let mut keys = vec![V::take_key(&mut body, None)?];
    while !body.is_empty() {
        keys.push(V::take_key(&mut body, keys.last())?);
    }
    if keys.len() > MOST_DISTINCT { Err(DecodeError::OutOfRange) } else { Ok(keys) }
}

impl<V: Member> Default for Distinct<V> {
    fn default() -> Self {
        Distinct { keys: Some(HashSet::new()), key_bytes: 0 }
    }
}

impl<V: Member> PartialEq for Distinct<V> {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_count_once() {
        let mut floats = Distinct::<f64>::default();
        let values = [0.0, -0.0, f64::NAN, -f64::NAN, 1.0, 1.0, f64::INFINITY];
        values.iter().for_each(|value| floats.update(*value));
        assert_eq!(floats.finish(), Ok(4));
        assert_eq!(Distinct::<bool>::default().finish(), Ok(0));
    }

    #[test]
    fn too_many_are_an_error_and_stay_one() {
        let most = MOST_DISTINCT as u64;
        let mut full = Distinct::<u64>::default();
        (0..most).for_each(|value| full.update(value));
        full.update(most - 1);
        assert_eq!(full.finish(), Ok(most));
        let mut one = Distinct::<u64>::default();
        one.update(most);
        let mut by_update = full.clone();
        by_update.update(most);
        let mut by_merge = one.clone();
        by_merge.merge(&full);
        assert_eq!((by_update.finish(), by_merge.finish()), (Err(TooMany), Err(TooMany)));
        by_merge.merge(&one);
        by_update.update(7);
        assert_eq!(by_update, by_merge);
        assert!(!by_update.is_empty() && by_update.heap_bytes() == 0);
        let mut bytes = Vec::new();
        by_update.encode(&mut bytes);
        assert_eq!(Distinct::decode(&bytes), Ok(by_update));
        one.merge(&by_merge);
        assert_eq!(one.finish(), Err(TooMany));
    }

    #[test]
    fn keys_out_of_order_are_refused() {
        for body in ["\x29\x05\x01b\x01a", "\x29\x05\x01a\x01a", "\x29\x02\x05\x00"] {
            let text = Distinct::<String>::decode(body.as_bytes());
            let number = Distinct::<i64>::decode(body.as_bytes());
            assert!(text.is_err() && number.is_err(), "{body:?}");
        }
        assert_eq!(Distinct::<u64>::decode(b"\x29\x03"), Err(DecodeError::Truncated));
    }
}
