//! Values as members of a set: which are the same, and what is kept of them.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use highwater_core::Timestamp;
use siphasher::sip::SipHasher13;

use super::encoding::{DecodeError, put_varint, take_varint};
use super::value::Value;

/// A value that can be told apart from others.
///
/// -0.0 and 0.0 are one value, and so are all NaN.
pub trait Member: Value {
    /// What is kept of a value: the same for values that are the same.
    type Key: Clone + Debug + Eq + Hash + Ord + Send + Sync + 'static;

    /// Puts the value into a set; gives the bytes that it takes beside its slot if it is new.
    fn insert(set: &mut HashSet<Self::Key>, value: Self::Ref<'_>) -> usize;

    /// A number for the value that looks random, the same on every machine and in every release:
    /// SipHash-1-3 with a key of zeros, of the key's eight little-endian bytes or of the text.
    fn hash(value: Self::Ref<'_>) -> u64;

    /// Bytes that a key takes beside its slot in a set.
    fn key_bytes(key: &Self::Key) -> usize;

    /// Appends keys that are in order, without repetitions.
    fn put_keys(keys: &[&Self::Key], bytes: &mut Vec<u8>);

    /// Takes one key off the front of `bytes`; `before` is the one in front of it.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that are none, and for a key that is not above `before`.
    fn take_key(bytes: &mut &[u8], before: Option<&Self::Key>) -> Result<Self::Key, DecodeError>;
}

/// SipHash-1-3 with a key of zeros.
///
/// Source: Aumasson and Bernstein, SipHash: a fast short-input PRF, INDOCRYPT 2012.
fn hash(bytes: &[u8]) -> u64 {
    SipHasher13::new().hash(bytes)
}

macro_rules! eight_byte_member {
    ($value:ty, $key:expr) => {
        impl Member for $value {
            type Key = u64;

            #[inline]
            fn insert(set: &mut HashSet<u64>, value: $value) -> usize {
                set.insert($key(value));
                0
            }

            #[inline]
            fn hash(value: $value) -> u64 {
                hash(&$key(value).to_le_bytes())
            }

            fn key_bytes(_: &u64) -> usize {
                0
            }

            fn put_keys(keys: &[&u64], bytes: &mut Vec<u8>) {
                put_numbers(keys, bytes);
            }

            fn take_key(bytes: &mut &[u8], before: Option<&u64>) -> Result<u64, DecodeError> {
                take_number(bytes, before)
            }
        }
    };
}

eight_byte_member!(f64, |value: f64| {
    // Adding 0.0 makes -0.0 positive.
    if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() }
});
eight_byte_member!(i64, i64::cast_unsigned);
eight_byte_member!(u64, |value: u64| value);
eight_byte_member!(bool, u64::from);
eight_byte_member!(Timestamp, |at: Timestamp| at.as_nanos().cast_unsigned());

/// The first number, then the distance of each from the one before it.
fn put_numbers(keys: &[&u64], bytes: &mut Vec<u8>) {
    let mut before = 0;
    for &&key in keys {
        put_varint(bytes, key - before);
        before = key;
    }
}

fn take_number(bytes: &mut &[u8], before: Option<&u64>) -> Result<u64, DecodeError> {
    let number = take_varint(bytes)?;
    match before {
        None => Ok(number),
        Some(_) if number == 0 => Err(DecodeError::OutOfRange),
        Some(before) => before.checked_add(number).ok_or(DecodeError::OutOfRange),
    }
}

impl Member for String {
    type Key = Box<str>;

    fn insert(set: &mut HashSet<Box<str>>, value: &str) -> usize {
        if set.contains(value) {
            return 0;
        }
        set.insert(value.into());
        value.len()
    }

    fn hash(value: &str) -> u64 {
        hash(value.as_bytes())
    }

    fn key_bytes(key: &Box<str>) -> usize {
        key.len()
    }

    /// Each text after its length.
    fn put_keys(keys: &[&Box<str>], bytes: &mut Vec<u8>) {
        for key in keys {
            put_varint(bytes, key.len() as u64);
            bytes.extend_from_slice(key.as_bytes());
        }
    }

    fn take_key(bytes: &mut &[u8], before: Option<&Box<str>>) -> Result<Box<str>, DecodeError> {
        let length = usize::try_from(take_varint(bytes)?).unwrap_or(usize::MAX);
        let (text, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        let key = std::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8)?;
        match before {
            Some(before) if **before >= *key => Err(DecodeError::OutOfRange),
            _ => Ok(key.into()),
        }
    }
}
